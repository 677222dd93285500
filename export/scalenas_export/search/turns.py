"""How candidate and reference take turns on a machine whose pace changes, and when enough turns were taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from scalenas_export.search.bracket import Bracket, bracket
from scalenas_runtime.measure.job import STATISTICS, MeasureJob, Opened, Slice

# A shared machine changes its pace within tenths of a second: turns much longer than these have such a change in their
# midst, and no reference around them can divide it out (`benchmarks/bench_slices.py`).
SLICE_SECONDS, SLICE_SAMPLES, REFERENCE_SAMPLES = 0.03, 5, 3
LEAST = 4
# Turns go on until the standard error of the ratio is this, but for at most so many times the grade's time.
PRECISION, PATIENCE = 0.02, 3
# So many times as long as expected may anything take, beyond the timeout, before its process counts as hung.
PACES = 20


class Interleave(Protocol):
    """What takes slices in one process: `MeasuringProcess.interleave`."""

    def __call__(self, turns: Sequence[tuple[str, float, int]], *, timeout: float = ...) -> list[Slice]:
        """Returns a slice for each turn of name, seconds and samples."""


def take_turns(
    interleave: Interleave, names: tuple[str, str], job: MeasureJob, opened: Opened, *, timeout: float
) -> tuple[list[Slice], Bracket]:
    """Returns the candidate's slices, and its bracket with those of the reference around and between them.

    Args:
        interleave: Takes the slices.
        names: What the process calls the candidate and the reference.
        job: The candidate's; its grade, seconds and figure decide how much is taken.
        opened: The candidate's engine, as its warm-up went.
        timeout: Seconds that an answer may take on top of the timed seconds.

    Raises:
        MeasuringFailed: the process died or hung.
    """
    own, other = (names[0], SLICE_SECONDS, SLICE_SAMPLES), (names[1], SLICE_SECONDS, REFERENCE_SAMPLES)
    turn = 2 * expected(job, opened, SLICE_SECONDS, SLICE_SAMPLES)
    slices: list[Slice] = []
    references = interleave([other], timeout=timeout + PACES * turn)
    seconds, samples = job.wanted
    more, most = _first(job, opened), math.inf
    while True:
        taken = interleave([own, other] * more, timeout=timeout + PACES * turn * more)
        slices += taken[::2]
        references += taken[1::2]
        times, around = ([np.array(part.milliseconds) for part in parts] for parts in (slices, references))
        if sum(part.sum() for part in times) < 1000 * seconds or sum(part.size for part in times) < samples:
            more = 1
            continue
        found = bracket(times, around, STATISTICS[job.stat], np.random.default_rng(0))
        most = min(most, PATIENCE * len(slices))
        if found.error <= PRECISION * found.ratio or len(slices) >= most:
            return slices, found
        more = min(max(LEAST, len(slices) // 2), int(most) - len(slices))


def expected(job: MeasureJob, opened: Opened, seconds: float, samples: int) -> float:
    """Returns how many seconds a slice should take, as the warm-up went."""
    return max(seconds, samples * _each(opened), samples / job.pace if job.pace else 0.0)


def _first(job: MeasureJob, opened: Opened) -> int:
    """Returns how many slices should be enough for the job's seconds and samples."""
    seconds, samples = job.wanted
    count = max(SLICE_SAMPLES, math.ceil(SLICE_SECONDS / _each(opened)))
    return max(LEAST, math.ceil(seconds / (count * _each(opened))), math.ceil(samples / count))


def _each(opened: Opened) -> float:
    return opened.warm_up.seconds / opened.warm_up.iterations
