"""Measures of one candidate in order, until a constraint is broken or a measure gives up."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from scalenas.search.candidates import State, Trial
from scalenas.search.ledger import Draft
from scalenas.search.objectives import Constraint, Measured, MeasureFailed, Objective
from scalenas.search.recording import Replay
from scalenas_runtime.canonical import Json, canonical_json


@dataclass(frozen=True, slots=True)
class Meter:
    """Turns a candidate into a trial.

    Attributes:
        objectives: Measured last, in this order.
        constraints: Measured first, in this order.
        replay: Where figures come from in place of measuring, None to measure.
    """

    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]
    replay: Replay | None = None

    def most(self, n_trials: int | None) -> int | None:
        """Returns how many trials there can be: `n_trials`, and no more than a replay has."""
        counts = [count for count in (n_trials, None if self.replay is None else len(self.replay)) if count is not None]
        return min(counts, default=None)

    def measure(self, draft: Draft) -> Trial:
        """Returns what became of a candidate.

        Raises:
            UserError: the figures are replayed and this one is missing.
        """
        values: dict[str, float] = {}
        details: dict[str, dict[str, Json]] = {}
        seconds: dict[str, float] = {}
        state: State = "complete"
        failure = ""
        items: list[Objective | Constraint] = [*self.constraints, *self.objectives]
        for item in items:
            if item.name not in values:
                start = time.perf_counter()
                try:
                    measured = self._figure(draft, item)
                except MeasureFailed as error:
                    state, failure = "failed", f"{item.name}: {error}" if self.replay is None else str(error)
                    break
                finally:
                    seconds[item.name] = round(time.perf_counter() - start, 6)
                values[item.name] = measured.value
                if measured.details:
                    details[item.name] = dict(measured.details)
            if isinstance(item, Constraint) and values[item.name] > item.upper:
                state = "infeasible"
                break
        return Trial(draft.candidate, state, values, details, draft.origin, seconds, dict(draft.predicted), failure)

    def _figure(self, draft: Draft, item: Objective | Constraint) -> Measured:
        if self.replay is not None:
            return self.replay.measure(draft.candidate, item.name)
        found = item.measure(draft.candidate)
        measured = found if isinstance(found, Measured) else Measured(float(found))
        if not math.isfinite(measured.value):
            raise MeasureFailed(f"the measure gave {measured.value}")
        # Raw figures that JSON does not have would break the record only when somebody reads it.
        canonical_json(dict(measured.details))
        return Measured(float(measured.value), measured.details)
