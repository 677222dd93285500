"""Boxes become crops, and heatmap pixels become points of the picture, exactly by the two published rules."""

from typing import Any, Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import (
    box_extents,
    check_boxes,
    crop_to_picture,
    crop_transforms,
    heatmap_to_picture,
    picture_to_crop,
    picture_to_heatmap,
    whole_picture,
)
from scalenas_runtime.preprocess import pose_crops
from scalenas_runtime.tasks import PoseRecipe

Affine = Literal["classic", "udp"]
BOXES = np.array([[100, 50, 200, 400], [-30.5, 10, 300, 90.25], [7, 7, 8, 8]], np.float32)


def recipe(affine: Affine = "classic", **fields: Any) -> PoseRecipe:
    return PoseRecipe(height=256, width=192, joints=("a", "b", "c"), affine=affine, **fields)


def test_the_box_is_widened_to_the_aspect_ratio_and_then_padded() -> None:
    centres, extents = box_extents(np.array([[0, 0, 30, 100], [10, 0, 310, 100]], np.float32), recipe())
    np.testing.assert_allclose(centres, np.array([[15, 50], [160, 50]]))
    # 192:256 is 3:4: the tall box gets 75 x 100, the wide one 300 x 400; both times 1.25.
    np.testing.assert_allclose(extents, np.array([[93.75, 125], [375, 500]]))


def test_classic_is_hrnets_three_point_transform() -> None:
    for box, transform in zip(BOXES.astype(np.float64), crop_transforms(BOXES, recipe()), strict=True):
        x1, y1, x2, y2 = box
        centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
        width = max(x2 - x1, (y2 - y1) * 0.75) * 1.25
        source = np.array([centre, centre - [0, width / 2], centre - [width / 2, width / 2]], np.float32)
        crop = np.array([[96, 128], [96, 128 - 96], [0, 128 - 96]], np.float32)
        np.testing.assert_allclose(transform, cv2.getAffineTransform(source, crop), rtol=1e-4, atol=1e-2)


def test_udp_maps_the_extent_onto_the_outer_pixel_centres() -> None:
    transforms = crop_transforms(BOXES, recipe("udp"))
    centres, extents = box_extents(BOXES, recipe("udp"))
    corners = np.stack([centres - extents / 2, centres, centres + extents / 2], 1)
    expected = np.array([[[0, 0], [95.5, 127.5], [191, 255]]] * 3)
    np.testing.assert_allclose(picture_to_crop(corners, transforms), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        # x = (h - w/2) * extent / w + centre, as HRNet's transform_preds on the heatmap's own size
        ("classic", lambda h, size, extent, centre: (h - size / 2) * extent / size + centre),
        # x = h * extent / (w - 1) + centre - extent / 2, as UDP's
        ("udp", lambda h, size, extent, centre: h * extent / (size - 1) + centre - extent / 2),
    ],
)
def test_heatmap_pixels_go_back_by_the_published_formula(affine: Affine, expected: Any) -> None:
    points = np.random.default_rng(0).uniform(0, 47, (3, 5, 2))
    centres, extents = box_extents(BOXES, recipe(affine))
    wanted = expected(points, np.array([48, 64]), extents[:, np.newaxis], centres[:, np.newaxis])
    found = heatmap_to_picture(points, crop_transforms(BOXES, recipe(affine)), recipe(affine))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("affine", ["classic", "udp"])
def test_there_and_back_again(affine: Affine) -> None:
    transforms = crop_transforms(BOXES, recipe(affine))
    points = np.random.default_rng(1).uniform(-50, 400, (3, 7, 2))
    np.testing.assert_allclose(crop_to_picture(picture_to_crop(points, transforms), transforms), points, atol=1e-3)
    heatmap = picture_to_heatmap(points, transforms, recipe(affine))
    np.testing.assert_allclose(heatmap_to_picture(heatmap, transforms, recipe(affine)), points, atol=1e-3)


def test_a_turned_transform_is_inverted_too() -> None:
    transforms = np.array([[[0.5, -1.5, 7], [1.25, 0.75, -3]]])
    points = np.random.default_rng(2).uniform(-50, 50, (1, 9, 2))
    np.testing.assert_allclose(crop_to_picture(picture_to_crop(points, transforms), transforms), points, atol=1e-4)


def test_udp_mirrors_the_heatmap_exactly_and_classic_by_three_quarters_of_a_pixel() -> None:
    crop = np.random.default_rng(3).uniform(0, 191, (1, 6, 2))
    mirrored = np.stack([191 - crop[..., 0], crop[..., 1]], 2)
    identity = np.array([[[1.0, 0, 0], [0, 1, 0]]])
    for affine, shift in (("udp", 0.0), ("classic", 0.75)):
        there = picture_to_heatmap(crop, identity, recipe(affine))[..., 0]  # type: ignore[arg-type]
        back = 47 - picture_to_heatmap(mirrored, identity, recipe(affine))[..., 0]  # type: ignore[arg-type]
        np.testing.assert_allclose(there - back, shift, atol=1e-9)


def test_the_whole_picture_is_a_box() -> None:
    np.testing.assert_array_equal(whole_picture(480, 640), [[0, 0, 640, 480]])


def test_boxes_over_the_edge_are_fine_and_no_boxes_too() -> None:
    given = [[-10, -10, 5, 5], [630, 470, 700, 500]]
    checked = check_boxes(given, 480, 640)
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, given)
    assert check_boxes([], 480, 640).shape == (0, 4)
    assert check_boxes(np.zeros((0, 4)), 480, 640).shape == (0, 4)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([1, 2, NAN, 4], r"box 1 \[1, 2, nan, 4\] is not finite"),
        ([1, 2, INF, 4], r"box 1 \[1, 2, inf, 4\] is not finite"),
        ([5, 5, 5, 9], r"box 1 \[5, 5, 5, 9\] has no area"),
        ([9, 5, 5, 9], r"box 1 \[9, 5, 5, 9\] has no area"),
        ([700, 5, 800, 9], r"box 1 \[700, 5, 800, 9\] lies outside the picture of 640 x 480"),
        ([-9, 5, 0, 9], "box 1 .* lies outside"),
        ([5, 480, 9, 490], "box 1 .* lies outside"),
    ],
)
def test_a_bad_box_is_named_by_index_and_values(box: list[float], message: str) -> None:
    boxes = np.array([[0, 0, 10, 10], box])
    with pytest.raises(UserError, match=message):
        check_boxes(boxes, 480, 640)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [([1, 2, 3, 4], r"shape \(N, 4\).*got \(4,\)"), ([[1, 2, 3]], r"got \(1, 3\)"), ([["a"] * 4], "must be numbers")],
)
def test_boxes_of_another_shape_are_refused(boxes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_boxes(boxes, 480, 640)


def bilinear(picture: NDArray[np.uint8], x: float, y: float, border: float) -> NDArray[np.float64]:
    """The value between four pixels; those outside are `border`."""
    total = np.zeros(3)
    left, top = int(np.floor(x)), int(np.floor(y))
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - abs(x - column)) * (1 - abs(y - row))
        inside = 0 <= row < picture.shape[0] and 0 <= column < picture.shape[1]
        total += weight * (picture[row, column] if inside else np.full(3, border))
    return total


@pytest.mark.parametrize("affine", ["classic", "udp"])
def test_crops_are_bilinear_samples_with_the_border_outside(affine: Affine) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    picture = np.asarray(cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)
    boxes = np.array([[100, 60, 180, 200], [-40, -30, 90, 120]], np.float32)
    crops, transforms = pose_crops(picture, boxes, recipe(affine, border=114))
    assert crops.shape == (2, 256, 192, 3)
    assert crops.dtype == np.uint8
    rng = np.random.default_rng(5)
    for index in range(2):
        for column, row in rng.integers(0, (192, 256), (60, 2)).tolist():
            x, y = crop_to_picture(np.array([[[column, row]]]), transforms[index : index + 1])[0, 0].tolist()
            # OpenCV 4 samples at 1/32 pixel.
            np.testing.assert_allclose(crops[index, row, column], bilinear(picture, x, y, 114), atol=8)
    assert (crops[1, 0, 0] == 114).all()


def test_crops_go_into_the_callers_buffer() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    out = np.full((4, 256, 192, 3), 9, np.uint8)
    crops, _ = pose_crops(picture, np.array([[5, 5, 40, 40]], np.float32), recipe(), out=out)
    assert crops.base is out
    np.testing.assert_array_equal(out[0], pose_crops(picture, np.array([[5, 5, 40, 40]], np.float32), recipe())[0][0])
    assert (out[1:] == 9).all()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 256, 192, 3), np.float32),
        np.zeros((0, 256, 192, 3), np.uint8),
        np.zeros((1, 192, 256, 3), np.uint8),
    ],
    ids=["dtype", "too few", "size"],
)
def test_a_buffer_that_does_not_fit_is_refused(out: Any) -> None:
    with pytest.raises(ValueError, match="out takes C-ordered uint8 of at least"):
        pose_crops(np.zeros((9, 9, 3), np.uint8), np.array([[0, 0, 5, 5]], np.float32), recipe(), out=out)


@pytest.mark.parametrize(
    "box", [[0, 0, 1e-20, 1e-20], [-1e30, -1e30, 1e30, 1e30], [0, 0, 1, 1]], ids=["tiny", "huge", "pixel"]
)
def test_extreme_boxes_give_crops_and_finite_points(box: list[float]) -> None:
    boxes = check_boxes([box], 20, 30)
    crops, transforms = pose_crops(np.full((20, 30, 3), 50, np.uint8), boxes, recipe())
    assert crops.shape == (1, 256, 192, 3)
    assert np.isfinite(heatmap_to_picture(np.zeros((1, 3, 2)), transforms, recipe())).all()
