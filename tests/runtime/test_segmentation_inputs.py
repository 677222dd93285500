"""What a segmentation net gets to see of a picture: stretched, padded, cut into windows."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.preprocess_segmentation import plan_inputs, segmentation_inputs, write_input
from scalenas_runtime.tasks.segmentation import SegmentationRecipe

PALETTE = ((0, 0, 0), (255, 255, 255))


def recipe(**fields: Any) -> SegmentationRecipe:
    return SegmentationRecipe(**{"height": 64, "width": 96, "classes": ("a", "b"), "palette": PALETTE, **fields})


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_stretch_is_a_bilinear_resize() -> None:
    picture = noise(100, 70)
    (found,) = segmentation_inputs(picture, recipe())
    np.testing.assert_array_equal(found, cv2.resize(picture, (96, 64), interpolation=cv2.INTER_LINEAR))


def test_a_picture_of_the_input_size_is_not_changed() -> None:
    picture = noise(64, 96)
    for fit in ("stretch", "pad", "sliding"):
        np.testing.assert_array_equal(segmentation_inputs(picture, recipe(fit=fit)), picture[np.newaxis])


def test_pad_keeps_the_aspect_ratio_and_fills_with_the_border() -> None:
    picture = noise(100, 70)
    (found,) = segmentation_inputs(picture, recipe(fit="pad", border=9))
    assert plan_inputs((100, 70), recipe(fit="pad")).content == (64, 45)
    np.testing.assert_array_equal(found[:, :45], cv2.resize(picture, (45, 64), interpolation=cv2.INTER_LINEAR))
    # 45 columns end inside a logit pixel of 4: the last column fills it up.
    np.testing.assert_array_equal(found[:, 45:48], np.repeat(found[:, 44:45], 3, axis=1))
    assert (found[:, 48:] == 9).all()


@pytest.mark.parametrize("size", [(1, 1), (30, 200), (65, 97), (150, 333)])
def test_windows_together_are_the_picture(size: tuple[int, int]) -> None:
    picture, settings = noise(*size), recipe(fit="sliding", overlap=0.4, border=9)
    plan = plan_inputs(size, settings)
    whole = np.zeros((*plan.total, 3), np.uint8)
    for (top, left), window in zip(plan.offsets, segmentation_inputs(picture, settings), strict=True):
        whole[top : top + 64, left : left + 96] = window
    np.testing.assert_array_equal(whole[: size[0], : size[1]], picture)
    height, width = (-(-length // 4) * 4 for length in size)
    np.testing.assert_array_equal(
        whole[:height, :width],
        np.pad(picture, ((0, height - size[0]), (0, width - size[1]), (0, 0)), mode="edge"),
    )
    assert (whole[height:] == 9).all()
    assert (whole[:, width:] == 9).all()


def test_every_byte_of_the_input_is_written() -> None:
    for fit in ("stretch", "pad", "sliding"):
        settings = recipe(fit=fit)
        picture = noise(50, 130)
        plan = plan_inputs((50, 130), settings)
        outs = [np.full((64, 96, 3), fill, np.uint8) for fill in (0, 255)]
        for index in range(len(plan.offsets)):
            for out in outs:
                write_input(picture, plan, index, settings, out)
            np.testing.assert_array_equal(outs[0], outs[1])
