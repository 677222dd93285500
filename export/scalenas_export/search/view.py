"""What a person sees while a search runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from scalenas.search.candidates import Trial
from scalenas_export.search.progress import Plan, Standing, standing

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 12


class View(Protocol):
    """What a search tells while it runs. All calls come from one thread."""

    def note(self, text: str) -> None:
        """Shows a line about what is going on."""
        ...

    def begin(self, plan: Plan) -> None:
        """Says what is searched; called once, before the first candidate."""
        ...

    def trial(self, trials: Sequence[Trial], trial: Trial) -> None:
        """Shows a finished candidate; `trials` are all finished ones of the study, by number."""
        ...

    def end(self) -> None:
        """Says that no candidate follows."""
        ...


class LineView:
    """Plain lines: one per candidate, and where the search stands every so many seconds."""

    def __init__(
        self, show: Callable[[str], None], *, every: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Takes where lines go, the seconds between two summaries, and the clock that counts them."""
        self._show, self._every, self._clock = show, every, clock
        self._plan: Plan | None = None
        self._times: list[float] = []
        self._started = self._summed = clock()

    def note(self, text: str) -> None:
        """Shows a line."""
        self._show(text)

    def begin(self, plan: Plan) -> None:
        """Shows what is searched."""
        self._plan = plan
        self._started = self._summed = self._clock()
        self._times = [self._started]
        for text in (plan.title, *plan.notes):
            self._show(text)

    def trial(self, trials: Sequence[Trial], trial: Trial) -> None:
        """Shows a candidate, and now and then where the search stands."""
        assert self._plan is not None
        now = self._clock()
        self._times.append(now)
        self._show(trial_line(trial, self._plan))
        if now - self._summed >= self._every:
            self._summed = now
            self._show(
                status_line(standing(trials, self._plan, times=self._times, now=now, started=self._started), self._plan)
            )

    def end(self) -> None:
        """Shows nothing more."""


class LiveView:
    """A table on a terminal that is drawn anew with every candidate. A context manager."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the terminal and the clock that counts seconds."""
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._clock = clock
        self._plan: Plan | None = None
        self._times: list[float] = []
        self._started = clock()
        self._running = False

    def __enter__(self) -> LiveView:
        """Returns the view; the table appears with `begin`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def note(self, text: str) -> None:
        """Prints a line above the table."""
        self._console.print(text, markup=False, highlight=False)

    def begin(self, plan: Plan) -> None:
        """Shows an empty table."""
        self._plan = plan
        self._started = self._clock()
        self._times = [self._started]
        for text in (plan.title, *plan.notes):
            self.note(text)
        self._live.start()
        self._running = True

    def trial(self, trials: Sequence[Trial], trial: Trial) -> None:
        """Draws the table anew."""
        assert self._plan is not None
        now = self._clock()
        self._times.append(now)
        found = standing(trials, self._plan, times=self._times, now=now, started=self._started)
        self._live.update(_picture(found, [trial], self._plan), refresh=True)

    def end(self) -> None:
        """Leaves the table as it stands."""
        if self._running:
            self._live.stop()
            self._running = False


def open_view(show: Callable[[str], None], stream: TextIO | None = None) -> LineView | LiveView:
    """Returns a live view where `stream` (stderr by default) is a terminal, plain lines through `show` elsewhere."""
    stream = stream or sys.stderr
    return LiveView(stream) if stream.isatty() else LineView(show)


def trial_line(trial: Trial, plan: Plan) -> str:
    """Returns a finished candidate in one line."""
    figures = [f"{name} {plan.text(name, trial.values[name])}" for name in plan.columns if name in trial.values]
    end = {"complete": "", "infeasible": "over budget", "failed": f"failed: {trial.failure}"}[trial.state]
    return ", ".join(part for part in (f"{plan.label(trial)} ({trial.origin})", *figures, end) if part)


def status_line(found: Standing, plan: Plan) -> str:
    """Returns where a search stands in one line: counts, best, pace, drift, the predictor's error, time left."""
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    parts = [f"{sum(found.counts.values())} candidates ({counts or 'none yet'})"]
    if found.best is not None:
        figures = (f"{name} {plan.text(name, found.best.values[name])}" for name in plan.columns)
        parts.append(f"best {plan.label(found.best)}: {', '.join(figures)}")
    if found.per_minute is not None:
        parts.append(f"{found.per_minute:.1f} candidates/min")
    if found.drift is not None:
        parts.append(f"drift {100 * found.drift:.1f} %")
    parts += [f"predictor of {name} off by {100 * error:.1f} %" for name, error in found.predictor_error.items()]
    if found.remaining is not None:
        parts.append(f"{_duration(found.remaining)} left")
    return "; ".join(parts)


def _picture(found: Standing, newest: Sequence[Trial], plan: Plan) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    tables = [
        _table(front.title, trials, found.best, plan) for front, trials in zip(plan.fronts, found.fronts, strict=True)
    ]
    lines = [*(trial_line(trial, plan) for trial in newest), status_line(found, plan)]
    return Group(*tables, *(Text(line) for line in lines))


def _table(title: str, trials: Sequence[Trial], best: Trial | None, plan: Plan) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    shown = trials[-_SHOWN:]
    more = len(trials) - len(shown)
    table = Table(
        title=f"front so far, {title}", title_justify="left", caption=f"and {more} cheaper ones" if more else None
    )
    table.add_column("net")
    for name in plan.columns:
        limit = f" <= {plan.limits[name]:g}" if name in plan.limits else ""
        table.add_column(f"{name}{limit}", justify="right")
    for trial in shown:
        figures = [plan.text(name, trial.values[name]) for name in plan.columns]
        is_best = best is not None and trial.number == best.number
        table.add_row(Text(plan.label(trial)), *figures, style="bold green" if is_best else "")
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
