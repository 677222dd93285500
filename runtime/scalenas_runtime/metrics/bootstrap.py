"""Confidence intervals by drawing pictures anew (Efron's percentile bootstrap)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Resampled(Protocol):
    """A metric that can tell its value had each picture been there `weights` times."""

    @property
    def pictures(self) -> int:
        """Number of pictures seen."""

    def value(self, weights: NDArray[np.int64] | None = None) -> float:
        """Returns the headline figure; `weights` (pictures,) says how often each picture counts, once if left out."""


def interval(
    metric: Resampled, *, rounds: int = 400, coverage: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Returns the bounds that hold the metric's value with the given coverage, or None for fewer than two pictures.

    Pictures are drawn, not people or pixels, because those of one picture depend on each other.

    Args:
        metric: What was measured.
        rounds: How many times all pictures are drawn anew.
        coverage: Share of the values between the bounds, 0..1.
        seed: Of the draws.
    """
    count = metric.pictures
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    values = [metric.value(np.bincount(rng.integers(0, count, count), minlength=count)) for _ in range(rounds)]
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return None
    low, high = np.quantile(finite, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)
