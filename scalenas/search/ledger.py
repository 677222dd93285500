"""The book of a study: which candidates were given out, and what became of them. Here: in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

from scalenas.search.candidates import Candidate, Trial
from scalenas.search.options import StudyHead

Outcome = Literal["mine", "number taken", "key taken"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A candidate that is not measured yet.

    Attributes:
        candidate: The candidate.
        origin: Where it came from.
        predicted: What the predictor says of it, by name.
        tries: How many workers took it, this one included.
    """

    candidate: Candidate
    origin: str
    predicted: dict[str, float] = field(default_factory=dict)
    tries: int = 1


class Ledger(ABC):
    """What a search needs of a storage.

    A candidate has a number and a key, both given out once per study. Who reserves them owns the candidate until it
    is finished, or until its owner is dead and another worker takes it over.
    """

    name: str
    head: StudyHead

    @abstractmethod
    def trials(self) -> Sequence[Trial]:
        """Returns all finished trials by number; the caller does not change the list."""

    @abstractmethod
    def next_number(self) -> int:
        """Returns the lowest number that nobody has."""

    @abstractmethod
    def reserve(self, draft: Draft) -> Outcome:
        """Returns whether the candidate is this worker's now, or what of it somebody else has."""

    @abstractmethod
    def take_over(self) -> Draft | None:
        """Returns a candidate whose owner is dead, now this worker's, or None."""

    @abstractmethod
    def running(self) -> int:
        """Returns how many candidates are reserved and not finished."""

    @abstractmethod
    def finish(self, trial: Trial) -> bool:
        """Records a trial of this worker; returns False, and records nothing, where another one has taken it over."""

    @abstractmethod
    def release(self, number: int) -> None:
        """Lets others have a candidate of this worker at once."""

    @abstractmethod
    def agree(self, name: str, value: float) -> float:
        """Returns the figure of `name` that all workers of the study use: `value` unless one is there already."""

    @abstractmethod
    def agreed(self) -> dict[str, float]:
        """Returns the figures that all workers of the study use, by name."""

    def kept(self, number: int) -> AbstractContextManager[None]:
        """Returns a block in which others see that this worker, who has the candidate, is alive."""
        return nullcontext()

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Ends threads and connections."""


class MemoryLedger(Ledger):
    """A ledger that ends with the process."""

    def __init__(self, name: str, head: StudyHead) -> None:
        self.name = name
        self.head = head
        self._trials: list[Trial] = []
        self._keys: set[str] = set()
        self._agreed: dict[str, float] = {}
        self._count = 0

    def trials(self) -> Sequence[Trial]:
        """Returns all finished trials by number."""
        return self._trials

    def next_number(self) -> int:
        """Returns the number of candidates so far."""
        return self._count

    def reserve(self, draft: Draft) -> Outcome:
        """Returns whether number and key were free."""
        if draft.candidate.number != self._count:
            return "number taken"
        if draft.candidate.key in self._keys:
            return "key taken"
        self._keys.add(draft.candidate.key)
        self._count += 1
        return "mine"

    def take_over(self) -> Draft | None:
        """Returns None: no other worker sees this ledger."""
        return None

    def running(self) -> int:
        """Returns how many candidates are not finished."""
        return self._count - len(self._trials)

    def finish(self, trial: Trial) -> bool:
        """Adds a trial."""
        self._trials.append(trial)
        return True

    def release(self, number: int) -> None:
        """Forgets the candidate in flight."""
        assert number == self._count - 1
        self._count -= 1
        finished = {trial.candidate.key for trial in self._trials}
        self._keys &= finished

    def agree(self, name: str, value: float) -> float:
        """Returns the first value that was given for `name`."""
        return self._agreed.setdefault(name, value)

    def agreed(self) -> dict[str, float]:
        """Returns all values that were given first."""
        return dict(self._agreed)
