"""Whether decoded keypoints agree with the heatmaps they stand for: scores, and what lies at their places.

Unlike the distance between two places, both figures mean something for joints that nobody is sure of, too.
"""

from __future__ import annotations

import numpy as np

from scalenas_runtime.session import Array
from scalenas_runtime.tasks import PoseRecipe

SMALLEST_RANGE = float(np.finfo(np.float32).tiny)


class KeypointParity:
    """How far decoded scores and places are from the reference's heatmaps, over the range of these."""

    def __init__(self, recipe: PoseRecipe) -> None:
        self._recipe = recipe
        self._lowest, self._highest = 0.0, 0.0
        self._seen = 0
        self._difference = 0.0
        self._below: float | None = None
        self._range: tuple[float, float] | None = None

    def update(self, reference: Array, candidate: Array, heatmaps: Array | None) -> None:
        """Takes in keypoints (K, 3) of one picture, all finite, and the reference's heatmaps (K, h, w) if known."""
        self._seen += 1
        self._difference = max(self._difference, float(np.abs(candidate[:, 2] - reference[:, 2]).max()))
        self._lowest = min(self._lowest, float(reference[:, 2].min()))
        self._highest = max(self._highest, float(reference[:, 2].max()))
        if heatmaps is None or not np.isfinite(heatmaps).all():
            return
        low, high = self._range or (np.inf, -np.inf)
        self._range = min(low, float(heatmaps.min())), max(high, float(heatmaps.max()))
        # DARK may move a joint beyond its pixel; both others stay within half of one.
        if self._recipe.decode in ("argmax", "quarter"):
            self._below = max(self._below or 0.0, self._shortfall(reference, candidate, heatmaps))

    @property
    def error(self) -> float | None:
        """Largest difference of a score, or None before the first picture."""
        return self._difference / self.span if self._seen else None

    @property
    def shortfall(self) -> float | None:
        """How far the heatmaps lie below their peaks at the candidate's pixels, or None where that is not known."""
        return None if self._below is None else self._below / self.span

    @property
    def span(self) -> float:
        """Range of the reference's heatmaps, or of its scores and 0 where no heatmaps were given."""
        low, high = self._range or (self._lowest, self._highest)
        return max(high - low, SMALLEST_RANGE)

    def _shortfall(self, reference: Array, candidate: Array, heatmaps: Array) -> float:
        from scalenas_runtime.geometry import heatmap_scale

        size = np.array(heatmaps.shape[:0:-1])
        places = np.rint(candidate[:, :2] / heatmap_scale(self._recipe))
        outside = ((places < 0) | (places >= size)).any(axis=1)
        x, y = np.clip(places, 0, size - 1).astype(int).T
        lost = reference[:, 2] - heatmaps[np.arange(len(heatmaps)), y, x]
        lost = np.where(outside, heatmaps.max(axis=(1, 2)) - heatmaps.min(), lost)
        # A map without a value above 0 has no peak: its place is (0, 0) by definition.
        found = (reference[:, 2] > 0) & (candidate[:, 2] > 0)
        return float(np.where(found, lost, 0.0).max())
