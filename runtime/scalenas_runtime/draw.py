"""Skeletons on pictures: limbs coloured by body side, sizes that follow the person's."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.pictures import Picture
from scalenas_runtime.results import Float, PoseResult
from scalenas_runtime.tasks.pose import PoseRecipe

Colour = tuple[int, int, int]

# BGR. Left and right stay apart for colour-blind eyes too (blue against orange).
LEFT: Colour = (0, 140, 255)
RIGHT: Colour = (255, 150, 30)
MIDDLE: Colour = (90, 210, 60)
_DARK: Colour = (20, 20, 20)
_WHITE: Colour = (255, 255, 255)
_SHIFT = 4  # OpenCV draws at 1/16 pixel
_FAR = 100_000.0


def draw_pose(
    picture: Picture, result: PoseResult, *, boxes: bool = True, ids: bool = True, show_scores: bool = False
) -> Picture:
    """Returns a copy of the picture with the persons' skeletons, uint8 (H, W, 3), BGR.

    Joints that do not count as found (`PoseResult.found`), and limbs that end at one, are not drawn. Limbs and
    joints of the left body side are orange, of the right side blue, between them green.

    Args:
        picture: uint8 (H, W, 3), BGR; not changed.
        result: Joints in pixels of that picture.
        boxes: Draw the boxes, in the id's colour where there are ids.
        ids: Write the ids of tracked persons.
        show_scores: Write the persons' scores.
    """
    canvas = picture.copy()
    sides = [side_colour(name) for name in result.recipe.joints]
    found = result.found & np.isfinite(result.keypoints).all(2)
    scores = result.person_scores
    for index in range(len(result)):
        thickness = line_thickness(result.boxes[index], picture.shape[:2])
        number = int(result.ids[index]) if result.ids is not None and ids else None
        if boxes:
            _draw_box(canvas, result.boxes[index], _id_colour(number), thickness)
        _draw_person(canvas, result.keypoints[index], found[index], sides, result.recipe, thickness)
        words = [f"#{number}"] if number is not None else []
        words += [f"{scores[index]:.2f}"] if show_scores else []
        if words:
            _draw_label(canvas, " ".join(words), result.boxes[index], _id_colour(number))
    return canvas


def side_colour(joint: str) -> Colour:
    """Returns the BGR colour of a joint by its name: left, right or neither."""
    words = joint.lower().replace("-", "_").split("_")
    if "left" in words or "l" in words:
        return LEFT
    if "right" in words or "r" in words:
        return RIGHT
    return MIDDLE


def line_thickness(box: Float, size: tuple[int, ...]) -> int:
    """Returns the limb thickness in pixels for a person in `box`, cut to a picture of `size` (height, width)."""
    x1, y1, x2, y2 = np.clip(box, 0, [size[1], size[0], size[1], size[0]]).tolist()
    return int(np.clip(round(0.011 * max(x2 - x1, y2 - y1)), 1, 12))


def _draw_person(
    canvas: Picture,
    points: Float,
    found: NDArray[np.bool_],
    sides: list[Colour],
    recipe: PoseRecipe,
    thickness: int,
) -> None:
    fixed = np.round(np.clip(np.nan_to_num(points), -_FAR, _FAR) * (1 << _SHIFT)).astype(int).tolist()
    limbs = [(a, b) for a, b in recipe.edges if found[a] and found[b]]
    # A dark line below keeps limbs visible on any background.
    for extra, below in ((max(2, thickness), True), (0, False)):
        for a, b in limbs:
            colour = _DARK if below else _limb_colour(sides[a], sides[b])
            cv2.line(canvas, fixed[a], fixed[b], colour, thickness + extra, cv2.LINE_AA, _SHIFT)
    radius = (thickness + 1) << _SHIFT
    for joint in np.flatnonzero(found).tolist():
        cv2.circle(canvas, fixed[joint], radius + (1 << _SHIFT), _DARK, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, fixed[joint], radius, sides[joint], -1, cv2.LINE_AA, _SHIFT)


def _limb_colour(a: Colour, b: Colour) -> Colour:
    if a == b:
        return a
    # A limb from the middle (neck, nose) belongs to its side; one across the body to neither.
    if MIDDLE in (a, b):
        return b if a == MIDDLE else a
    return MIDDLE


def _draw_box(canvas: Picture, box: Float, colour: Colour, thickness: int) -> None:
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = np.round(np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1])).astype(int).tolist()
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, max(1, thickness // 2), cv2.LINE_AA)


def _draw_label(canvas: Picture, text: str, box: Float, colour: Colour) -> None:
    height, width = canvas.shape[:2]
    scale = float(np.clip(min(height, width) / 900, 0.4, 2))
    weight = max(1, round(1.6 * scale))
    (text_width, text_height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, weight)
    x = int(np.clip(box[0], 0, max(0, width - text_width - 4)))
    y = int(np.clip(box[1], text_height + baseline + 2, max(text_height + baseline + 2, height)))
    cv2.rectangle(canvas, (x, y - text_height - baseline - 2), (x + text_width + 4, y), colour, -1)
    ink = _WHITE if sum(colour) < 380 else _DARK
    cv2.putText(canvas, text, (x + 2, y - baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, weight, cv2.LINE_AA)


def _id_colour(number: int | None) -> Colour:
    if number is None:
        return (200, 200, 200)
    # Steps of the golden angle keep neighbouring ids' hues apart.
    hue = np.array([[[int(number * 137.508 / 2) % 180, 200, 235]]], np.uint8)
    blue, green, red = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red
