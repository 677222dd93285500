"""Pictures that show where two results of one picture differ."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.session import Array
from scalenas_runtime.tasks import PoseRecipe, Recipe, SegmentationRecipe

Picture = NDArray[np.uint8]

MIN_HEIGHT = 768
_REFERENCE, _CANDIDATE, _DIFFERENT = (80, 220, 80), (60, 60, 255), (60, 60, 255)
_SHIFT = 4


def difference_picture(picture: Picture, reference: Array, candidate: Array, recipe: Recipe) -> Picture:
    """Returns a picture of both results, uint8 (H', W', 3), BGR.

    Pose: the input enlarged, the reference's joints as green rings, the candidate's as red dots, a line between
    each pair. Segmentation: the reference's classes, the candidate's, and the pixels that differ in red, side by side
    or, where that would be wide, one below the other.

    Args:
        picture: The input, uint8 (H, W, 3), BGR.
        reference: Keypoints (K, 3) in pixels of the input, or a class map (H, W).
        candidate: The same of the other engine.
        recipe: The task.
    """
    if isinstance(recipe, PoseRecipe):
        return _pose(picture, reference, candidate, recipe)
    return _segmentation(picture, reference, candidate, recipe)


def _pose(picture: Picture, reference: Array, candidate: Array, recipe: PoseRecipe) -> Picture:
    scale = max(1, -(-MIN_HEIGHT // picture.shape[0]))
    canvas = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), np.uint8)
    for index, name in enumerate(recipe.joints):
        if not np.isfinite(candidate[index, :2]).all():
            continue
        one, other = (_fixed(place[index, :2], scale) for place in (reference, candidate))
        cv2.line(canvas, one, other, (255, 255, 255), 2, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, one, 8 << _SHIFT, _REFERENCE, 2, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, other, 4 << _SHIFT, _CANDIDATE, -1, cv2.LINE_AA, _SHIFT)
        text = (one[0] // (1 << _SHIFT) + 10, one[1] // (1 << _SHIFT) + 4)
        _write(canvas, f"{name} {reference[index, 2]:.2f}/{candidate[index, 2]:.2f}", text, 0.4)
    _write(canvas, "ring: reference, dot: candidate, numbers: scores", (10, 20), 0.5)
    return canvas


def _segmentation(picture: Picture, reference: Array, candidate: Array, recipe: SegmentationRecipe) -> Picture:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(recipe.palette)] = np.asarray(recipe.palette, np.uint8)[:, ::-1]
    blends = [cv2.addWeighted(picture, 0.4, palette[classes], 0.6, 0) for classes in (reference, candidate)]
    panels = [np.asarray(blend, np.uint8) for blend in blends]
    dimmed = (picture // 3).astype(np.uint8)
    differ = reference != candidate
    dimmed[differ] = _DIFFERENT
    captions = ("reference", "candidate", f"differ: {differ.mean():.3%}")
    for panel, caption in zip((*panels, dimmed), captions, strict=True):
        _write(panel, caption, (10, 10 + recipe.height // 24), max(0.4, recipe.height / 800))
    return np.concatenate([*panels, dimmed], axis=0 if recipe.width > recipe.height else 1)


def _fixed(place: Array, scale: int) -> tuple[int, int]:
    # Pixel centres are at integers, so the middle of pixel 0 lies at (scale - 1) / 2 after enlarging.
    x, y = np.clip((place + 0.5) * scale - 0.5, -1e5, 1e5) * (1 << _SHIFT)
    return round(float(x)), round(float(y))


def _write(canvas: Picture, text: str, place: tuple[int, int], size: float) -> None:
    # A shifted shadow: since OpenCV 5 a thicker outline is also a wider text.
    for colour, shift in (((0, 0, 0), 1), ((255, 255, 255), 0)):
        corner = (place[0] + shift, place[1] + shift)
        cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
