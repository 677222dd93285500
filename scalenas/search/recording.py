"""Recorded trials: written to a file, and taken from it in place of measuring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scalenas.search.candidates import Candidate, Trial, read_trial_line
from scalenas.search.objectives import Measured, MeasureFailed
from scalenas_runtime.canonical import canonical_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text


def write_records(path: Path, trials: Sequence[Trial]) -> None:
    """Writes trials to `path`, one line of JSON each, in one step.

    Raises:
        OSError: the folder is read-only or the disk is full.
    """
    write_text(path, "".join(canonical_json(trial.to_json()) + "\n" for trial in trials))


def read_records(path: Path) -> list[Trial]:
    """Returns the trials of a `records.jsonl`.

    Raises:
        UserError: the file cannot be read, or a line is not a trial; the text names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    trials = []
    for row, line in enumerate(lines, start=1):
        try:
            trials.append(read_trial_line(line))
        except UserError as error:
            raise UserError(f"{path}, line {row}: {error}") from None
    return trials


class Replay:
    """Figures from recorded trials, found by live spec and choices."""

    def __init__(self, path: Path) -> None:
        """Reads the records.

        Raises:
            UserError: the file cannot be read, or holds no trial.
        """
        self._path = path
        self._trials = {trial.candidate.figure: trial for trial in read_records(path)}
        if not self._trials:
            raise UserError(f"{path} holds no trials to replay")

    def __len__(self) -> int:
        return len(self._trials)

    def measure(self, candidate: Candidate, name: str) -> Measured:
        """Returns the recorded figure.

        Raises:
            MeasureFailed: the recorded measure failed.
            UserError: the record lacks the candidate or the figure: this search is not the one that was recorded.
        """
        trial = self._trials.get(candidate.figure)
        if trial is not None and name in trial.values:
            return Measured(trial.values[name], trial.details.get(name, {}))
        if trial is not None and trial.state == "failed":
            raise MeasureFailed(trial.failure)
        what = "figure" if trial is not None else "candidate"
        raise UserError(
            f"trial {candidate.number} needs a {what} that {self._path} does not hold "
            f"({name} of {candidate.digest[:12]}); replay needs the recorded space, sampler, seed and limits"
        )
