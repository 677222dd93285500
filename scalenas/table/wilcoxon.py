"""Wilcoxon's signed-rank test for paired samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError

# Beyond this many differences the normal distribution is as good, and the exact one slow.
EXACT = 100


@dataclass(frozen=True, slots=True)
class SignedRank:
    """The outcome of a test of whether differences lie around 0.

    Attributes:
        pairs: Differences other than 0, which alone count.
        positive, negative: Sums of the ranks of the differences above and below 0; ties share their mean rank.
        p: Two-sided probability of sums as far apart as these, were the signs chosen by chance.
        method: How `p` was found.
    """

    pairs: int
    positive: float
    negative: float
    p: float
    method: Literal["exact", "normal"]


def signed_rank(differences: Sequence[float]) -> SignedRank:
    """Returns the outcome for paired differences; zeros are left out (Wilcoxon, Biometrics 1945).

    Up to 100 differences the distribution over all signs is exact, ties included; beyond it is normal with the
    variance corrected for ties.

    Raises:
        UserError: a difference is not finite.
    """
    given = np.asarray(differences, np.float64)
    if not np.isfinite(given).all():
        raise UserError(f"a signed-rank test needs finite differences, got {given[~np.isfinite(given)].tolist()[:3]}")
    moved = given[given != 0]
    ranks = mean_ranks(np.abs(moved))
    positive, negative = float(ranks[moved > 0].sum()), float(ranks[moved < 0].sum())
    if len(moved) == 0:
        return SignedRank(0, 0.0, 0.0, 1.0, "exact")
    if len(moved) <= EXACT:
        return SignedRank(len(moved), positive, negative, _exact(ranks, min(positive, negative)), "exact")
    deviation = math.sqrt(float((ranks**2).sum()) / 4)
    distance = abs(positive - negative) / 2 / deviation
    return SignedRank(len(moved), positive, negative, math.erfc(distance / math.sqrt(2)), "normal")


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns ranks (N,) from 1, the smallest value's first; equal values share the mean of their ranks."""
    order = np.sort(values)
    first, last = np.searchsorted(order, values, "left"), np.searchsorted(order, values, "right")
    ranks: NDArray[np.float64] = (first + 1 + last) / 2
    return ranks


def _exact(ranks: NDArray[np.float64], smaller: float) -> float:
    # Mean ranks are multiples of a half, so that twice a rank counts places in the table of sums.
    doubled = np.rint(2 * ranks).astype(int)
    shares = np.zeros(int(doubled.sum()) + 1)
    shares[0] = 1.0
    for rank in doubled.tolist():
        moved = np.zeros_like(shares)
        moved[rank:] = shares[: len(shares) - rank]
        shares = (shares + moved) / 2
    return min(1.0, 2 * float(shares[: round(2 * smaller) + 1].sum()))
