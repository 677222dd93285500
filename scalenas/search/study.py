"""`Study`: what a search has found, while it runs and afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas.cost import LIVE
from scalenas.registry import get_space
from scalenas.search import pareto
from scalenas.search.candidates import Trial
from scalenas.search.ledger import Ledger
from scalenas.search.merit import cost_of, costs, ranked, violation
from scalenas.search.objectives import Goal
from scalenas.search.options import StudyHead, goals_of
from scalenas.search.recording import write_records
from scalenas.search.scores import Score, score
from scalenas.search.storage import Storage, shown, study_names
from scalenas.space import SearchSpace, unknown
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import NothingMeetsBudget, UserError, missing_extra

if TYPE_CHECKING:
    import pandas as pd


class Study:
    """The finished trials of a study, and what can be asked about them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @classmethod
    def open(cls, storage: Storage, name: str | None = None) -> Study:
        """Returns a stored study for reading; it follows what other processes add.

        Args:
            storage: A file or a URL.
            name: Name of the study; None where the storage has only one.

        Raises:
            UserError: the storage or the study is not there, or is another program's.
        """
        from scalenas.search.database import DatabaseLedger

        if name is None:
            names = study_names(storage)
            if len(names) != 1:
                known = ", ".join(map(repr, names)) or "none"
                raise UserError(f"{shown(storage)} has the studies {known}; say which one (--study-name)")
            name = names[0]
        return cls(DatabaseLedger(storage, name, None))

    @property
    def name(self) -> str:
        """Name of the study in its storage."""
        return self._ledger.name

    @property
    def head(self) -> StudyHead:
        """What the study is about."""
        return self._ledger.head

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What the study improves."""
        return goals_of(self.head)

    @property
    def limits(self) -> Mapping[str, float]:
        """Upper limit by name of the constraint."""
        return {name: upper for name, upper, _ in self.head.limits}

    @property
    def trials(self) -> list[Trial]:
        """All finished trials by number."""
        return list(self._ledger.trials())

    @property
    def running(self) -> int:
        """Number of candidates that some worker has and that are not finished."""
        return self._ledger.running()

    def agree(self, name: str, value: float) -> float:
        """Returns the figure of `name` that all workers of this study use: `value` unless one is there already."""
        return self._ledger.agree(name, value)

    @property
    def agreed(self) -> dict[str, float]:
        """The figures that all workers of this study use, by name."""
        return self._ledger.agreed()

    def front(self, names: Sequence[str] | None = None) -> list[Trial]:
        """Returns the complete trials that no other one dominates, by the first goal, best first.

        Args:
            names: Objectives or constraints to compare by, the objectives if None; a constraint's figure is better
                when it is less.

        Raises:
            UserError: a name is none of the study's.
        """
        goals = self._goals(names)
        complete = [trial for trial in self._ledger.trials() if trial.state == "complete"]
        points = costs(complete, goals)
        return sorted((complete[index] for index in pareto.front(points)), key=lambda trial: cost_of(trial, goals[0]))

    def best(self, name: str | None = None) -> Trial:
        """Returns the complete trial with the best figure of one objective, the first one's if no name is given.

        Raises:
            NothingMeetsBudget: no trial is complete; the text shows the closest.
            UserError: the name is none of the study's.
        """
        goal = self._goals(None if name is None else [name])[0]
        complete = [trial for trial in self._ledger.trials() if trial.state == "complete"]
        if not complete:
            raise NothingMeetsBudget(
                f"none of {len(self._ledger.trials())} candidates meets the budget{self._nearest()}"
            )
        return min(complete, key=lambda trial: cost_of(trial, goal))

    def closest(self, count: int = 3) -> list[Trial]:
        """Returns the infeasible trials that break their constraint the least, relative to the limit."""
        broken = [trial for trial in self._ledger.trials() if trial.state == "infeasible"]
        return sorted(broken, key=lambda trial: violation(trial, self.limits))[:count]

    def elite(self, count: int) -> list[Trial]:
        """Returns the best trials: front after front of the complete ones, then the closest of the others."""
        fronts = ranked(self._ledger.trials(), self.goals, self.limits, count=count)
        return [trial for front in fronts for trial in front][:count]

    def predictor_scores(self, last: int = 30) -> dict[str, Score]:
        """Returns how well each measure was predicted, over the `last` candidates that were measured afterwards."""
        result = {}
        for name in self.head.predict:
            pairs = [
                (trial.predicted[name], trial.values[name])
                for trial in self._ledger.trials()
                if name in trial.predicted and name in trial.values
            ]
            if pairs:
                result[name] = score(pairs[-last:])
        return result

    def rows(self, space: SearchSpace | None = None) -> list[dict[str, Json]]:
        """Returns one flat row per trial: number, state, digest, parameters, MACs, figures, choices, origin.

        The digest is the candidate's, without genes that change nothing. Parameters and MACs are those of what is
        computed, at the study's input size.

        Args:
            space: The family; by its name unless given.

        Raises:
            UserError: no family of that name is known.
        """
        space = space or get_space(self.head.space)
        names = list(dict.fromkeys([*self.limits, *(goal.name for goal in self.goals)]))
        rows: list[dict[str, Json]] = []
        for trial in self._ledger.trials():
            cost = space.cost(trial.spec, counting=LIVE)
            row: dict[str, Json] = {"number": trial.number, "state": trial.state, "digest": trial.candidate.digest}
            row |= {"params": cost.params, "macs": cost.macs}
            row |= {name: trial.values.get(name) for name in names}
            row |= dict(trial.choices)
            row |= {"origin": trial.origin, "failure": trial.failure, "spec": trial.spec.canonical}
            rows.append(row)
        return rows

    def trials_dataframe(self, space: SearchSpace | None = None) -> pd.DataFrame:
        """Returns `rows` as a pandas table, one trial a line.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise missing_extra("pandas", "report") from None
        return pd.DataFrame(self.rows(space))

    def write_records(self, path: Path) -> None:
        """Writes all finished trials, one line of JSON each, for `SearchOptions.replay`."""
        write_records(path, self._ledger.trials())

    def close(self) -> None:
        """Ends the connections to the storage."""
        self._ledger.close()

    def _goals(self, names: Sequence[str] | None) -> list[Goal]:
        if names is None:
            return list(self.goals)
        known = {name: Goal(name, "minimize") for name in self.limits} | {goal.name: goal for goal in self.goals}
        for name in names:
            if name not in known:
                raise unknown("objective", name, known)
        return [known[name] for name in names]

    def _nearest(self) -> str:
        nearest = self.closest(1)
        if not nearest:
            return ""
        figures = [
            f"{name} {nearest[0].values[name]:g} where at most {upper:g} is allowed"
            for name, upper in self.limits.items()
            if nearest[0].values.get(name, upper) > upper
        ]
        return f"; the closest, number {nearest[0].number}, has {', '.join(figures)}"
