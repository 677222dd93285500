"""The arithmetic of A-B-A on machines that change their pace."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scalenas_export.search.bracket import Bracket, bracket
from scalenas_runtime.measure.statistics import Samples

RATIO, REFERENCE = 1.2, 2.0


def taken(paces: list[float], *, noise: float, samples: int = 12, seed: int = 1) -> Bracket:
    """A candidate of 1.2 times the reference; slices of both in turns, one pace of the machine each."""
    rng = np.random.default_rng(seed)

    def part(milliseconds: float) -> Samples:
        return milliseconds * (1 + noise * rng.standard_normal(samples))

    references = [part(REFERENCE * pace) for pace in paces[::2]]
    slices = [part(RATIO * REFERENCE * pace) for pace in paces[1::2]]
    return bracket(slices, references, None, np.random.default_rng(0))


def test_a_machine_that_slows_down_steadily_leaves_the_ratio_alone() -> None:
    found = taken(np.linspace(1, 2, 33).tolist(), noise=0)
    assert found.ratio == pytest.approx(RATIO, rel=1e-3)
    assert found.error < 1e-3
    assert found.change == pytest.approx(0.375)
    assert found.figure == pytest.approx(1.5 * RATIO * REFERENCE, rel=0.05)


def test_a_jump_of_the_pace_moves_one_slice_alone() -> None:
    found = taken([1.0] * 14 + [1.8] * 19, noise=0)
    assert found.ratio == RATIO


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(100):
        pace = np.repeat(rng.choice([1.0, 1.5], 5), 7)[:33]
        jitter = 1 + 0.03 * rng.standard_normal(33)
        low, high = taken((pace * jitter).tolist(), noise=0.02, seed=seed).interval
        held += low <= RATIO <= high
    assert 90 <= held <= 99


def test_a_percentile_is_that_of_the_scaled_samples() -> None:
    slices = [np.array([1.0, 2.0, 3.0, 4.0]), *[np.array([10.0, 20.0, 30.0, 40.0])] * 3]
    references = [np.array([1.0]), np.array([1.0]), np.array([19.0]), np.array([1.0]), np.array([19.0])]
    found = bracket(slices, references, 75.0, np.random.default_rng(0))
    assert found.ratio == 3.0
    assert found.figure == 30.0


@pytest.mark.parametrize(("slices", "references"), [(4, 4), (4, 6), (3, 4)])
def test_slices_need_a_reference_on_both_sides(slices: int, references: int) -> None:
    with pytest.raises(ValueError, match=rf"{slices} slices need {slices + 1} of the reference .*got {references}"):
        bracket([np.ones(3)] * slices, [np.ones(3)] * references, None, np.random.default_rng(0))


def test_the_interval_is_students() -> None:
    found = taken([1.0] * 33, noise=0.03)
    low, high = found.interval
    assert (high - found.ratio) / found.error == pytest.approx(float(stats.t.ppf(0.975, 15)), rel=1e-3)
    assert high - found.ratio == pytest.approx(found.ratio - low)
