"""`Sampler`: how a search chooses its next candidate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from scalenas.search.candidates import Trial
from scalenas.search.objectives import Goal
from scalenas.space import Inputs, SearchSpace, Settings
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json

Rank = Callable[[SubnetSpec, Mapping[str, str]], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate that a sampler suggests.

    Attributes:
        spec: The subnet.
        choices: Choices of deployment; one value for each of the context's.
        origin: One word on where it came from, such as `initial` or `offspring`.
    """

    spec: SubnetSpec
    choices: Mapping[str, str] = field(default_factory=dict)
    origin: str = "sampled"


@dataclass(frozen=True, slots=True)
class Context:
    """All that a sampler may know.

    Attributes:
        space: The family.
        settings: Settings that specs have.
        inputs: Input shapes that specs have, None for the family's own.
        choices: Choices of deployment with their allowed values; empty when there are none.
        trials: Finished trials, by number.
        goals: What is to be improved.
        limits: Upper limit by name of the constraint.
        number: Number of the trial that is proposed.
        rank: Gives predicted figures by name for a spec and its choices; None while there is no predictor.
        budget: How many trials the study was to have when it was made, None if only time limited it.
        attempt: How often this proposal was refused already because its key is known.
    """

    space: SearchSpace
    settings: Settings | None
    inputs: Inputs | None
    choices: Mapping[str, tuple[str, ...]]
    trials: Sequence[Trial]
    goals: Sequence[Goal]
    limits: Mapping[str, float]
    number: int
    rank: Rank | None = None
    budget: int | None = None
    attempt: int = 0


class Sampler(ABC):
    """Proposes candidates.

    A sampler holds options and no state: a proposal is a function of context and random numbers, so a search that was
    killed goes on as if nothing had happened. One that keeps something for speed must give the same proposals
    without it. Other packages add samplers by an entry point in the group `scalenas.samplers` that names the class.

    Attributes:
        name: What `get_sampler` calls it.
    """

    name: ClassVar[str]

    @abstractmethod
    def propose(self, context: Context, rng: np.random.Generator) -> Proposal:
        """Returns the next candidate; it need not be new, the search asks again when the key is known."""

    def options(self) -> dict[str, Json]:
        """Returns the options, for the study's record; a study resumes only with the same ones."""
        return {}
