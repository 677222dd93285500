"""Ctrl-C that lets a long job come to a good end; a second one ends at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType

AFTER_CANDIDATE = "stopping after the candidate in flight; once more ends at once (only that candidate is lost)"


# Exit code of a job that a signal ended, cleanly or not, so that `search ... && deploy` does not go on.
INTERRUPTED = 130


class Interrupts:
    """Catches Ctrl-C and SIGTERM while it is entered; call it to learn whether one came.

    The first is kept, so that the job can stop where nothing is lost; from the second on they do what they did before.
    Use it in the main thread, the only one that Python hands signals to.
    """

    def __init__(self, told: Callable[[str], None], what: str) -> None:
        """Takes what shows a line to the user, and the line that says what the first signal leads to."""
        self._told, self._what = told, what
        self._came = False
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __call__(self) -> bool:
        """Returns whether a signal came."""
        return self._came

    def __enter__(self) -> Interrupts:
        """Begins to catch."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        self._restore()
        self._told(self._what)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
