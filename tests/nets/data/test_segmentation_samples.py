"""Cuts of streets with their labels: the runtime's own inputs without chance, consistent pairs with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas.data.augmentation import SegmentationAugmentation
from scalenas.data.maps import DrawnMaps, LabelledMaps, MapSamples
from scalenas_runtime.errors import UserError
from scalenas_runtime.preprocess_segmentation import segmentation_inputs
from scalenas_runtime.readers import LabelledPicture
from scalenas_runtime.records import read_record
from scalenas_runtime.tasks import SegmentationRecipe
from scalenas_runtime.tasks.sets import CAMVID_11, CITYSCAPES_19, ClassSet, segmentation_recipe

STREETS = DrawnMaps(CAMVID_11, seed=1, scenes=range(3), size=(90, 120))


def recipe(**fields: object) -> SegmentationRecipe:
    return segmentation_recipe(CAMVID_11, size=(64, 96), **fields)


@dataclass(frozen=True)
class Painted:
    """A picture whose grey levels say its labels: smooth patches, so that scaling keeps most of them."""

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "painted"

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        labels = np.random.default_rng(0).integers(0, 11, (6, 8)).astype(np.uint8).repeat(20, 0).repeat(20, 1)
        return np.repeat(labels[..., np.newaxis] * np.uint8(20), 3, axis=2), labels


@pytest.mark.parametrize("fit", ["stretch", "pad", "sliding"])
def test_without_chance_the_picture_is_the_runtimes(fit: str) -> None:
    chosen = recipe(fit=fit)
    for index in range(len(STREETS)):
        sample = MapSamples(STREETS, chosen, classes=CAMVID_11).sample(index, np.random.default_rng(index))
        inputs = segmentation_inputs(STREETS.pair(index)[0], chosen)
        assert any(np.array_equal(sample.picture, each) for each in inputs)
        assert sample.target.shape == (64, 96)
        assert sample.weight is None


def test_padding_is_ignored() -> None:
    sample = MapSamples(STREETS, recipe(fit="pad"), classes=CAMVID_11).sample(0, np.random.default_rng(0))
    assert (sample.target[:, 88:] == CAMVID_11.ignore).all()
    assert (sample.target[:, :84] != CAMVID_11.ignore).mean() > 0.5


@pytest.mark.parametrize("augmented", [False, True])
def test_labels_lie_on_what_they_label(augmented: bool) -> None:
    augmentation = SegmentationAugmentation(crop=(96, 64)) if augmented else None
    samples = MapSamples(Painted(), recipe(), classes=CAMVID_11, augmentation=augmentation)
    padded = 0
    for seed in range(20):
        sample = samples.sample(0, np.random.default_rng(seed))
        assert sample.picture.shape[:2] == sample.target.shape == ((96, 64) if augmented else (64, 96))
        shown = sample.target != CAMVID_11.ignore
        close = np.abs(sample.picture[..., 0].astype(int) - 20 * sample.target.astype(int)) <= 2
        assert close[shown].mean() > 0.8
        assert (sample.picture[~shown] == 0).all()
        padded += int(not shown.all())
    assert (padded > 0) == augmented


def test_scales_are_the_published_steps() -> None:
    augmentation = SegmentationAugmentation()
    rng = np.random.default_rng(0)
    drawn = {round(augmentation.scale(rng), 6) for _ in range(600)}
    assert drawn == {round(0.5 + step / 10, 6) for step in range(17)}


def test_classes_are_matched_by_name() -> None:
    other = segmentation_recipe(CITYSCAPES_19, size=(64, 96))
    plain = MapSamples(Painted(), recipe(), classes=CAMVID_11).sample(0, np.random.default_rng(0)).target
    named = MapSamples(Painted(), other, classes=CAMVID_11).sample(0, np.random.default_rng(0)).target
    for label, name in enumerate(CAMVID_11.classes):
        expected = other.classes.index(name) if name in other.classes else 255
        assert set(named[plain == label].tolist()) <= {expected}
    with pytest.raises(UserError, match="mine has the classes moon, sun, none of sky"):
        MapSamples(Painted(), recipe(), classes=ClassSet("mine", ("moon", "sun"), ((0, 0, 0), (1, 1, 1)), 255))


def test_a_mask_of_another_size_is_named() -> None:
    wrong = LabelledPicture("a.png", lambda: np.zeros((4, 6, 3), np.uint8), lambda: np.zeros((4, 5), np.uint8))
    samples = MapSamples(LabelledMaps([wrong]), recipe(), classes=CAMVID_11)
    assert samples.name(0) == "a.png"
    with pytest.raises(UserError, match=r"a.png is \(4, 6\) pixels, its mask \(4, 5\)"):
        samples.sample(0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"crop": (100, 64)}, "height 100 is not a positive multiple of 32"),
        ({"smallest": 2.0, "largest": 1.0}, "scales from 2.0 to 1.0 by 0.1 must be positive, rising"),
        ({"colour": 2.0}, r"colour 2.0 is outside 0\.\.1"),
    ],
)
def test_values_that_do_not_fit(fields: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        read_record(SegmentationAugmentation, fields, what="augmentation")
