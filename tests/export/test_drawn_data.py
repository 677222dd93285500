"""Drawn data for a recipe: what a search without `--data` judges on."""

from __future__ import annotations

import numpy as np
import pytest

from scalenas_export.search.data import DataSource
from scalenas_runtime.evaluate import evaluate_segmentation
from scalenas_runtime.pictures import Picture
from scalenas_runtime.readers import PairData
from scalenas_runtime.results import SegmentationResult
from scalenas_runtime.tasks.sets import segmentation_recipe


@pytest.mark.parametrize("ignore", [11, 200])
def test_the_labels_of_drawn_streets_are_the_recipes(ignore: int) -> None:
    recipe = segmentation_recipe("camvid-11", size=(64, 96), ignore=ignore)
    dataset = DataSource().open(recipe)
    assert dataset.classes is not None
    assert dataset.classes.ignore == ignore
    data = dataset.labelled("val", size=(64, 96))
    assert isinstance(data, PairData)
    truth = {pair.read().tobytes(): pair.read_labels() for pair, _ in zip(data, range(3), strict=False)}

    def segment(picture: Picture) -> SegmentationResult:
        labels = truth[picture.tobytes()]
        return SegmentationResult(np.where(labels == ignore, 0, labels).astype(np.uint8), recipe)

    assert evaluate_segmentation(segment, recipe, data, limit=3).value == 1
