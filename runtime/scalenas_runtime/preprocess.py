"""From a picture and boxes to the crops that the net takes."""

from __future__ import annotations

import cv2
import numpy as np

from scalenas_runtime.geometry import Double, Float, crop_transforms
from scalenas_runtime.pictures import Picture
from scalenas_runtime.tasks.pose import PoseRecipe


def pose_crops(
    picture: Picture, boxes: Float, recipe: PoseRecipe, *, out: Picture | None = None
) -> tuple[Picture, Double]:
    """Returns the crops uint8 (N, H, W, 3), BGR, and the maps from picture to crop pixels, float64 (N, 2, 3).

    Bilinear sampling; what lies outside the picture has the grey level `recipe.border`.

    Args:
        picture: uint8 (H, W, 3), BGR.
        boxes: float32 (N, 4), checked (`geometry.check_boxes`).
        recipe: Crop size, padding, affine rule, border.
        out: A C-ordered uint8 array (M, H, W, 3) with M >= N to write the crops into; its first N are returned.

    Raises:
        ValueError: `out` has another shape, dtype or order.
    """
    count, shape = len(boxes), (recipe.height, recipe.width, 3)
    if out is None:
        out = np.empty((count, *shape), np.uint8)
    elif out.dtype != np.uint8 or out.shape[1:] != shape or len(out) < count or not out.flags.c_contiguous:
        raise ValueError(f"out takes C-ordered uint8 of at least {(count, *shape)}, got {out.dtype.name} {out.shape}")
    transforms = crop_transforms(boxes, recipe)
    for transform, crop in zip(transforms, out[:count], strict=True):
        warp_crop(picture, transform, recipe, crop)
    return out[:count], transforms


def warp_crop(picture: Picture, transform: Double, recipe: PoseRecipe, out: Picture) -> None:
    """Writes the part of a picture that a map shows into `out`; what lies outside the picture is `recipe.border`.

    Args:
        picture: uint8 (H, W, 3), BGR.
        transform: float64 (2, 3), from picture to crop pixels (`geometry.crop_transforms`).
        recipe: Crop size and border.
        out: C-ordered uint8 (H, W, 3) of the crop's size.
    """
    cv2.warpAffine(
        picture,
        transform,
        (recipe.width, recipe.height),
        dst=out,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(recipe.border,) * 3,
    )
