"""What a list of latencies says, and what it does not prove. Nothing is ever clipped or thrown away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalenas_runtime.records import Record

Samples = NDArray[np.float64]
PERCENTILES = (90.0, 95.0, 99.0, 99.9)
CONFIDENCE = 0.99
_RESAMPLES = 1000
_PAIRED_RESAMPLES = 2000
_BLOCKS = 20


class Statistics(Record, frozen=True):
    """Latency of one inference in milliseconds, over all processes of one measurement.

    Attributes:
        median: Median of the processes' medians: the headline.
        interval: 95 % bootstrap interval of that median.
        mean: Mean of all samples.
        minimum: Smallest sample.
        maximum: Largest sample.
        mad: Median absolute deviation from the median of all samples.
        cov: Standard deviation over the mean.
        p90: 90th percentile, or None where the sample does not prove it; the same for the others.
        outliers: Samples above three times the median. They are counted, not removed.
        samples: How many samples there are.
    """

    median: float
    interval: tuple[float, float]
    mean: float
    minimum: float
    maximum: float
    mad: float
    cov: float
    p90: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None
    outliers: int
    samples: int


def minimum_samples(percent: float) -> int:
    """Returns the smallest sample whose second largest value bounds the `percent` percentile at 99 % confidence.

    Of n samples, at most one lies above the true percentile with a probability of q^n + n (1 - q) q^(n - 1),
    q = percent / 100. From the returned n on that is at most 1 %: the rule of LoadGen's early stopping, with one
    value above the bound allowed.
    """
    if not 0 < percent < 100:
        raise ValueError(f"a percentile lies between 0 and 100, got {percent}")
    share = percent / 100
    count = 2
    while share**count + count * (1 - share) * share ** (count - 1) > 1 - CONFIDENCE:
        count += 1
    return count


def percentile(samples: Samples, percent: float) -> float | None:
    """Returns the smallest sample with at least `percent` of all at or below it; None where too few prove it."""
    if samples.size < minimum_samples(percent):
        return None
    # 99.9 / 100 * 10000 is 9990.000000000002: without the margin the rank would be one too high.
    rank = math.ceil(samples.size * percent / 100 - 1e-9)
    return float(np.sort(samples)[rank - 1])


def summarise(processes: Sequence[Samples], rng: np.random.Generator) -> Statistics:
    """Returns the statistics of the samples (n,) in milliseconds that each process took, in the order it took them."""
    if not processes or any(samples.size == 0 for samples in processes):
        raise ValueError("statistics need at least one sample of every process")
    everything = np.concatenate(processes)
    median = headline(processes)
    middle = float(np.median(everything))
    p90, p95, p99, p99_9 = (percentile(everything, percent) for percent in PERCENTILES)
    return Statistics(
        median=median,
        interval=median_interval(processes, rng),
        mean=float(everything.mean()),
        minimum=float(everything.min()),
        maximum=float(everything.max()),
        mad=float(np.median(np.abs(everything - middle))),
        cov=float(everything.std() / everything.mean()),
        p90=p90,
        p95=p95,
        p99=p99,
        p99_9=p99_9,
        outliers=int((everything > 3 * middle).sum()),
        samples=int(everything.size),
    )


def headline(processes: Sequence[Samples]) -> float:
    """Returns the median of the processes' medians, so that a process with more samples has no more say."""
    return float(np.median([np.median(samples) for samples in processes]))


def median_interval(processes: Sequence[Samples], rng: np.random.Generator) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of `headline`.

    Processes are drawn first, then blocks of consecutive samples in each: neighbours share the machine's mood, and
    drawing single samples would give an interval that is far too narrow.
    """
    medians = np.stack([_block_medians(samples, rng) for samples in processes])
    chosen = rng.integers(0, len(processes), (len(processes), _RESAMPLES))
    columns = np.stack([rng.permutation(_RESAMPLES) for _ in processes])
    low, high = np.percentile(np.median(medians[chosen, columns], axis=0), [2.5, 97.5])
    return float(low), float(high)


def percentile_interval(processes: Sequence[Samples], percent: float, rng: np.random.Generator) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of a percentile of all samples: processes are drawn, then blocks in each.

    Args:
        processes: Samples (n,) of each process, in the order it took them.
        percent: Which percentile, above 0 and below 100.
        rng: Where the drawing comes from.
    """
    if not 0 < percent < 100:
        raise ValueError(f"a percentile lies between 0 and 100, got {percent}")
    values = []
    for _ in range(_RESAMPLES):
        drawn = [_blocks(processes[index], rng) for index in rng.integers(0, len(processes), len(processes))]
        values.append(np.percentile(np.concatenate(drawn), percent, method="inverted_cdf"))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def paired_ratio(upper: ArrayLike, lower: ArrayLike, rng: np.random.Generator) -> tuple[float, float, float]:
    """Returns the ratio of two medians and its 95 % bootstrap interval (ratio, low, high), drawing whole rounds.

    Args:
        upper: One time a round, any unit.
        lower: The other contender's, of the same rounds in the same order.
        rng: Where the drawing comes from.
    """
    above, below = np.asarray(upper), np.asarray(lower)
    rounds = rng.integers(0, len(above), (_PAIRED_RESAMPLES, len(above)))
    ratios = np.median(above[rounds], axis=1) / np.median(below[rounds], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(above) / np.median(below)), float(low), float(high)


def _blocks(samples: Samples, rng: np.random.Generator) -> Samples:
    length = max(1, samples.size // _BLOCKS)
    starts = rng.integers(0, samples.size - length + 1, (math.ceil(samples.size / length), 1))
    drawn: Samples = samples[(starts + np.arange(length)).ravel()]
    return drawn


def _block_medians(samples: Samples, rng: np.random.Generator) -> Samples:
    length = max(1, samples.size // _BLOCKS)
    count = math.ceil(samples.size / length)
    starts = rng.integers(0, samples.size - length + 1, (_RESAMPLES, count, 1))
    offsets = np.arange(length)
    # Row by row: all resamples at once would take a thousand times the memory of the sample.
    return np.array([np.median(samples[rows + offsets]) for rows in starts])
