"""Counts of single pictures, from which a headline figure and the difference of two follow, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Counts:
    """What a metric counted in each picture, as records keep it; a `Resampled` metric again.

    Attributes:
        table: (pictures, 2): joints found and joints labelled, for PCK. (pictures, 3, classes): pixels that are right,
            labelled and predicted, for mIoU.

    Raises:
        ValueError: another shape.
    """

    table: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = self.table.shape
        if not (len(shape) == 2 and shape[1] == 2) and not (len(shape) == 3 and shape[1] == 3):
            raise ValueError(f"counts by picture are (pictures, 2) or (pictures, 3, classes), got {shape}")

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return len(self.table)

    def value(self, weights: NDArray[np.int64] | None = None) -> float:
        """Returns PCK or mIoU, 0..1 (NaN without labels); `weights` counts each picture that often."""
        sums = self.table.sum(axis=0) if weights is None else np.tensordot(weights, self.table, 1)
        if self.table.ndim == 2:
            return float(sums[0] / sums[1]) if sums[1] else float("nan")
        right, labelled, predicted = sums
        union = labelled + predicted - right
        return float(np.mean(right[union > 0] / union[union > 0])) if union.any() else float("nan")


def difference(
    first: Counts, second: Counts, *, rounds: int = 1000, coverage: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Returns the first value minus the second and the bounds that hold it (difference, low, high).

    The same pictures are drawn anew for both, so what makes a picture easy or hard for both drops out.

    Args:
        first: Counts of one net.
        second: Counts of the other on the same pictures in the same order.
        rounds: How many times all pictures are drawn anew.
        coverage: Share of the differences between the bounds, 0..1.
        seed: Of the draws.

    Raises:
        ValueError: different numbers of pictures, or fewer than two.
    """
    count = first.pictures
    if count != second.pictures or count < 2:
        raise ValueError(f"a paired difference needs the same two or more pictures, got {count} and {second.pictures}")
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(rounds))
    gaps = np.array([first.value(weights) - second.value(weights) for weights in drawn])
    low, high = np.quantile(gaps[np.isfinite(gaps)], [(1 - coverage) / 2, (1 + coverage) / 2])
    return first.value() - second.value(), float(low), float(high)
