"""A sheet of training samples with their targets drawn over them, for people to look at."""

from __future__ import annotations

import numpy as np

from scalenas.data.samples import Sample, Samples
from scalenas_runtime.decode.pose import decode_heatmaps
from scalenas_runtime.geometry import heatmap_scale
from scalenas_runtime.pictures import Picture
from scalenas_runtime.results import PoseResult, SegmentationResult
from scalenas_runtime.tasks import PoseRecipe, Recipe, SegmentationRecipe

_GAP = 4


def contact_sheet(samples: Samples, recipe: Recipe, *, seed: int = 0, columns: int = 8, rows: int = 4) -> Picture:
    """Returns a picture of random samples side by side, uint8 (H, W, 3), BGR.

    Joints are decoded from the heatmaps, so that what is seen is what the net is taught.

    Args:
        samples: All of one size.
        recipe: What they were made with.
        seed: Which samples, and the chance in them.
        columns: Samples side by side.
        rows: Samples below each other.
    """
    rng = np.random.default_rng(seed)
    picks = rng.choice(len(samples), columns * rows, replace=len(samples) < columns * rows)
    drawn = [_drawn(samples.sample(int(index), rng), recipe) for index in picks]
    height, width = drawn[0].shape[:2]
    sheet = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for place, picture in enumerate(drawn):
        y, x = (
            _GAP + number * (side + _GAP) for number, side in zip(divmod(place, columns), (height, width), strict=True)
        )
        sheet[y : y + height, x : x + width] = picture
    return sheet


def _drawn(sample: Sample, recipe: Recipe) -> Picture:
    if isinstance(recipe, PoseRecipe):
        return _with_joints(sample, recipe)
    return _with_classes(sample, recipe)


def _with_joints(sample: Sample, recipe: PoseRecipe) -> Picture:
    assert sample.weight is not None
    points, _ = decode_heatmaps(sample.target[np.newaxis], recipe)
    points = (points * heatmap_scale(recipe)).astype(np.float32)
    box = np.array([[0, 0, recipe.width, recipe.height]], np.float32)
    result = PoseResult(points, sample.weight[np.newaxis], box, np.ones(1, np.float32), recipe)
    return result.draw(sample.picture, boxes=False)


def _with_classes(sample: Sample, recipe: SegmentationRecipe) -> Picture:
    return SegmentationResult(sample.target, recipe).draw(sample.picture, alpha=0.5, legend=False)
