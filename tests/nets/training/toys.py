"""Tiny tasks that a tiny net learns in seconds: coloured dots to find, coloured halves to tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalenas.data.samples import Sample
from scalenas.data.targets import draw_heatmaps
from scalenas.training.config import TrainConfig
from scalenas.training.supply import Supply
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.readers import KeypointData, KeypointPicture, LabelledPicture, PairData
from scalenas_runtime.records import read_record
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe

SIDE = 64
COLOURS = ((30, 30, 220), (40, 200, 40), (220, 60, 30))
POSE = PoseRecipe(height=SIDE, width=SIDE, joints=("right_hip", "left_shoulder"), padding=1.0)
CLASSES = SegmentationRecipe(
    height=SIDE, width=SIDE, classes=("red", "green", "blue"), palette=((255, 0, 0), (0, 255, 0), (0, 0, 255))
)


def dots(index: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Returns a noisy picture with a red and a green dot, and their places (2, 2)."""
    rng = np.random.default_rng([1, index])
    picture = rng.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
    points = rng.uniform(8, SIDE - 8, (2, 2))
    y, x = np.mgrid[:SIDE, :SIDE]
    for point, colour in zip(points, COLOURS, strict=False):
        picture[(x - point[0]) ** 2 + (y - point[1]) ** 2 < 20] = colour
    return picture, points


def halves(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns a noisy picture of three coloured areas, and their classes; a frame is ignored."""
    rng = np.random.default_rng([2, index])
    y, x = np.mgrid[:SIDE, :SIDE]
    turn = rng.uniform(0, np.pi)
    away = (x - SIDE / 2) * np.cos(turn) + (y - SIDE / 2) * np.sin(turn)
    labels = (away > rng.uniform(-10, 0)).astype(np.uint8) + (away > rng.uniform(5, 15)).astype(np.uint8)
    picture = np.array(COLOURS)[labels] + rng.integers(-60, 60, (SIDE, SIDE, 3))
    labels[:2] = 255
    return np.clip(picture, 0, 255).astype(np.uint8), labels


@dataclass(frozen=True)
class Dots:
    """Samples of dots."""

    count: int = 64

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        picture, points = dots(index)
        maps, weights = draw_heatmaps(
            points / 4 - 0.375, np.ones(2, np.bool_), POSE.heatmap_size, sigma=1.0, method="rounded"
        )
        return Sample(picture, maps, weights)

    def name(self, index: int) -> str:
        return f"dots-{index}"


@dataclass(frozen=True)
class Torn:
    """Dots of which one cannot be read."""

    bad: int
    count: int = 8
    error: type[Exception] = UserError

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if index == self.bad:
            raise self.error(f"{self.name(index)} is truncated")
        return Dots().sample(index, rng)

    def name(self, index: int) -> str:
        return f"dots-{index}"


@dataclass(frozen=True)
class Halves:
    """Samples of halves."""

    count: int = 64

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return Sample(*halves(index), None)

    def name(self, index: int) -> str:
        return f"halves-{index}"


def pose_supply(*, search: int = 16) -> Supply:
    def each() -> Iterator[KeypointPicture]:
        for index in range(1000, 1000 + search):
            picture, points = dots(index)
            joints = np.concatenate([points, np.full((2, 1), 2.0)], axis=1)[np.newaxis].astype(np.float32)
            box = np.array([[0, 0, SIDE, SIDE]], np.float32)
            yield KeypointPicture(
                index, f"{index}", partial(_same, picture), box, joints, np.array([4096.0]), np.zeros(1, np.bool_)
            )

    data = KeypointData("dots", POSE.joints, (), search, {"pictures": search}, each)
    calibration = np.stack([dots(2000 + index)[0] for index in range(32)])
    sources: list[dict[str, Json]] = [{"name": "dots", "what": "drawn in the test"}]
    return Supply(POSE, Dots(), lambda: calibration, data, sources, (SIDE, SIDE))


def class_supply(*, search: int = 8) -> Supply:
    def each() -> Iterator[LabelledPicture]:
        for index in range(1000, 1000 + search):
            picture, labels = halves(index)
            yield LabelledPicture(f"{index}", partial(_same, picture), partial(_same, labels))

    data = PairData("halves", search, {"pictures": search}, each)
    calibration = np.stack([halves(2000 + index)[0] for index in range(16)])
    sources: list[dict[str, Json]] = [{"name": "halves", "what": "drawn in the test"}]
    return Supply(CLASSES, Halves(), lambda: calibration, data, sources, (SIDE, SIDE))


def config(**changes: Any) -> TrainConfig:
    """Returns the configuration of a tiny supernet; keys of sections replace single ones."""
    value: dict[str, Any] = {
        "phase": "supernet",
        "name": "toy",
        "model": {
            "size": [SIDE, SIDE],
            "settings": {"width": 4, "modules": [1, 1, 1], "depths": [1, 2], "stage1_blocks": 1},
        },
        "data": {"path": "none", "workers": 0},
        "schedule": {"steps": 6, "shape": "constant"},
        "optimiser": {"lr": 0.005, "kind": "adamw"},
        "batch": 2,
        "checkpoint_steps": 2,
        "log_steps": 2,
        "evaluation": {"calibration": 32, "members": False},
        "channels_last": False,
        "device": "cpu",
    }
    for key, item in changes.items():
        value[key] = {**value[key], **item} if isinstance(item, dict) and isinstance(value.get(key), dict) else item
    return read_record(TrainConfig, value, what="toy")


def _same(array: NDArray[Any]) -> NDArray[Any]:
    return array
