"""Class maps on pictures: the recipe's colours laid over the picture, and a legend of the classes that occur."""

from __future__ import annotations

import cv2
import numpy as np

from scalenas_runtime.errors import UserError
from scalenas_runtime.pictures import Picture
from scalenas_runtime.results import SegmentationResult

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PANEL = (32, 32, 32)
_INK = (240, 240, 240)


def draw_segmentation(
    picture: Picture, result: SegmentationResult, *, alpha: float = 0.5, legend: bool = True
) -> Picture:
    """Returns a copy of the picture with each class's colour laid over it, uint8 (H, W, 3), BGR.

    The legend stands at the top left, largest class first, with as many lines as fit; the size stays the picture's.

    Args:
        picture: uint8 (H, W, 3), BGR; not changed.
        result: The class map of that picture.
        alpha: Weight of the colours: 0 shows the picture, 1 the colours alone.
        legend: Write names and shares of the classes that occur.

    Raises:
        UserError: the class map has another size than the picture, or alpha is outside 0..1.
    """
    if picture.shape[:2] != result.class_map.shape:
        raise UserError(f"the class map is {result.class_map.shape}, the picture {picture.shape[:2]} (height, width)")
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha {alpha} is outside 0..1")
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(result.recipe.palette)] = np.array(result.recipe.palette, np.uint8)[:, ::-1]
    canvas = np.empty_like(picture)
    cv2.addWeighted(colours[result.class_map], alpha, picture, 1 - alpha, 0, dst=canvas)
    if legend:
        _draw_legend(canvas, result, colours)
    return canvas


def _draw_legend(canvas: Picture, result: SegmentationResult, colours: Picture) -> None:
    height, width = canvas.shape[:2]
    shares = [(share, name, index) for index, (name, share) in enumerate(result.shares().items()) if share > 0]
    shares.sort(key=lambda entry: (-entry[0], entry[2]))
    scale = float(np.clip(min(height, width) / 1000, 0.35, 1.2))
    weight = max(1, round(1.4 * scale))
    lines = [(f"{name} {_percent(share)}", tuple(colours[index].tolist())) for share, name, index in shares]
    widths = [cv2.getTextSize(text, _FONT, scale, weight)[0][0] for text, _ in lines]
    (_, text_height), baseline = cv2.getTextSize("Xg", _FONT, scale, weight)
    step = text_height + baseline + 4
    shown = min(len(lines), (height - 4) // step)
    panel = (min(width, max(widths[:shown], default=0) + 2 * step), shown * step + 4)
    # A legend on a picture smaller than its text would only hide the picture.
    if shown < 1 or panel[0] >= width:
        return
    area = canvas[: panel[1], : panel[0]]
    area[...] = cv2.addWeighted(area, 0.25, np.full_like(area, _PANEL), 0.75, 0)
    for row, (text, colour) in enumerate(lines[:shown]):
        top = 4 + row * step
        cv2.rectangle(canvas, (4, top), (4 + step - 6, top + step - 6), colour, -1)
        cv2.putText(canvas, text, (step + 4, top + text_height), _FONT, scale, _INK, weight, cv2.LINE_AA)


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{share:.0%}"
