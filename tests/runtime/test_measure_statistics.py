"""Statistics and warm-up of measurements, against independent computations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from scalenas_runtime.measure.statistics import (
    headline,
    median_interval,
    minimum_samples,
    paired_ratio,
    percentile,
    percentile_interval,
    summarise,
)
from scalenas_runtime.measure.warmup import warm_up


def _chance_of_at_most_one_above(count: int, percent: Fraction) -> Fraction:
    above = 1 - percent / 100
    return sum(
        (math.comb(count, number) * above**number * (1 - above) ** (count - number) for number in (0, 1)), Fraction(0)
    )


@pytest.mark.parametrize(
    ("percent", "count"), [(Fraction(90), 64), (Fraction(95), 130), (Fraction(99), 662), (Fraction(999, 10), 6636)]
)
def test_minimum_samples_is_the_exact_binomial_bound(percent: Fraction, count: int) -> None:
    assert minimum_samples(float(percent)) == count
    assert _chance_of_at_most_one_above(count, percent) <= Fraction(1, 100)
    assert _chance_of_at_most_one_above(count - 1, percent) > Fraction(1, 100)


@pytest.mark.parametrize("percent", [0, 100, -1])
def test_percentile_outside_its_range(percent: float) -> None:
    with pytest.raises(ValueError, match=f"a percentile lies between 0 and 100, got {percent}"):
        minimum_samples(percent)


@pytest.mark.parametrize("percent", [90.0, 95.0, 99.0, 99.9])
@pytest.mark.parametrize("extra", [0, 1, 37])
def test_percentile_is_the_inverse_of_the_empirical_distribution(percent: float, extra: int) -> None:
    count = minimum_samples(percent)
    samples = np.random.default_rng(extra).exponential(size=count + extra)
    assert percentile(samples, percent) == np.percentile(samples, percent, method="inverted_cdf")
    assert percentile(samples[: count - 1], percent) is None


def test_percentile_of_ten_thousand_is_not_one_rank_too_high() -> None:
    assert percentile(np.arange(1.0, 10001.0), 99.9) == 9990.0


def test_nothing_is_clipped() -> None:
    samples = np.array([1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 100.0])
    figures = summarise([samples], np.random.default_rng(0))
    assert (figures.median, figures.minimum, figures.maximum) == (2.0, 1.0, 100.0)
    assert figures.mean == pytest.approx(111 / 7)
    assert figures.mad == 1.0
    assert figures.cov == pytest.approx(np.std(samples) / np.mean(samples))
    assert (figures.outliers, figures.samples) == (1, 7)
    assert (figures.p90, figures.p95, figures.p99, figures.p99_9) == (None, None, None, None)


def test_every_process_has_the_same_say() -> None:
    processes = [np.full(1000, 9.0), np.full(10, 5.0), np.full(10, 6.0)]
    assert headline(processes) == 6.0


@pytest.mark.parametrize("processes", [[], [np.array([1.0]), np.array([])]])
def test_no_samples(processes: list[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> None:
    with pytest.raises(ValueError, match="at least one sample of every process"):
        summarise(processes, np.random.default_rng(0))


def test_interval_covers_the_true_median() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(40):
        low, high = median_interval([rng.exponential(size=300)], rng)
        hits += low <= math.log(2) <= high
    assert hits >= 32


def test_interval_sees_what_moves_in_blocks_and_between_processes() -> None:
    rng = np.random.default_rng(4)
    steady = 10 + rng.normal(scale=0.1, size=400)
    drifting = steady + np.repeat([0.0, 1.0, 0.0, 1.0], 100)
    narrow, wide = (np.diff(median_interval([samples], rng))[0] for samples in (steady, drifting))
    apart = np.diff(median_interval([steady, steady + 1, steady + 2], rng))[0]
    assert wide > 10 * narrow
    assert apart > 10 * narrow


def test_interval_is_the_same_for_the_same_seed() -> None:
    samples = [np.random.default_rng(1).exponential(size=100)]
    assert median_interval(samples, np.random.default_rng(5)) == median_interval(samples, np.random.default_rng(5))


def _steps(times: list[float], then: float) -> Iterator[float]:
    yield from times
    while True:
        yield then


@pytest.mark.parametrize(
    ("times", "then", "iterations", "steady"),
    [
        pytest.param([], 0.001, 200, True, id="fast: 0.2 s decide"),
        pytest.param([], 0.03, 10, True, id="medium: 10 iterations decide"),
        pytest.param([], 0.4, 10, True, id="slow: a window is one iteration"),
        # Of the earlier window, x quick and (100 - x) / 2 slow samples: its median is quick from x = 34 on.
        pytest.param([0.002] * 70, 0.001, 70 + 34 + 100, True, id="settles late"),
    ],
)
def test_warm_up_ends_when_it_is_steady(times: list[float], then: float, iterations: int, steady: bool) -> None:
    steps = _steps(times, then)
    result = warm_up(lambda: next(steps))
    assert result.steady is steady
    assert abs(result.iterations - iterations) <= 2  # sums of floats may fall an iteration short of a window


def test_warm_up_gives_up_at_the_cap() -> None:
    value = 0.001

    def slower() -> float:
        nonlocal value
        value *= 1.01
        return value

    result = warm_up(slower, cap=1.5)
    assert not result.steady
    assert 1.5 <= result.seconds < 1.6


def test_paired_ratio_follows_the_rounds_and_holds_the_true_ratio() -> None:
    mood = np.random.default_rng(0).lognormal(sigma=0.5, size=200)
    ratio, low, high = paired_ratio(2 * mood, mood, np.random.default_rng(1))
    assert (ratio, low, high) == pytest.approx((2, 2, 2))
    other = np.random.default_rng(2).lognormal(sigma=0.5, size=200)
    ratio, low, high = paired_ratio(2 * mood, other, np.random.default_rng(1))
    assert low < ratio < high
    assert low < 2 < high


def test_percentile_interval_covers_what_the_samples_came_from() -> None:
    rng = np.random.default_rng(3)
    truth = 10 * np.exp(0.1 * 1.6448536)
    hits = 0
    for _ in range(20):
        processes = [10 * np.exp(0.1 * rng.standard_normal(400)) for _ in range(5)]
        low, high = percentile_interval(processes, 95.0, rng)
        assert low < high
        hits += low <= truth <= high
    assert hits >= 16


def test_percentile_interval_of_equal_samples_is_a_point() -> None:
    assert percentile_interval([np.full(50, 4.0)], 90.0, np.random.default_rng(0)) == (4.0, 4.0)
    with pytest.raises(ValueError, match="a percentile lies between 0 and 100, got 100"):
        percentile_interval([np.ones(3)], 100, np.random.default_rng(0))
