"""Counts of single pictures against the metrics they come from, paired differences, and Kendall's tau."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from scalenas_runtime.metrics import Confusion, Counts, Pck, difference, interval, kendall_tau, tau_interval

JOINTS = ("right_hip", "left_shoulder", "nose")


def _pck(seed: int, noise: float) -> Pck:
    rng = np.random.default_rng(seed)
    pck = Pck(JOINTS)
    for _ in range(40):
        truth = np.concatenate([rng.uniform(0, 100, (2, 3, 2)), rng.integers(0, 3, (2, 3, 1))], axis=2)
        pck.update(truth[:, :, :2] + rng.normal(0, noise, (2, 3, 2)), truth)
    return pck


def _confusion(seed: int, wrong: float) -> Confusion:
    rng = np.random.default_rng(seed)
    confusion = Confusion(("a", "b", "c", "never"))
    for _ in range(30):
        truth = rng.integers(0, 3, (8, 8))
        guess = np.where(rng.random((8, 8)) < wrong, rng.integers(0, 3, (8, 8)), truth)
        confusion.update(guess, np.where(rng.random((8, 8)) < 0.1, 255, truth))
    return confusion


@pytest.mark.parametrize("metric", [_pck(0, 10.0), _confusion(0, 0.3)], ids=["pck", "miou"])
def test_counts_give_the_metric_and_its_interval(metric: Pck | Confusion) -> None:
    counts = Counts(metric.by_picture())
    assert counts.pictures == metric.pictures
    assert counts.value() == pytest.approx(metric.value(), abs=1e-12)
    assert interval(counts) == pytest.approx(interval(metric), abs=1e-12)


def test_metrics_without_pictures_have_no_counts() -> None:
    for metric, shape in ((Pck(JOINTS), (0, 2)), (Confusion(("a", "b")), (0, 3, 2))):
        assert metric.by_picture().shape == shape
        assert np.isnan(Counts(metric.by_picture()).value())


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    labelled = np.full(200, 14)
    ease = rng.beta(1, 1, 200)
    first = rng.binomial(14, ease)
    # The second net loses one joint in some pictures: pictures differ far more than the nets do.
    second = np.maximum(first - (rng.random(200) < 0.5), 0)
    a, b = (Counts(np.stack([found, labelled], axis=1)) for found in (first, second))
    gap, low, high = difference(a, b)
    assert gap == pytest.approx((first.sum() - second.sum()) / labelled.sum())
    assert 0 < low < gap < high
    bounds = interval(a)
    assert bounds is not None
    assert high - low < (bounds[1] - bounds[0]) / 3
    # Of one share per picture, resampling is the standard error of the mean of the differences.
    error = np.std((first - second) / 14, ddof=1) / np.sqrt(200)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert difference(a, a) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_tau_is_scipys(ties: bool) -> None:
    rng = np.random.default_rng(1)
    for count in range(2, 30):
        a, b = rng.normal(size=(2, count))
        if ties:
            a, b = np.round(a), np.round(b)
        assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, nan_ok=True)


def test_tau_of_all_orders_of_four() -> None:
    values = [kendall_tau(range(4), order) for order in itertools.permutations(range(4))]
    assert (max(values), min(values)) == (1.0, -1.0)
    assert sum(values) == pytest.approx(0)
    assert np.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))


def test_the_interval_of_tau_holds_it_and_shrinks() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for count in (6, 24, 96):
        a = rng.normal(size=count)
        b = a + rng.normal(size=count)
        bounds = tau_interval(a, b, np.random.default_rng(0))
        assert bounds is not None
        assert bounds[0] <= kendall_tau(a, b) <= bounds[1]
        assert bounds == tau_interval(a, b, np.random.default_rng(0))
        widths.append(bounds[1] - bounds[0])
    assert widths == sorted(widths, reverse=True)
    assert tau_interval([1, 2, 3], [1, 2, 3], rng) is None
    assert tau_interval([1, 1, 1, 1], [1, 2, 3, 4], rng) is None


def test_what_fits_nothing_is_said() -> None:
    with pytest.raises(ValueError, match=r"\(pictures, 2\) or \(pictures, 3, classes\), got \(4, 3\)"):
        Counts(np.zeros((4, 3), np.int64))
    few, more = (Counts(np.ones((count, 2), np.int64)) for count in (3, 4))
    with pytest.raises(ValueError, match="the same two or more pictures, got 3 and 4"):
        difference(few, more)
    with pytest.raises(ValueError, match=r"two lists of the same two or more figures, got shapes \(1,\) and \(2,\)"):
        kendall_tau([1], [1, 2])
