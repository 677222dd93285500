"""The arithmetic of A-B-A: a candidate's slices between slices of a reference engine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalenas_runtime.measure.statistics import Samples

# Fewer slices say too little of how they differ.
LEAST_SLICES = 4
_RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Bracket:
    """A candidate against the reference around it.

    Attributes:
        figure: The asked figure of the candidate's samples as they were taken, in milliseconds.
        ratio: The same figure of the samples, each over the reference's median around it.
        error: Standard error of `ratio`, by bootstrap, drawing whole slices.
        interval: 95 % interval of `ratio`: Student's, as slices are few.
        before: The reference's median in milliseconds over the first half of its slices.
        after: The same over the second half.
    """

    figure: float
    ratio: float
    error: float
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
    midway moves neither the ratio nor its interval. The shorter the slices, the fewer have a change of the machine's
    pace in their midst.

    Args:
        slices: Milliseconds of each slice (n,), in the order they were taken.
        references: Milliseconds of the reference's slices (m,), in the order they were taken.
        percent: The percentile that is asked for; None asks for the median.
        rng: Where the drawing comes from.

    Raises:
        ValueError: fewer than `LEAST_SLICES`, or not one more of the reference than of the candidate.
    """
    if len(slices) < LEAST_SLICES or len(references) != len(slices) + 1:
        raise ValueError(
            f"{len(slices)} slices need {len(slices) + 1} of the reference (at least {LEAST_SLICES} and "
            f"{LEAST_SLICES + 1}), got {len(references)}"
        )
    around = [np.median(np.concatenate(pair)) for pair in itertools.pairwise(references)]
    scaled = [taken / local for taken, local in zip(slices, around, strict=True)]
    half = len(references) // 2
    ratio = _figure(np.concatenate(scaled), percent)
    error = _error(scaled, percent, rng)
    reach = _student(len(slices) - 1) * error
    return Bracket(
        figure=_figure(np.concatenate(slices), percent),
        ratio=ratio,
        error=error,
        interval=(ratio - reach, ratio + reach),
        before=float(np.median(np.concatenate(references[:half]))),
        after=float(np.median(np.concatenate(references[-half:]))),
    )


def _error(scaled: Sequence[Samples], percent: float | None, rng: np.random.Generator) -> float:
    # Samples of one slice share the machine's mood: drawing single samples would give far too small an error.
    count = len(scaled)
    drawn = rng.integers(0, count, (_RESAMPLES, count))
    figures = [_figure(np.concatenate([scaled[index] for index in row]), percent) for row in drawn]
    return float(np.std(figures) * np.sqrt(count / (count - 1)))


def _student(freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's distribution, by the first terms of its series (4 % low at 3)."""
    normal = 1.959964
    first = (normal**3 + normal) / 4
    second = (5 * normal**5 + 16 * normal**3 + 3 * normal) / 96
    return normal + first / freedom + second / freedom**2


def _figure(samples: Samples, percent: float | None) -> float:
    if percent is None:
        return float(np.median(samples))
    return float(np.percentile(samples, percent, method="inverted_cdf"))
