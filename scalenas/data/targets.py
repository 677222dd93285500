"""Heatmaps that a pose net learns: a Gaussian of height 1 at each joint."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.geometry import Double, Float
from scalenas_runtime.records import Record
from scalenas_runtime.tasks.pose import PoseRecipe

Method = Literal["rounded", "udp", "dark"]
# A Gaussian is drawn out to so many deviations.
_REACH = 3


class PoseTargets(Record, frozen=True, kw_only=True):
    """How joints become heatmaps.

    Attributes:
        method: `rounded` (HRNet: centred on the nearest pixel, cut off at three deviations), `udp` (centred on the
            joint itself, cut off likewise; Huang et al., CVPR 2020) or `dark` (on the joint itself, over the whole map;
            Zhang et al., CVPR 2020). The one that the recipe decodes where left out.
        sigma: Deviation in heatmap pixels; a 24th of the map's width where left out (2 for 64x48, 3 for 96x72).
    """

    method: Method | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma {self.sigma} must be positive")

    def method_for(self, recipe: PoseRecipe) -> Method:
        """Returns the method: `udp` for UDP crops, `dark` for DARK's decoder, else `rounded`."""
        if self.method is not None:
            return self.method
        if recipe.affine == "udp":
            return "udp"
        return "dark" if recipe.decode in ("dark", "dark-udp") else "rounded"

    def sigma_for(self, recipe: PoseRecipe) -> float:
        """Returns the deviation in heatmap pixels."""
        return recipe.heatmap_size[1] / 24 if self.sigma is None else self.sigma


def draw_heatmaps(
    points: Double, labelled: NDArray[np.bool_], size: tuple[int, int], *, sigma: float, method: Method
) -> tuple[Float, Float]:
    """Returns heatmaps float32 (K, h, w) and weights float32 (K,).

    A joint that is not labelled, or so far outside the map that none of its Gaussian would show, has an empty map and
    weight 0.

    Args:
        points: (K, 2) x, y in heatmap pixels, pixel centres at integers (`geometry.picture_to_heatmap`).
        labelled: (K,).
        size: Height and width of the maps.
        sigma: Deviation in heatmap pixels.
        method: See `PoseTargets`.
    """
    height, width = size
    nearest = np.floor(points + 0.5)
    reach = int(_REACH * sigma)
    shown = labelled & ((nearest + reach >= 0) & (nearest - reach < [width, height])).all(1)
    centres = nearest if method == "rounded" else points
    # The two axes of a Gaussian are independent, so a map is the product of a row and a column.
    x = _bell(np.arange(width) - centres[:, :1], sigma)
    y = _bell(np.arange(height) - centres[:, 1:], sigma)
    if method != "dark":
        x *= np.abs(np.arange(width) - nearest[:, :1]) <= reach
        y *= np.abs(np.arange(height) - nearest[:, 1:]) <= reach
    y *= shown[:, np.newaxis]
    maps = y[:, :, np.newaxis] * x[:, np.newaxis, :]
    return maps.astype(np.float32), shown.astype(np.float32)


def _bell(distance: Double, sigma: float) -> Double:
    bell: Double = np.exp(-(distance**2) / (2 * sigma**2))
    return bell
