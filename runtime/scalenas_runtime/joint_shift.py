"""How far joints move between two runs of one pose net, in heatmap pixels, and which joints that says nothing about.

Where a heatmap has two peaks of nearly the same height, a difference that any tolerance allows may swap them, and then
moves the joint by any distance: such a joint is ambiguous.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.session import Array
from scalenas_runtime.tasks import PoseRecipe

PEAK = 0.2
_APART = 1


class Shifts(NamedTuple):
    """What was found.

    Attributes:
        by_picture: Float64 (joints that count,) for each picture, heatmap pixels.
        ambiguous: How many joints were left out; None where heatmaps or a bound were missing.
    """

    by_picture: list[NDArray[np.float64]]
    ambiguous: int | None

    @property
    def all(self) -> NDArray[np.float64]:
        """Those of all pictures."""
        return np.concatenate(self.by_picture)


class JointShifts:
    """Gathers the joint shift picture by picture, over joints whose reference peak is at least 0.2.

    Args:
        recipe: Decode method and sizes.
        stage: `undecoded` for heatmaps (K, h, w), `decoded` for keypoints (K, 3).
    """

    def __init__(self, recipe: PoseRecipe, stage: Literal["undecoded", "decoded"]) -> None:
        self._recipe = recipe
        self._stage = stage
        self._shifts: list[NDArray[np.float64]] = []
        self._leads: list[NDArray[np.float64]] = []
        self._heatmaps_known = True

    def update(self, reference: Array, candidate: Array, heatmaps: Array | None = None) -> None:
        """Takes in one picture, all finite; `heatmaps` (K, h, w) are what decoded keypoints of the reference are of."""
        from scalenas_runtime.decode.pose import decode_heatmaps
        from scalenas_runtime.geometry import heatmap_scale

        if self._stage == "decoded":
            peaks = reference[:, 2]
            steps = (candidate[:, :2] - reference[:, :2]) / heatmap_scale(self._recipe)
        else:
            heatmaps = reference
            peaks = reference.max(axis=(1, 2))
            places = [decode_heatmaps(array[None], self._recipe)[0][0] for array in (reference, candidate)]
            steps = places[1] - places[0]
        counted = peaks >= PEAK
        self._shifts.append(np.hypot(steps[:, 0], steps[:, 1])[counted].astype(np.float64))
        if heatmaps is None or not np.isfinite(heatmaps).all():
            self._heatmaps_known = False
        else:
            self._leads.append(peak_leads(heatmaps)[counted].astype(np.float64))

    def skip(self) -> None:
        """Takes in a picture that no joint can be compared of."""
        self._shifts.append(np.empty(0))
        self._leads.append(np.empty(0))

    def result(self, least_lead: float | None) -> Shifts:
        """Returns the shifts of joints whose peak leads by `least_lead` or more; all where that is None."""
        if least_lead is None or not self._heatmaps_known:
            return Shifts(self._shifts, None)
        clear = [leads >= least_lead for leads in self._leads]
        shifts = [shifts[chosen] for shifts, chosen in zip(self._shifts, clear, strict=True)]
        return Shifts(shifts, sum(int(np.count_nonzero(~chosen)) for chosen in clear))


def peak_leads(heatmaps: Array) -> Array:
    """Returns the height of each map's highest pixel over its second peak, (K,) in the maps' dtype, infinite without.

    A peak is a pixel that none of its eight neighbours exceeds; the second is the highest of those that are neither the
    highest pixel nor next to it.

    Args:
        heatmaps: (K, h, w), all finite.
    """
    count, height, width = heatmaps.shape
    framed = np.full((count, height + 2, width + 2), -np.inf, heatmaps.dtype)
    framed[:, 1:-1, 1:-1] = heatmaps
    rows = np.maximum(np.maximum(framed[:, :-2], framed[:, 1:-1]), framed[:, 2:])
    around = np.maximum(np.maximum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])
    flat = heatmaps.reshape(count, -1)
    top = flat.argmax(axis=1)
    y, x = (part[:, np.newaxis, np.newaxis] for part in np.divmod(top, width))
    near = (np.abs(np.arange(height)[:, np.newaxis] - y) <= _APART) & (np.abs(np.arange(width) - x) <= _APART)
    others = np.where((heatmaps >= around) & ~near, heatmaps, -np.inf)
    leads: Array = flat[np.arange(count), top] - others.max(axis=(1, 2))
    return leads
