"""From heatmaps to joints: argmax, quarter offset, DARK, DARK for UDP; and merging with the mirrored picture's.

All methods start at the highest pixel, whose value is the joint's score. A map without a value above 0 gives (0, 0)
with that score, as in HRNet. Heatmap coordinates are x, y with pixel centres at integers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import Double, Float, heatmap_to_picture
from scalenas_runtime.tasks.pose import PoseRecipe

__all__ = ["decode_heatmaps", "heatmap_to_picture", "merge_flipped"]

# Clamps before the logarithm: DARK's, and UDP's, which also has an upper one.
_DARK_FLOOR = 1e-10
_UDP_RANGE = (1e-3, 50.0)


def decode_heatmaps(heatmaps: Float, recipe: PoseRecipe) -> tuple[Float, Float]:
    """Returns joints float32 (N, K, 2), x, y in heatmap pixels, and scores float32 (N, K) by `recipe.decode`.

    Args:
        heatmaps: float32 (N, K, h, w); not changed.
        recipe: Decode method and DARK's blur.

    Raises:
        ValueError: another dtype or number of axes, or an empty map.
        UserError: a heatmap holds NaN or an infinity; the text names the map and the joint.
    """
    if heatmaps.ndim != 4 or heatmaps.dtype != np.float32 or 0 in heatmaps.shape[1:]:
        raise ValueError(f"heatmaps must be float32 (N, K, h, w), got {heatmaps.dtype.name} {heatmaps.shape}")
    _check_finite(heatmaps, recipe)
    count, joints, height, width = heatmaps.shape
    maps = heatmaps.reshape(count * joints, height, width)
    flat = maps.reshape(count * joints, height * width)
    index = flat.argmax(1)
    scores = flat[np.arange(len(flat)), index]
    found = scores > 0
    y, x = np.divmod(np.where(found, index, 0), width)
    joint = np.stack([x, y], 1).astype(np.float64)
    if len(flat) and recipe.decode == "quarter":
        joint += _quarter(maps, x, y)
    elif len(flat) and recipe.decode == "dark":
        joint += np.where(found[:, np.newaxis], _dark(maps, x, y, recipe.blur), 0)
    elif len(flat) and recipe.decode == "dark-udp":
        joint += np.where(found[:, np.newaxis], _dark_udp(maps, x, y, recipe.blur), 0)
    return joint.astype(np.float32).reshape(count, joints, 2), scores.reshape(count, joints)


def merge_flipped(heatmaps: Float, flipped: Float, recipe: PoseRecipe) -> Float:
    """Returns the mean of heatmaps and of those of the mirrored crops, float32 (N, K, h, w).

    The second are mirrored back and their left and right joints change places. With `affine` `classic` and
    `flip_shift` they then move right by one pixel (the first column stays), HRNet's rule for its pixel-count crops; UDP
    needs no shift.

    Raises:
        ValueError: the two differ in shape.
    """
    if heatmaps.shape != flipped.shape:
        raise ValueError(f"heatmaps {heatmaps.shape} and flipped heatmaps {flipped.shape} differ in shape")
    order = np.arange(heatmaps.shape[1])
    for left, right in recipe.flip_pairs:
        order[[left, right]] = order[[right, left]]
    back = flipped[:, order, :, ::-1]
    merged = np.empty_like(heatmaps)
    if recipe.affine == "classic" and recipe.flip_shift:
        np.add(heatmaps[..., 1:], back[..., :-1], out=merged[..., 1:])
        np.add(heatmaps[..., :1], back[..., :1], out=merged[..., :1])
    else:
        np.add(heatmaps, back, out=merged)
    merged *= 0.5
    return merged


def _check_finite(heatmaps: Float, recipe: PoseRecipe) -> None:
    # A sum is finite far more cheaply than every element; it overflows only for values no net should give.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(heatmaps.sum()) or np.isfinite(heatmaps).all():
            return
    person, joint = np.argwhere(~np.isfinite(heatmaps).all((2, 3)))[0].tolist()
    name = recipe.joints[joint] if joint < len(recipe.joints) else str(joint)
    raise UserError(
        f"heatmap {person} of joint {name} holds NaN or infinities: the engine's numbers overflow; "
        "run `verify`, and take a target of higher precision"
    )


def _quarter(maps: Float, x: NDArray[Any], y: NDArray[Any]) -> Double:
    """Returns offsets of a quarter pixel towards the larger neighbour (HRNet, `get_final_preds`), inside only."""
    height, width = maps.shape[1:]
    step = np.zeros((len(maps), 2))
    inside = np.flatnonzero((x > 1) & (x < width - 1) & (y > 1) & (y < height - 1))
    px, py = x[inside], y[inside]
    step[inside, 0] = np.sign(maps[inside, py, px + 1] - maps[inside, py, px - 1])
    step[inside, 1] = np.sign(maps[inside, py + 1, px] - maps[inside, py - 1, px])
    return step * 0.25


def _dark(maps: Float, x: NDArray[Any], y: NDArray[Any], blur: int) -> Double:
    """Returns DARK's Newton step on the log of the blurred map (Zhang et al., CVPR 2020, eq. 4 to 9)."""
    height, width = maps.shape[1:]
    step = np.zeros((len(maps), 2))
    inside = np.flatnonzero((x > 1) & (x < width - 2) & (y > 1) & (y < height - 2))
    blurred, scale = _modulate(maps, blur)
    reach = np.arange(-2, 3)
    around = blurred[
        inside[:, np.newaxis, np.newaxis],
        (y[inside, np.newaxis] + reach)[:, :, np.newaxis],
        (x[inside, np.newaxis] + reach)[:, np.newaxis, :],
    ]
    v = np.log(np.maximum(around * scale[inside, np.newaxis, np.newaxis], _DARK_FLOOR))
    dx = 0.5 * (v[:, 2, 3] - v[:, 2, 1])
    dy = 0.5 * (v[:, 3, 2] - v[:, 1, 2])
    dxx = 0.25 * (v[:, 2, 4] - 2 * v[:, 2, 2] + v[:, 2, 0])
    dyy = 0.25 * (v[:, 4, 2] - 2 * v[:, 2, 2] + v[:, 0, 2])
    dxy = 0.25 * (v[:, 3, 3] - v[:, 1, 3] - v[:, 3, 1] + v[:, 1, 1])
    step[inside] = _newton(dx, dy, dxx, dyy, dxy)
    return step


def _dark_udp(maps: Float, x: NDArray[Any], y: NDArray[Any], blur: int) -> Double:
    """Returns UDP's form of the step: next neighbours only, edges repeated, so that it also works at the border.

    Unlike DARK's step-2 differences, the Hessian is the plain one, with the mixed term from the two diagonal neighbours
    (Huang et al., CVPR 2020; blur and clamps as in mmpose).
    """
    height, width = maps.shape[1:]
    blurred, scale = _modulate(maps, blur)
    reach = np.arange(-1, 2)
    around = blurred[
        np.arange(len(maps))[:, np.newaxis, np.newaxis],
        np.clip(y[:, np.newaxis] + reach, 0, height - 1)[:, :, np.newaxis],
        np.clip(x[:, np.newaxis] + reach, 0, width - 1)[:, np.newaxis, :],
    ]
    v = np.log(np.clip(around * scale[:, np.newaxis, np.newaxis], *_UDP_RANGE))
    centre, left, right, up, down = v[:, 1, 1], v[:, 1, 0], v[:, 1, 2], v[:, 0, 1], v[:, 2, 1]
    dx, dy = 0.5 * (right - left), 0.5 * (down - up)
    # Keeps a flat map's Hessian invertible; its gradient is 0, and so is the step.
    tiny = float(np.finfo(np.float32).eps)
    dxx, dyy = right - 2 * centre + left + tiny, down - 2 * centre + up + tiny
    dxy = 0.5 * (v[:, 2, 2] - right - down + 2 * centre - left - up + v[:, 0, 0])
    return _newton(dx, dy, dxx, dyy, dxy)


def _newton(dx: Double, dy: Double, dxx: Double, dyy: Double, dxy: Double) -> Double:
    """Returns -H^-1 g per joint, (M, 2); 0 where the Hessian has no inverse."""
    determinant = dxx * dyy - dxy * dxy
    usable = determinant != 0
    divisor = np.where(usable, determinant, 1)
    step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], 1) / divisor[:, np.newaxis]
    return np.where(usable[:, np.newaxis], step, 0)


def _modulate(maps: Float, blur: int) -> tuple[Float, Double]:
    """Returns the maps blurred with zeros around them, and the factors that give them back their old maxima."""
    count, height, width = maps.shape
    kernel, margin = _kernel(blur), blur // 2
    # All maps in one tall picture with zeros between them: one filter call, not one per joint.
    tall = np.zeros((count, height + 2 * margin, width + 2 * margin), np.float32)
    tall[:, margin : margin + height, margin : margin + width] = maps
    sheet = tall.reshape(-1, width + 2 * margin)
    filtered = np.asarray(
        cv2.sepFilter2D(sheet, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_CONSTANT), np.float32
    )
    blurred = filtered.reshape(tall.shape)[:, margin : margin + height, margin : margin + width]
    peak = blurred.max((1, 2)).astype(np.float64)
    scale: Double = maps.max((1, 2)) / np.where(peak == 0, 1, peak)
    return blurred, scale


@lru_cache(maxsize=16)
def _kernel(blur: int) -> NDArray[Any]:
    # Sigma 0 lets OpenCV derive it from the size, as DARK's authors do: 2 pixels for 11.
    return cv2.getGaussianKernel(blur, 0, cv2.CV_32F)
