"""Warm-up until the latency is steady."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from scalenas_runtime.records import Record

SECONDS, ITERATIONS = 0.2, 10
WINDOW, CHANGE = 0.1, 0.01


class WarmUp(Record, frozen=True):
    """How long the warm-up took, and whether the latency was steady at its end."""

    seconds: float
    iterations: int
    steady: bool


def warm_up(step: Callable[[], float], *, cap: float = 5.0) -> WarmUp:
    """Returns once 0.2 s and 10 iterations passed and two neighbouring windows' medians differ by less than 1 %.

    A window is the latest 0.1 s, or one iteration where that takes longer.

    Args:
        step: Runs one inference and returns its seconds.
        cap: Seconds after which the warm-up ends unsteady.
    """
    times: list[float] = []
    total = 0.0
    while True:
        times.append(step())
        total += times[-1]
        enough = total >= SECONDS and len(times) >= ITERATIONS
        if enough and _steady(times):
            return WarmUp(seconds=total, iterations=len(times), steady=True)
        if total >= cap:
            return WarmUp(seconds=total, iterations=len(times), steady=False)


def _steady(times: list[float]) -> bool:
    latest, before = _last_window(times, len(times))
    earlier, _ = _last_window(times, before)
    if not earlier:
        return False
    old, new = statistics.median(earlier), statistics.median(latest)
    return abs(new - old) < CHANGE * old


def _last_window(times: list[float], end: int) -> tuple[list[float], int]:
    start, total = end, 0.0
    while start > 0 and total < WINDOW:
        start -= 1
        total += times[start]
    return (times[start:end], start) if total >= WINDOW else ([], start)
