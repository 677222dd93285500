"""Synthetic scenes in the form of data sets, for machines without data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from scalenas_runtime.readers.keypoints import KeypointData, KeypointPicture
from scalenas_runtime.readers.pairs import LabelledPicture, PairData
from scalenas_runtime.scenes import Scene, person_scene, street_scene
from scalenas_runtime.tasks.sets import ClassSet, JointSet


def synthetic_keypoints(
    joints: JointSet, *, seed: int, count: int, size: tuple[int, int], first: int = 0
) -> KeypointData:
    """Returns `count` scenes around one person each as a data set; areas are those of the boxes.

    Args:
        joints: Which joints are labelled.
        seed: Which sequence of scenes.
        count: How many.
        size: Height and width of the pictures, in pixels.
        first: Number of the first scene of the sequence.
    """

    def scene(index: int) -> Scene:
        return person_scene(seed, index, size=size, joints=joints, portrait=True)

    def each() -> Iterator[KeypointPicture]:
        for index in range(first, first + count):
            drawn = scene(index)
            sides = (drawn.boxes[:, 2:] - drawn.boxes[:, :2]).astype(np.float64)
            yield KeypointPicture(
                index + 1,
                f"synthetic-{seed}-{index}",
                partial(_given, drawn.picture),
                drawn.boxes,
                drawn.joints,
                sides.prod(axis=1),
                np.zeros(len(drawn.boxes), np.bool_),
            )

    return KeypointData(_title(seed, count, first), joints.joints, joints.edges, count, {"pictures": count}, each)


def synthetic_pairs(classes: ClassSet, *, seed: int, count: int, size: tuple[int, int], first: int = 0) -> PairData:
    """Returns `count` street scenes as a data set; see `synthetic_keypoints`."""

    def each() -> Iterator[LabelledPicture]:
        for index in range(first, first + count):
            drawn = street_scene(seed, index, size=size, classes=classes)
            name = f"synthetic-{seed}-{index}"
            yield LabelledPicture(name, partial(_given, drawn.picture), partial(_given, drawn.class_map))

    return PairData(_title(seed, count, first), count, {"pictures": count}, each, classes)


def _given(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return array


def _title(seed: int, count: int, first: int) -> str:
    return f"synthetic:{seed}:{count}" + (f" from {first}" if first else "")
