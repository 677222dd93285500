"""Where a person's box goes in the crop, and where a heatmap's pixel lies in the picture.

Conventions. Boxes and joints share one frame: continuous pixels of the picture, pixel centres at integers, so the
whole picture is the box (0, 0, W, H), as in HRNet and COCO. A box is widened around its centre to the crop's aspect
ratio and then by `recipe.padding`; the result is the extent (width, height) that the crop shows.

- `classic` (HRNet, Sun et al., CVPR 2019): sizes are pixel counts. The box's centre goes to crop (W/2, H/2), the scale
  is W / extent width on both axes, and heatmap pixel h lies at crop pixel h * W / w.
- `udp` (Huang et al., CVPR 2020): sizes are distances between pixel centres. The centre goes to ((W-1)/2, (H-1)/2),
  the scales are (W-1) / extent width and (H-1) / extent height, and heatmap pixel h lies at h * (W-1) / (w-1), so
  that mirroring the crop mirrors the heatmap exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks.pose import PoseRecipe

Float = NDArray[np.float32]
Double = NDArray[np.float64]


def whole_picture(height: int, width: int) -> Float:
    """Returns the box of a whole picture: float32 (1, 4), x1, y1, x2, y2."""
    return np.array([[0, 0, width, height]], np.float32)


def check_boxes(boxes: ArrayLike, height: int, width: int) -> Float:
    """Returns boxes as float32 (N, 4); an empty list gives (0, 4). Boxes that reach over the edge are fine.

    Args:
        boxes: N boxes x1, y1, x2, y2 in pixels of the picture.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.

    Raises:
        UserError: another shape, or a box that is not finite, has no area or lies outside the picture; the text
            names the box by its index and values.
    """
    try:
        given: NDArray[Any] = np.asarray(boxes, np.float32)
    except (TypeError, ValueError):
        raise UserError("boxes must be numbers in rows x1, y1, x2, y2") from None
    if given.size == 0:
        return np.zeros((0, 4), np.float32)
    if given.ndim != 2 or given.shape[1] != 4:
        raise UserError(f"boxes must have shape (N, 4): x1, y1, x2, y2; got {given.shape}")
    with np.errstate(invalid="ignore"):
        x1, y1, x2, y2 = given.T
        faults = (
            (~np.isfinite(given).all(1), "is not finite"),
            (~((x2 > x1) & (y2 > y1)), "has no area (x2 > x1 and y2 > y1 are needed)"),
            (~((x2 > 0) & (y2 > 0) & (x1 < width) & (y1 < height)), f"lies outside the picture of {width} x {height}"),
        )
    for wrong, text in faults:
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            values = ", ".join(f"{value:g}" for value in given[index].tolist())
            raise UserError(f"box {index} [{values}] {text}")
    return given


def box_extents(boxes: Float, recipe: PoseRecipe) -> tuple[Double, Double]:
    """Returns centres (N, 2) x, y and extents (N, 2) width, height of what the crops show, in pixels of the picture."""
    corners = boxes.astype(np.float64)
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    sizes = corners[:, 2:] - corners[:, :2]
    aspect = recipe.width / recipe.height
    width = np.maximum(sizes[:, 0], sizes[:, 1] * aspect)
    return centres, np.stack([width, width / aspect], axis=1) * recipe.padding


def crop_transforms(
    boxes: Float, recipe: PoseRecipe, *, rotations: ArrayLike | None = None, mirrored: ArrayLike | None = None
) -> Double:
    """Returns the maps from picture to crop pixels, one per box: float64 (N, 2, 3), for column vectors (x, y, 1).

    Args:
        boxes: float32 (N, 4), in pixels of the picture.
        recipe: Crop size, padding, affine rule.
        rotations: (N,) degrees by which the crops show the picture turned clockwise around the boxes' centres.
        mirrored: (N,) bool: crops that show the picture mirrored left to right, around the same centres (the rule of
            HRNet's training: picture and centre are mirrored, then cut).
    """
    centres, extents = box_extents(boxes, recipe)
    # UDP measures from the first pixel centre to the last, the classic rule counts pixels.
    size = np.array([recipe.width, recipe.height], np.float64) - (recipe.affine == "udp")
    scales = size / extents
    transforms = np.zeros((len(boxes), 2, 3))
    transforms[:, 0, 0] = scales[:, 0]
    transforms[:, 1, 1] = scales[:, 1]
    if rotations is not None:
        angles = np.deg2rad(np.asarray(rotations, np.float64))
        cosine, sine = np.cos(angles), np.sin(angles)
        turns = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)
        transforms[:, :, :2] = scales[:, :, np.newaxis] * turns
    if mirrored is not None:
        transforms[np.asarray(mirrored, np.bool_), 0] *= -1
    transforms[:, :, 2] = size / 2 - np.einsum("nij,nj->ni", transforms[:, :, :2], centres)
    return transforms


def picture_to_crop(points: NDArray[Any], transforms: Double) -> Double:
    """Returns points (N, K, 2) of the picture as points of their crops, float64 (N, K, 2)."""
    return points @ transforms[:, :, :2].transpose(0, 2, 1) + transforms[:, np.newaxis, :, 2]


def crop_to_picture(points: NDArray[Any], transforms: Double) -> Float:
    """Returns points (N, K, 2) of the crops as points of the picture, float32 (N, K, 2)."""
    (a, b), (c, d) = transforms[:, 0, :2].T, transforms[:, 1, :2].T
    inverse = np.stack([np.stack([d, -c], -1), np.stack([-b, a], -1)], 1) / (a * d - b * c)[:, np.newaxis, np.newaxis]
    found: Double = (points - transforms[:, np.newaxis, :, 2]) @ inverse
    return found.astype(np.float32)


def heatmap_scale(recipe: PoseRecipe) -> Double:
    """Returns crop pixels per heatmap pixel, float64 (2,): along x, along y."""
    height, width = recipe.heatmap_size
    crop = np.array([recipe.width, recipe.height], np.float64)
    heatmap = np.array([width, height], np.float64)
    if recipe.affine == "udp":
        return (crop - 1) / np.maximum(heatmap - 1, 1)
    return crop / heatmap


def heatmap_to_picture(coordinates: NDArray[Any], transforms: Double, recipe: PoseRecipe) -> Float:
    """Returns heatmap coordinates (N, K, 2) as points of the picture, float32 (N, K, 2).

    Args:
        coordinates: x, y in heatmap pixels, pixel centres at integers.
        transforms: The maps from picture to crop of the same N boxes, see `crop_transforms`.
        recipe: Names the affine rule and the sizes.
    """
    return crop_to_picture(coordinates * heatmap_scale(recipe), transforms)


def picture_to_heatmap(points: NDArray[Any], transforms: Double, recipe: PoseRecipe) -> Double:
    """Returns points (N, K, 2) of the picture as heatmap coordinates, float64 (N, K, 2): where targets are drawn."""
    return picture_to_crop(points, transforms) / heatmap_scale(recipe)
