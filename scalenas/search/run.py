"""`search`: propose, measure, record, until the study is complete."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np

from scalenas.search.candidates import Candidate, Trial
from scalenas.search.ledger import Draft, Ledger, MemoryLedger
from scalenas.search.measuring import Meter
from scalenas.search.objectives import Constraint, Objective, check_measures
from scalenas.search.options import SearchOptions, StudyHead, goals_of, make_head
from scalenas.search.queue import candidate_of, starting_queue
from scalenas.search.ranking import Ranker
from scalenas.search.recording import Replay
from scalenas.search.samplers import get_sampler
from scalenas.search.samplers.base import Context, Proposal, Sampler
from scalenas.search.storage import Storage
from scalenas.search.study import Study
from scalenas.space import SearchSpace

# After so many known keys in a row from the sampler, candidates are drawn uniformly; after the second number the space
# counts as exhausted.
SAMPLER_ATTEMPTS = 30
UNIFORM_ATTEMPTS = 300
_POLL = 0.5


def search(
    space: SearchSpace,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    sampler: Sampler | str,
    storage: Storage | None,
    *,
    options: SearchOptions | None = None,
) -> Study:
    """Returns the study after searching; it may have been begun by an earlier call, which this one goes on with.

    Constraints are measured first, then objectives, each in the order given; an objective with the name of a constraint
    takes its figure. A candidate that breaks a constraint is measured no further. Several processes may work on one
    study in a database: no candidate is measured twice, and one whose worker died is measured by another. With one
    worker, the same seed and the same figures give the same candidates, also across kills.

    Args:
        space: The family.
        objectives: What to improve.
        constraints: What to keep.
        sampler: How to choose candidates, or the name of a sampler with its default options.
        storage: A file (SQLite) or a URL; None keeps the study in memory.
        options: Everything else.

    Raises:
        UserError: the storage cannot be used, or its study is about something else; an option is not valid.
    """
    chosen = options or SearchOptions()
    check_measures(objectives, constraints)
    method = get_sampler(sampler) if isinstance(sampler, str) else sampler
    head = make_head(space, objectives, constraints, method, chosen)
    replay = Replay(chosen.replay) if chosen.replay is not None else None
    queue = starting_queue(space, head, chosen)
    ledger = _open(storage, head, chosen)
    meter = Meter(objectives, constraints, replay)
    _Loop(space, method, ledger, meter, chosen, queue).run()
    return Study(ledger)


class _Loop:
    """One worker at work on one study."""

    def __init__(
        self,
        space: SearchSpace,
        sampler: Sampler,
        ledger: Ledger,
        meter: Meter,
        options: SearchOptions,
        queue: Sequence[tuple[Candidate, str]],
    ) -> None:
        self._space = space
        self._sampler = sampler
        self._ledger = ledger
        self._meter = meter
        self._options = options
        self._queue = deque(queue)
        self._study = Study(ledger)
        self._most = meter.most(options.n_trials)
        self._deadline = time.monotonic() + options.timeout if options.timeout is not None else float("inf")
        head = ledger.head
        self._goals = goals_of(head)
        self._limits = {name: upper for name, upper, _ in head.limits}
        self._ranker = Ranker(space, head)

    def run(self) -> None:
        """Works until the study is complete, time is over, or `stop` says so."""
        while not self._is_over():
            draft = self._ledger.take_over() or self._next()
            if draft is not None:
                self._work(draft)
            elif self._ledger.running():
                # The others' candidates come back should their workers die.
                time.sleep(_POLL)
            else:
                return

    def _is_over(self) -> bool:
        stop = self._options.stop
        return time.monotonic() >= self._deadline or (stop is not None and stop())

    def _next(self) -> Draft | None:
        """Returns a new candidate, now this worker's; None when the study has all, or the space has no more."""
        while True:
            number = self._ledger.next_number()
            if self._most is not None and number >= self._most:
                return None
            trials = self._ledger.trials()
            self._ranker.learn(trials)
            known = {trial.candidate.key for trial in trials}
            for candidate, origin in chain(self._queued(number), self._sampled(number, trials)):
                if candidate.key in known:
                    continue
                draft = Draft(candidate, origin, self._ranker.rank(candidate.spec, candidate.choices))
                outcome = self._ledger.reserve(draft)
                if outcome == "mine":
                    return draft
                if outcome == "number taken":
                    break
                known.add(candidate.key)
            else:
                return None

    def _queued(self, number: int) -> Iterator[tuple[Candidate, str]]:
        while self._queue:
            candidate, origin = self._queue[0]
            yield replace(candidate, number=number), origin
            # Asked for another one: this one is known. Otherwise it stays until the next call finds it so.
            self._queue.popleft()

    def _sampled(self, number: int, trials: Sequence[Trial]) -> Iterator[tuple[Candidate, str]]:
        rng = np.random.default_rng((self._options.seed, number))
        for attempt in range(SAMPLER_ATTEMPTS):
            proposal = self._sampler.propose(self._context(number, trials, attempt), rng)
            yield self._candidate(number, proposal), proposal.origin
        head = self._ledger.head
        for _ in range(UNIFORM_ATTEMPTS):
            spec = self._space.sample(rng, settings=self._options.settings, inputs=self._options.inputs)
            choices = {name: values[int(rng.integers(len(values)))] for name, values in head.choices.items()}
            yield self._candidate(number, Proposal(spec, choices)), "fallback"

    def _context(self, number: int, trials: Sequence[Trial], attempt: int) -> Context:
        return Context(
            space=self._space,
            settings=self._options.settings,
            inputs=self._options.inputs,
            choices=self._options.choices,
            trials=trials,
            goals=self._goals,
            limits=self._limits,
            number=number,
            rank=self._ranker.rank if self._ranker.is_ready else None,
            budget=self._ledger.head.planned,
            attempt=attempt,
        )

    def _candidate(self, number: int, proposal: Proposal) -> Candidate:
        return candidate_of(self._space, self._ledger.head, proposal, number=number)

    def _work(self, draft: Draft) -> None:
        if draft.tries > self._options.max_tries:
            text = f"its worker died {draft.tries - 1} times"
            trial = Trial(draft.candidate, "failed", {}, {}, draft.origin, {}, draft.predicted, text)
        else:
            with self._held(draft.candidate.number):
                trial = self._meter.measure(draft)
        if self._ledger.finish(trial) and self._options.on_trial is not None:
            self._options.on_trial(self._study, trial)

    @contextmanager
    def _held(self, number: int) -> Iterator[None]:
        with self._ledger.kept(number):
            try:
                yield
            except BaseException:
                # Ctrl-C or an error of the caller's: the candidate is free for the next one who comes.
                self._ledger.release(number)
                raise


def _open(storage: Storage | None, head: StudyHead, options: SearchOptions) -> Ledger:
    if storage is None:
        return MemoryLedger(options.name, head)
    from scalenas.search.database import DatabaseLedger

    return DatabaseLedger(storage, options.name, head, lease=options.lease)
