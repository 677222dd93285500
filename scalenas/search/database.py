"""The ledger in a database: trials in Optuna's tables, claims beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from scalenas.search.candidates import Candidate, State, Trial
from scalenas.search.claims import Claims
from scalenas.search.ledger import Draft, Ledger, Outcome
from scalenas.search.options import StudyHead, read_head
from scalenas.search.storage import NoStudy, Storage, open_database, quiet_optuna, shown, storage_errors
from scalenas.search.tables import Agreed
from scalenas.search.workers import this_worker
from scalenas.spec import FrozenMap, SubnetSpec
from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

HEAD = "scalenas"
_ADOPT_AFTER = 5.0
T = TypeVar("T")


class DatabaseLedger(Ledger):
    """A study in SQLite or PostgreSQL that any number of processes work on; each has a ledger of its own.

    Of a trial, Optuna's tables hold the genes as one attribute `spec`, who it is as `candidate`, and what was measured
    as `result`, beside state, objectives and constraints in Optuna's own places.
    """

    def __init__(self, storage: Storage, name: str, head: StudyHead | None, *, lease: float = 60.0) -> None:
        """Opens a study; makes it where `head` is given and it is not there.

        Raises:
            NoStudy: the storage has no such study, and `head` is None.
            UserError: the storage cannot be used, or the study is another program's or about something else.
        """
        import optuna

        self.name = name
        self._place = f"{name!r} of {shown(storage)}"
        self._storage = storage
        database = open_database(storage, create=head is not None)
        self._engine = database.engine
        self._optuna = optuna.storages.get_storage(database)
        with storage_errors(storage):
            self._study, created = self._find(head)
            mine = f"{self._study}:{name}"[:300]
            self._claims = Claims(self._engine, mine, this_worker(), lease=lease)
            self._agreed = Agreed(self._engine, mine)
            if head is not None:
                for table in (self._claims, self._agreed):
                    table.create_table()
                    if created:
                        table.clear()
            self.head = self._agree(head, created)
        self._frame = (FrozenMap(self.head.settings), FrozenMap(self.head.inputs))
        self._found: dict[int, Trial] = {}
        self._seen: set[int] = set()
        self._ids: dict[int, int] = {}
        self._sorted: list[Trial] = []

    def trials(self) -> Sequence[Trial]:
        """Returns all finished trials by number; only those that are new since the last call are read."""
        from optuna.trial import TrialState

        with storage_errors(self._storage):
            states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
            for frozen in self._optuna.get_all_trials(self._study, deepcopy=False, states=states):
                if frozen._trial_id in self._seen:
                    continue
                self._seen.add(frozen._trial_id)
                if "result" in frozen.user_attrs:
                    trial = self._trial(frozen)
                    self._found[trial.number] = trial
        if len(self._sorted) != len(self._found):
            self._sorted = [self._found[number] for number in sorted(self._found)]
        return self._sorted

    def next_number(self) -> int:
        """Returns the lowest number that nobody has."""
        with storage_errors(self._storage):
            return self._claims.next_number()

    def reserve(self, draft: Draft) -> Outcome:
        """Returns whether the candidate is this worker's now, or what of it somebody else has."""
        candidate = draft.candidate
        with storage_errors(self._storage):
            outcome = self._claims.reserve(candidate.number, candidate.key, _draft_text(draft))
            if outcome == "mine":
                self._ids[candidate.number] = self._create_trial(draft)
        return outcome

    def take_over(self) -> Draft | None:
        """Returns a candidate whose owner is dead, now this worker's, or None."""
        with storage_errors(self._storage):
            for claim in self._claims.open():
                if (claim.lapsed or claim.owner.is_gone()) and self._claims.take(claim):
                    draft = self._draft(claim.draft, claim.tries + 1)
                    if self._adopt(draft):
                        return draft
                    self._claims.finish(claim.number)
        return None

    def running(self) -> int:
        """Returns how many candidates are reserved and not finished."""
        with storage_errors(self._storage):
            return len(self._claims.open())

    def finish(self, trial: Trial) -> bool:
        """Records a trial of this worker; returns False where another one has taken it over meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        state = {"complete": TrialState.COMPLETE, "infeasible": TrialState.PRUNED, "failed": TrialState.FAIL}
        number = trial.number
        with storage_errors(self._storage):
            if not self._claims.is_mine(number):
                return False
            trial_id = self._ids[number]
            try:
                if self.head.limits:
                    self._optuna.set_trial_system_attr(trial_id, "constraints", self._violations(trial))
                self._optuna.set_trial_user_attr(trial_id, "result", _result(trial))
                values = [trial.values[name] for name, *_ in self.head.goals] if trial.state == "complete" else None
                self._optuna.set_trial_state_values(trial_id, state[trial.state], values)
            except UpdateFinishedTrialError:
                return False
            self._claims.finish(number)
        return True

    def release(self, number: int) -> None:
        """Lets others have a candidate of this worker at once."""
        with storage_errors(self._storage):
            self._claims.release(number)

    def kept(self, number: int) -> AbstractContextManager[None]:
        """Returns a block in which the lease of the candidate is renewed."""
        return self._claims.kept(number)

    def agree(self, name: str, value: float) -> float:
        """Returns the figure of `name` that all workers of the study use: `value` unless one is there already."""
        with storage_errors(self._storage):
            return self._agreed.agree(name, value)

    def agreed(self) -> dict[str, float]:
        """Returns the figures that all workers of the study use, by name."""
        with storage_errors(self._storage):
            return self._agreed.values()

    def close(self) -> None:
        """Ends the connections."""
        self._optuna.remove_session()
        self._engine.dispose()

    def _find(self, head: StudyHead | None) -> tuple[int, bool]:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        if head is None:
            known = [study.study_name for study in self._optuna.get_all_studies()]
            if self.name not in known:
                raise NoStudy(
                    f"{shown(self._storage)} has no study {self.name!r}; it has {', '.join(map(repr, known)) or 'none'}"
                )
            return self._optuna.get_study_id_from_name(self.name), False
        directions = [StudyDirection[direction.upper()] for _, direction, _ in head.goals]
        try:
            with quiet_optuna():
                return self._optuna.create_new_study(directions, study_name=self.name), True
        except DuplicatedStudyError:
            return self._optuna.get_study_id_from_name(self.name), False

    def _agree(self, head: StudyHead | None, created: bool) -> StudyHead:
        def stored() -> object:
            return self._optuna.get_study_user_attrs(self._study).get(HEAD)

        # The worker that makes a study writes its head a moment later, unless it is killed in between.
        found = None if created else _waited(stored, _ADOPT_AFTER if self._is_empty() else 0.0)
        if found is None:
            if not self._is_empty():
                raise UserError(
                    f"study {self._place} was not made by this program; give the search another name (--study-name)"
                )
            if head is None:
                raise NoStudy(f"study {self._place} is empty: who made it was killed before its first candidate")
            self._optuna.set_study_user_attr(self._study, HEAD, head.to_json())
            return head
        existing = read_head(found)
        if head is not None:
            head.check_same(existing, self._place)
        return existing

    def _is_empty(self) -> bool:
        return self._optuna.get_n_trials(self._study) == 0

    def _create_trial(self, draft: Draft) -> int:
        from optuna.trial import FrozenTrial, TrialState

        template = FrozenTrial(
            number=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs=_attributes(draft),
            system_attrs={},
            intermediate_values={},
            trial_id=-1,
        )
        return self._optuna.create_new_trial(self._study, template_trial=template)

    def _adopt(self, draft: Draft) -> bool:
        # The former owner may have died before it made the trial, or after it wrote the result.
        number = draft.candidate.number
        for frozen in self._optuna.get_all_trials(self._study, deepcopy=False):
            candidate = frozen.user_attrs.get("candidate")
            if candidate is not None and candidate["number"] == number:
                self._ids[number] = frozen._trial_id
                return not frozen.state.is_finished()
        self._ids[number] = self._create_trial(draft)
        return True

    def _violations(self, trial: Trial) -> list[float]:
        # Above zero means broken to Optuna; what was not measured any more is given as kept.
        return [trial.values[name] - upper if name in trial.values else 0.0 for name, upper, _ in self.head.limits]

    def _draft(self, text: str, tries: int) -> Draft:
        value = json.loads(text)
        entry = value["candidate"]
        return Draft(self._candidate(entry, value["spec"]), entry["origin"], entry["predicted"], tries)

    def _candidate(self, entry: Mapping[str, Any], genes: str) -> Candidate:
        settings, inputs = self._frame
        spec = SubnetSpec(
            self.head.space, settings, cast(Mapping[str, tuple[int | str, ...]], inputs), json.loads(genes)
        )
        return Candidate(entry["number"], spec, entry["choices"], entry["key"], entry["digest"])

    def _trial(self, frozen: FrozenTrial) -> Trial:
        entry, result = frozen.user_attrs["candidate"], frozen.user_attrs["result"]
        return Trial(
            self._candidate(entry, frozen.user_attrs["spec"]),
            cast(State, result["state"]),
            result["values"],
            result["details"],
            entry["origin"],
            result["seconds"],
            entry["predicted"],
            result["failure"],
        )


def _attributes(draft: Draft) -> dict[str, Any]:
    candidate = draft.candidate
    entry: dict[str, Json] = {
        "number": candidate.number,
        "key": candidate.key,
        "digest": candidate.digest,
        "choices": dict(candidate.choices),
        "origin": draft.origin,
        "predicted": draft.predicted,
    }
    return {"candidate": entry, "spec": canonical_json(candidate.spec.to_json()["genes"])}


def _draft_text(draft: Draft) -> str:
    return json.dumps(_attributes(draft))


def _result(trial: Trial) -> dict[str, Any]:
    plain = trial.to_json()
    return {key: plain[key] for key in ("state", "values", "details", "seconds", "failure")}


def _waited(read: Callable[[], T | None], seconds: float) -> T | None:
    deadline = time.monotonic() + seconds
    while (value := read()) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return value
