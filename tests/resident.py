"""What a loop leaves behind in memory, told apart from what the process does once."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import psutil


def growth_per_call(call: Callable[[], object], *, calls: int, warm: int = 1_000, stretches: int = 5) -> float:
    """Returns the bytes of resident memory that a call leaves behind: the median over stretches of equal length.

    A leak grows in every stretch. What an allocator takes or gives back once, in a process that ran other tests before,
    shows in one of them.
    """
    process = psutil.Process()
    for _ in range(warm):
        call()
    grown: list[float] = []
    each = calls // stretches
    for _ in range(stretches):
        start = process.memory_info().rss
        for _ in range(each):
            call()
        grown.append((process.memory_info().rss - start) / each)
    return statistics.median(grown)
