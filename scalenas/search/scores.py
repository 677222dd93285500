"""How good predictions were: relative error and rank agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Score:
    """Predictions against what was measured afterwards.

    Attributes:
        count: How many there are.
        mape: Mean of |predicted - measured| / |measured|; 0.05 is five percent.
        tau: Kendall's tau-b, NaN for fewer than two or for all equal.
    """

    count: int
    mape: float
    tau: float


def score(pairs: Sequence[tuple[float, float]]) -> Score:
    """Returns the score of (predicted, measured) pairs.

    Raises:
        ValueError: there are none, or a measured value is 0.
    """
    if not pairs:
        raise ValueError("a score needs at least one pair, got none")
    predicted, measured = np.array(pairs, dtype=float).T
    if (measured == 0).any():
        raise ValueError("a relative error needs measured values other than 0")
    mape = float(np.mean(np.abs(predicted - measured) / np.abs(measured)))
    return Score(len(pairs), mape, kendall_tau(predicted.tolist(), measured.tolist()))


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns Kendall's tau-b of two rankings, NaN where one of them ranks nothing."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    upper = np.triu_indices(len(a), 1)
    one = np.sign(a[:, None] - a)[upper]
    other = np.sign(b[:, None] - b)[upper]
    scale = np.sqrt(float((one != 0).sum()) * float((other != 0).sum()))
    return float((one * other).sum() / scale) if scale else float("nan")
