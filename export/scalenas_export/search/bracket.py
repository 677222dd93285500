"""The arithmetic of A-B-A: a candidate's samples between slices of a reference engine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalenas_runtime.measure.statistics import Samples, median_interval, percentile_interval


@dataclass(frozen=True, slots=True)
class Bracket:
    """A candidate against the reference around it.

    Attributes:
        figure: The asked figure of the candidate's samples as they were taken, in milliseconds.
        ratio: The same figure of the samples, each over the reference's median around it.
        interval: 95 % bootstrap interval of `ratio`.
        before: The reference's median in milliseconds over the first half of its slices.
        after: The same over the second half.
    """

    figure: float
    ratio: float
    interval: tuple[float, float]
    before: float
    after: float

    @property
    def change(self) -> float:
        """How far the reference moved meanwhile, relative to the middle of `before` and `after`."""
        return abs(self.after - self.before) / ((self.after + self.before) / 2)


def bracket(
    slices: Sequence[Samples], references: Sequence[Samples], percent: float | None, rng: np.random.Generator
) -> Bracket:
    """Returns the bracket of R slices of a candidate with R + 1 slices of the reference around and between them.

    Each sample is divided by the median of the two reference slices next to it, so that a machine that slows down
    midway moves neither the ratio nor its interval.

    Args:
        slices: Milliseconds of each slice (n,), in the order they were taken.
        references: Milliseconds of the reference's slices (m,), in the order they were taken.
        percent: The percentile that is asked for; None asks for the median.
        rng: Where the drawing comes from.

    Raises:
        ValueError: no slice, or not one more of the reference than of the candidate.
    """
    if not slices or len(references) != len(slices) + 1:
        raise ValueError(
            f"{len(slices)} slices need {len(slices) + 1} of the reference (at least 1 and 2), got {len(references)}"
        )
    around = [np.median(np.concatenate(pair)) for pair in itertools.pairwise(references)]
    scaled = np.concatenate([taken / local for taken, local in zip(slices, around, strict=True)])
    half = len(references) // 2
    interval = median_interval([scaled], rng) if percent is None else percentile_interval([scaled], percent, rng)
    return Bracket(
        figure=_figure(np.concatenate(slices), percent),
        ratio=_figure(scaled, percent),
        interval=interval,
        before=float(np.median(np.concatenate(references[:half]))),
        after=float(np.median(np.concatenate(references[-half:]))),
    )


def _figure(samples: Samples, percent: float | None) -> float:
    if percent is None:
        return float(np.median(samples))
    return float(np.percentile(samples, percent, method="inverted_cdf"))
