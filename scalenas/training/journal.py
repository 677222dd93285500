"""What a run writes about itself: lines of JSON, TensorBoard events, and a bar on stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from scalenas.training.events import EventWriter
from scalenas.training.step import Losses
from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.files import write_text

LOG = "log.jsonl"
EVENTS = "events"


@dataclass
class Tally:
    """Sums since the last line of the log."""

    start: float = field(default_factory=time.perf_counter)
    steps: int = 0
    waiting: float = 0.0
    task: float = 0.0
    distance: float = 0.0
    total: float = 0.0

    def add(self, losses: Losses, waited: float) -> None:
        """Adds a step and the seconds that it waited for its batch."""
        self.steps += 1
        self.waiting += waited
        self.task += losses.task
        self.distance += losses.distance
        self.total += losses.total

    def line(self, batch: int) -> dict[str, float]:
        """Returns mean losses, pictures a second, and the share of the time spent waiting for data."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        means = {key: getattr(self, key) / self.steps for key in ("total", "task", "distance")}
        return {**means, "pictures_per_second": self.steps * batch / seconds, "waiting": self.waiting / seconds}


class Journal:
    """The log of a run; only the first process has one that writes."""

    def __init__(self, folder: Path, *, first_step: int, steps: int, quiet: bool = False) -> None:
        """Opens the log of a run that starts or resumes after `first_step` steps.

        Lines about later steps, which a killed run wrote after its last checkpoint, are dropped.
        """
        from tqdm import tqdm

        self._path = folder / LOG
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self._path, "".join(line for line in lines if _step(line) <= first_step))
        self._file = self._path.open("a", encoding="utf-8")
        self._events = EventWriter(folder / EVENTS, first_step=first_step)
        self._bar = tqdm(total=steps, initial=first_step, unit="step", disable=quiet, dynamic_ncols=True)

    def add(self, step: int, **values: Json) -> None:
        """Adds a line about the steps up to `step`; its numbers become TensorBoard scalars."""
        self._file.write(canonical_json({"step": step, **values}) + "\n")
        self._file.flush()
        scalars = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
        if scalars:
            self._events.scalars(step, scalars)

    def move(self, step: int, shown: Mapping[str, float] | None = None) -> None:
        """Brings the bar to `step`, with numbers beside it."""
        self._bar.update(step - self._bar.n)
        if shown:
            self._bar.set_postfix({key: f"{value:.4g}" for key, value in shown.items()})

    def close(self) -> None:
        """Closes files and bar."""
        self._file.close()
        self._events.close()
        self._bar.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_log(folder: Path) -> list[dict[str, Json]]:
    """Returns the lines of a run's log."""
    path = folder / LOG
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if _step(line) >= 0]


def _step(line: str) -> float:
    # A killed run may leave a last line that is cut off.
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return float("inf") if line.strip() else -1
    return float(value["step"])
