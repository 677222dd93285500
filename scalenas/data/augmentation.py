"""Chance in training pictures: how people are cropped, streets cut and colours moved.

Defaults are those of the published recipes (HRNet for COCO and Cityscapes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.geometry import Double
from scalenas_runtime.pictures import Picture
from scalenas_runtime.records import Record
from scalenas_runtime.tasks.common import check_size
from scalenas_runtime.tasks.pose import PoseRecipe

_UPPER = ("nose", "eye", "ear", "head", "face", "neck", "thorax", "shoulder", "elbow", "wrist", "hand", "chest")
_LOWER = ("hip", "pelvis", "knee", "ankle", "foot", "toe", "heel")


class PoseAugmentation(Record, frozen=True, kw_only=True):
    """How a person's crop varies.

    Attributes:
        half_body: Chance that the crop shows the upper or the lower body alone.
        half_body_above: Only of people with more labelled joints than this.
        half_body_padding: Takes the place of the recipe's padding then.
        scale: Deviation of the factor on the crop's extent, normal around 1, cut off at one deviation.
        rotation: Deviation of the angle in degrees, normal around 0, cut off at two.
        rotation_chance: Chance of any rotation.
        flip: Chance of mirroring.
        colour: Strength of changes of brightness, contrast and colour cast; 0 is none, 0.2 a good deal.
    """

    half_body: float = 0.3
    half_body_above: int = 8
    half_body_padding: float = 1.5
    scale: float = 0.35
    rotation: float = 45.0
    rotation_chance: float = 0.6
    flip: float = 0.5
    colour: float = 0.0

    def __post_init__(self) -> None:
        _chances(self, ("half_body", "rotation_chance", "flip", "colour"))
        if not 0 <= self.scale < 1:
            raise ValueError(f"scale {self.scale} is outside 0..1 (1 excluded)")
        if not 0 <= self.rotation <= 90:
            raise ValueError(f"rotation {self.rotation} is outside 0..90 degrees")
        if not 0.5 <= self.half_body_padding <= 4:
            raise ValueError(f"half_body_padding {self.half_body_padding} is outside 0.5..4")


class SegmentationAugmentation(Record, frozen=True, kw_only=True):
    """How a street's crop varies.

    Attributes:
        crop: Height and width of what the net is trained on; the recipe's size where left out.
        smallest, largest, step: Factors on the size at which the net would see the whole picture, equally likely.
        flip: Chance of mirroring.
        colour: Strength of changes of brightness, contrast and colour cast; 0 is none, 0.2 a good deal.
    """

    crop: tuple[int, int] | None = None
    smallest: float = 0.5
    largest: float = 2.1
    step: float = 0.1
    flip: float = 0.5
    colour: float = 0.0

    def __post_init__(self) -> None:
        _chances(self, ("flip", "colour"))
        if self.crop is not None:
            check_size(*self.crop)
        if not (0 < self.smallest <= self.largest <= 10 and self.step > 0):
            raise ValueError(
                f"scales from {self.smallest} to {self.largest} by {self.step} must be positive, rising and at most 10"
            )

    def scale(self, rng: np.random.Generator) -> float:
        """Returns a factor, one of the steps from `smallest` to `largest`."""
        count = int((self.largest - self.smallest) / self.step + 1e-6) + 1
        return self.smallest + self.step * int(rng.integers(count))


@dataclass(frozen=True, slots=True)
class View:
    """What a crop shows: a box in pixels of the picture, float32 (4,), degrees of rotation, and whether mirrored."""

    box: NDArray[np.float32]
    rotation: float
    mirrored: bool


def draw_view(
    rng: np.random.Generator,
    augmentation: PoseAugmentation,
    *,
    box: NDArray[np.float32],
    joints: NDArray[np.float32],
    recipe: PoseRecipe,
) -> View:
    """Returns a random view of a person.

    Args:
        rng: Source of chance.
        augmentation: How views vary.
        box: (4,) x1, y1, x2, y2 in pixels of the picture.
        joints: (K, 3) x, y, visibility.
        recipe: Names of the joints, and the padding.
    """
    chance = rng.random(4)
    spread = rng.standard_normal(2)
    centre, half = (box[:2] + box[2:]) / 2.0, (box[2:] - box[:2]) / 2.0
    labelled = joints[:, 2] > 0
    if labelled.sum() > augmentation.half_body_above and chance[0] < augmentation.half_body:
        found = _half_body(joints, labelled, recipe.joints, upper_first=bool(chance[1] < 0.5))
        if found is not None:
            centre, half = found[0], found[1] * augmentation.half_body_padding / recipe.padding
    half = half * (1 + augmentation.scale * float(np.clip(spread[0], -1, 1)))
    turned = chance[2] < augmentation.rotation_chance
    rotation = augmentation.rotation * float(np.clip(spread[1], -2, 2)) if turned else 0.0
    around = np.concatenate([centre - half, centre + half]).astype(np.float32)
    return View(around, rotation, bool(chance[3] < augmentation.flip))


def mirrored_order(recipe: PoseRecipe) -> NDArray[np.intp]:
    """Returns for each joint the one that takes its place in a mirrored picture, (K,)."""
    order = np.arange(len(recipe.joints))
    for left, right in recipe.flip_pairs:
        order[[left, right]] = order[[right, left]]
    return order


def vary_colours(picture: Picture, rng: np.random.Generator, strength: float) -> Picture:
    """Returns the picture with another brightness, contrast and cast, uint8 (H, W, 3); the same one for strength 0."""
    if strength == 0:
        return picture
    gain, gamma = np.exp(strength * rng.standard_normal(2))
    cast = np.exp(0.3 * strength * rng.standard_normal(3))
    levels = np.linspace(0, 1, 256)[:, np.newaxis] ** gamma * gain * cast
    table = np.clip(np.rint(levels * 255), 0, 255).astype(np.uint8)[:, np.newaxis]
    return np.asarray(cv2.LUT(picture, table), np.uint8)


def _half_body(
    joints: NDArray[np.float32], labelled: NDArray[np.bool_], names: Sequence[str], *, upper_first: bool
) -> tuple[Double, Double] | None:
    """Returns centre and half the size of a half of the body that has at least three labelled joints, or None."""
    halves = [
        labelled & np.array([any(word in name.casefold() for word in words) for name in names])
        for words in (_UPPER, _LOWER)
    ]
    for half in halves if upper_first else halves[::-1]:
        if half.sum() > 2:
            points = joints[half, :2].astype(np.float64)
            size = points.max(0) - points.min(0)
            # A limb seen end on has no extent to crop around.
            return (points.mean(0), size / 2) if size.max() > 1 else None
    return None


def _chances(record: Record, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(record, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} {value} is outside 0..1")
