"""What people see while a search runs, and how they stop it."""

from __future__ import annotations

import io
import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from scalenas_export.interrupts import AFTER_CANDIDATE, Interrupts
from scalenas_export.search.chart import front_indices
from scalenas_export.search.progress import front_trials, standing
from scalenas_export.search.view import LineView, LiveView, open_view, status_line, trial_line
from tests.export.search.made_trials import FRONT, five, made, plan


def test_the_standing_is_worked_out_from_trials() -> None:
    trials = five()
    found = standing(trials, plan(trials, n_trials=10, timeout=100.0), times=[0, 6, 12, 18], now=20.0, started=0.0)
    assert [trial.number for trial in found.fronts[0]] == [1, 2]
    assert found.best is not None
    assert found.best.number == 2
    assert found.counts == {"complete": 4, "infeasible": 1, "failed": 0}
    assert found.per_minute == pytest.approx(10)
    assert found.drift == pytest.approx(0.004)
    assert found.predictor_error == {"latency": pytest.approx(0.1)}
    # Five candidates at ten a minute are 30 s; the time limit would leave 80.
    assert found.remaining == pytest.approx(30)
    limited = standing(trials, plan(trials, n_trials=100, timeout=25.0), times=[0, 6], now=20.0, started=0.0)
    assert limited.remaining == pytest.approx(5)


def test_nothing_is_claimed_before_there_is_something() -> None:
    trials = five()
    found = standing([], plan(trials), times=[], now=1.0, started=0.0)
    assert (found.best, found.per_minute, found.drift, found.remaining) == (None, None, None, None)
    assert status_line(found, plan(trials)) == "0 candidates (none yet)"


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_no_other_net_beats(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs, gains = rng.integers(0, 6, 30).tolist(), rng.integers(0, 6, 30).tolist()

    def beaten(index: int) -> bool:
        return any(
            cost <= costs[index] and gain >= gains[index] and (cost, gain) != (costs[index], gains[index])
            for cost, gain in zip(costs, gains, strict=True)
        )

    found = front_indices(costs, gains)
    assert sorted(found) == [index for index in range(30) if not beaten(index)]
    assert [costs[index] for index in found] == sorted(costs[index] for index in found)
    assert front_indices([], []) == []


def test_infeasible_nets_are_on_no_front() -> None:
    fast = replace(made(1, 1.0, 0.9), state="infeasible")
    assert front_trials([made(0, 10.0, 0.5), fast], FRONT) == [made(0, 10.0, 0.5)]


def test_lines_say_each_candidate_and_sums_now_and_then() -> None:
    trials = [*five(), made(5, 9.0, None, state="failed", failure="the engine hung")]
    shown: list[str] = []
    clock = itertools.count(0.0, 10.0)
    view = LineView(shown.append, every=30.0, clock=lambda: next(clock))
    view.begin(plan(trials))
    for count, trial in enumerate(trials, 1):
        view.trial(trials[:count], trial)
    view.end()
    assert shown[:2] == ["a search", "accuracy on pictures drawn here"]
    assert shown[2] == "hrnet-w4 (enqueued), latency 10.000 ms, accuracy 50.00 %"
    assert "trial 4 (offspring), latency 13.000 ms, over budget" in shown
    assert shown[-2].endswith("latency 9.000 ms, failed: the engine hung")
    sums = [line for line in shown if "candidates/min" in line]
    assert len(sums) == 2
    assert sums[0].startswith("3 candidates (3 complete); best trial 2: latency 9.000 ms, accuracy 52.00 %; 6.0 cand")
    assert "drift 0.2 %; predictor of latency off by 10.0 %" in sums[0]


def test_a_terminal_gets_a_table() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    view = open_view(lambda line: None, stream)
    assert isinstance(view, LiveView)
    trials = five()
    with view:
        view.begin(plan(trials, title="a [bold] search", n_trials=5))
        for count, trial in enumerate(trials, 1):
            view.trial(trials[:count], trial)
        view.note("a note")
    text = stream.getvalue()
    for part in ("a [bold] search", "front so far, openvino:cpu/fp32", "latency <= 12", "trial 2", "52.00 %", "a note"):
        assert part in text, part
    assert isinstance(open_view(lambda line: None, io.StringIO()), LineView)


def test_long_fronts_are_cut_on_a_terminal() -> None:
    trials = [made(number, 5.0 + number, 0.3 + number / 100) for number in range(15)]
    stream = io.StringIO()
    with LiveView(stream) as view:
        view.begin(plan(trials, limits={}))
        view.trial(trials, trials[-1])
    assert "and 3 cheaper ones" in stream.getvalue()


def test_choices_and_names_label_a_trial() -> None:
    trial = made(0, 10.0, 0.5)
    chosen = replace(trial, candidate=replace(trial.candidate, choices={"precision": "bf16"}))
    assert trial_line(chosen, plan([trial])).startswith("hrnet-w4 precision=bf16 (enqueued)")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where a shell began the tests in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_the_first_interrupt_waits_and_the_second_does_not() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(told.append, AFTER_CANDIDATE) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert len(told) == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
