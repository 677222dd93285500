"""Agreement of two rankings."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Returns Kendall's tau-b of two lists of figures about the same things, -1..1; NaN where one list is constant.

    Pairs that both lists order alike count for it, pairs that they order differently against it; ties in either are
    taken out of the scale (Kendall, Biometrika 1945).

    Raises:
        ValueError: lists of different lengths, or fewer than two figures.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"tau needs two lists of the same two or more figures, got shapes {a.shape} and {b.shape}")
    rows, columns = np.triu_indices(len(a), 1)
    ups, downs = np.sign(a[rows] - a[columns]), np.sign(b[rows] - b[columns])
    untied = np.count_nonzero(ups) * np.count_nonzero(downs)
    return float((ups * downs).sum() / np.sqrt(untied)) if untied else float("nan")


def tau_interval(
    first: ArrayLike,
    second: ArrayLike,
    rng: np.random.Generator,
    *,
    rounds: int = 2000,
    coverage: float = 0.95,
) -> tuple[float, float] | None:  # fmt: skip
    """Returns the bootstrap bounds of `kendall_tau`, or None for fewer than four figures, which prove nothing.

    A figure that is drawn twice is tied with itself, so few figures give wide bounds, as they should.

    Args:
        first: One list of figures.
        second: The other, about the same things in the same order.
        rng: Where the drawing comes from.
        rounds: How many times the things are drawn anew.
        coverage: Share of the values between the bounds, 0..1.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(a) < 4:
        return None
    drawn = rng.integers(0, len(a), (rounds, len(a)))
    values = np.array([kendall_tau(a[places], b[places]) for places in drawn])
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)
