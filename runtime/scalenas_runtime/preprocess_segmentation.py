"""From a picture of any size to the pictures that a segmentation net takes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from scalenas_runtime.decode.segmentation import covered, fitted_size, window_offsets
from scalenas_runtime.pictures import Picture
from scalenas_runtime.tasks.segmentation import SegmentationRecipe

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a picture meets the net; all sizes are (height, width) in pixels of the net's scale.

    Attributes:
        offsets: Where each input begins (top, left): one input for `stretch` and `pad`, windows for `sliding`.
        content: What shows the picture, from the top left; the rest is padding.
        total: What the inputs cover together.
    """

    offsets: tuple[Size, ...]
    content: Size
    total: Size

    def logits_size(self, recipe: SegmentationRecipe) -> Size:
        """Returns the size of the logits of all inputs together, in logit pixels."""
        if len(self.offsets) == 1:
            return recipe.logits_size
        return self.total[0] // recipe.stride, self.total[1] // recipe.stride

    def extent(self, recipe: SegmentationRecipe) -> tuple[Fraction, Fraction]:
        """Returns the part of the logits that shows the picture, for `class_map`."""
        height, width = (
            covered(content, total, logits, align_corners=recipe.align_corners)
            for content, total, logits in zip(self.content, self.total, self.logits_size(recipe), strict=True)
        )
        return height, width


def plan_inputs(size: Size, recipe: SegmentationRecipe) -> Plan:
    """Returns how a picture of a size meets the net, by the recipe's `fit`."""
    limits = (recipe.height, recipe.width)
    if recipe.fit == "stretch":
        return Plan(((0, 0),), limits, limits)
    if recipe.fit == "pad":
        return Plan(((0, 0),), fitted_size(size, limits), limits)
    tops, lefts = (
        window_offsets(length, window, overlap=recipe.overlap, stride=recipe.stride)
        for length, window in zip(size, limits, strict=True)
    )
    total = (tops[-1] + recipe.height, lefts[-1] + recipe.width)
    return Plan(tuple((top, left) for top in tops for left in lefts), size, total)


def write_input(picture: Picture, plan: Plan, index: int, recipe: SegmentationRecipe, out: Picture) -> None:
    """Writes one input of a plan into `out`, uint8 (H, W, 3), BGR.

    `stretch` and `pad` scale bilinearly, `sliding` cuts. Beyond the picture its last pixels are repeated up to the
    next multiple of the stride, so that no logit mixes the picture with the padding; the rest is `recipe.border`.

    Args:
        picture: uint8 (H, W, 3), BGR, of the size that the plan was made for.
        plan: From `plan_inputs`.
        index: Which of `plan.offsets`.
        recipe: The recipe that the plan was made with.
        out: The net's input, rows and columns adjacent in memory.
    """
    top, left = plan.offsets[index]
    height, width = min(plan.content[0] - top, recipe.height), min(plan.content[1] - left, recipe.width)
    if recipe.fit == "sliding":
        out[:height, :width] = picture[top : top + height, left : left + width]
    else:
        cv2.resize(picture, (width, height), dst=out[:height, :width], interpolation=cv2.INTER_LINEAR)
    bottom, right = (-(-length // recipe.stride) * recipe.stride for length in (height, width))
    out[height:bottom, :width] = out[height - 1, :width]
    out[:bottom, width:right] = out[:bottom, width - 1 : width]
    out[bottom:] = recipe.border
    out[:bottom, right:] = recipe.border


def segmentation_inputs(picture: Picture, recipe: SegmentationRecipe) -> Picture:
    """Returns all inputs of a picture, uint8 (N, H, W, 3), BGR: one, or N windows for `sliding`.

    Args:
        picture: uint8 (H, W, 3), BGR, any size.
        recipe: Input size, fit, overlap, border.
    """
    plan = plan_inputs((picture.shape[0], picture.shape[1]), recipe)
    inputs = np.empty((len(plan.offsets), recipe.height, recipe.width, 3), np.uint8)
    for index, out in enumerate(inputs):
        write_input(picture, plan, index, recipe, out)
    return inputs
