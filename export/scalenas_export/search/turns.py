"""How candidate and reference take turns on a machine whose pace changes, and when enough turns were taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from scalenas_export.search.bracket import LEAST_SLICES, Bracket, bracket
from scalenas_runtime.measure.job import HUNG, PRECISION, STATISTICS, MeasureJob, Opened, Slice, Turn, expected_seconds
from scalenas_runtime.measure.statistics import Samples

# A shared machine changes its pace within tenths of a second: turns much longer than these have such a change in their
# midst, and no reference around them can divide it out (`benchmarks/bench_slices.py`).
SLICE_SECONDS, SLICE_SAMPLES = 0.03, 4
# Of engines that take this long one inference of the reference between two slices is enough, and of a slice's four only
# the first is slower for the turn before, which moves their median by 1 % at most: ratios repeat as well as with longer
# turns that begin with an inference that does not count, in three quarters of the time (`benchmarks/bench_turns.py`).
LONG_SECONDS = 0.01
# Turns go on until the ratio is precise, but for at most so many times the grade's time.
PATIENCE = 3


class Interleave(Protocol):
    """What takes slices in one process: `MeasuringProcess.interleave`."""

    def __call__(self, turns: Sequence[Turn], *, timeout: float = ...) -> list[Slice]:
        """Returns a slice for each turn."""


def take_turns(
    interleave: Interleave, names: tuple[str, str], *, job: MeasureJob, opened: Opened, timeout: float
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
    long = expected_seconds(job, opened, seconds=0.0, samples=1) >= LONG_SECONDS
    own = Turn(names[0], SLICE_SECONDS, SLICE_SAMPLES, settle=not long)
    other = Turn(names[1], 0.0 if long else SLICE_SECONDS, 1)
    slices: list[Slice] = []
    references: list[Samples] = []
    seconds, samples = job.wanted
    turn = expected_seconds(job, opened, seconds=SLICE_SECONDS, samples=SLICE_SAMPLES)
    more, most = _first(job, opened), math.inf
    while True:
        # Each round begins with a reference of its own: the machine may have changed its pace since the last one.
        taken = interleave([other, *[own, other] * more], timeout=timeout + HUNG * 2 * turn * (more + 1))
        around = [np.array(part.milliseconds) for part in taken[::2]]
        references = [*references[:-1], np.concatenate([*references[-1:], around[0]]), *around[1:]]
        slices += taken[1::2]
        missing = max(
            1 - sum(part.seconds for part in slices) / seconds,
            1 - sum(len(part.milliseconds) for part in slices) / samples,
        )
        if missing > 0:
            more = math.ceil(missing * len(slices) / (1 - missing))
            continue
        times = [np.array(part.milliseconds) for part in slices]
        found = bracket(times, references, STATISTICS[job.stat], np.random.default_rng(0))
        most = min(most, PATIENCE * len(slices))
        if found.error <= PRECISION * found.ratio or len(slices) >= most:
            return slices, found
        more = min(max(LEAST_SLICES, len(slices) // 4), int(most) - len(slices))


def _first(job: MeasureJob, opened: Opened) -> int:
    """Returns how many slices should be enough for the job's seconds and samples."""
    seconds, samples = job.wanted
    each = expected_seconds(job, opened, seconds=0.0, samples=1)
    count = max(SLICE_SAMPLES, math.ceil(SLICE_SECONDS / each))
    return max(LEAST_SLICES, math.ceil(seconds / (count * each)), math.ceil(samples / count))
