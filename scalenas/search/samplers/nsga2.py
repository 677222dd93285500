"""Optuna's NSGA-II behind the sampler interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scalenas.genes import Scalar, check_probability
from scalenas.search.candidates import Trial
from scalenas.search.merit import violation
from scalenas.search.objectives import Goal
from scalenas.search.samplers.base import Context, Proposal, Sampler
from scalenas.search.samplers.variation import check_sizes, gene_table
from scalenas.search.storage import quiet_optuna
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import missing_extra

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import NSGAIISampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

CHOICE = "choice:"


@dataclass(frozen=True, slots=True)
class Nsga2Sampler(Sampler):
    """Optuna's NSGA-II with every gene as a categorical parameter.

    The parameters live in a study in memory that is made from the finished trials; the user's storage never sees them.
    A candidate that breaks a limit stands behind all that keep it; what was not measured of it counts as the worst
    seen.

    Attributes:
        population: Size of a generation. None: a tenth of the study's trials, 10 to 50.
        crossover: Probability that a child has two parents.
        swapping: Probability, per gene, to take the second parent's.
        mutation: Probability, per gene, to be drawn anew; None: one over the number of genes.

    Raises:
        UserError: a size or probability is out of range.
    """

    name: ClassVar[str] = "nsga2"

    population: int | None = None
    crossover: float = 0.9
    swapping: float = 0.5
    mutation: float | None = None
    _mirror: list[_Mirror] = field(default_factory=list, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_sizes(least=2, population=self.population)
        for name in ("crossover", "swapping"):
            check_probability(name, getattr(self, name))
        if self.mutation is not None:
            check_probability("mutation", self.mutation)

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal:
        """Returns what NSGA-II asks for next: a uniform draw in the first generation, a child afterwards."""
        size = self.population or min(50, max(10, (context.budget or 500) // 10))
        # Making Optuna's trials anew for every proposal would take seconds; the mirror holds nothing but the trials.
        if not self._mirror or not self._mirror[0].reflects(context):
            self._mirror[:] = [_Mirror(context)]
        mirror = self._mirror[0]
        mirror.add(context.trials, size)
        values = mirror.ask(
            population_size=size,
            crossover_prob=self.crossover,
            swapping_prob=self.swapping,
            mutation_prob=self.mutation,
            seed=int(rng.integers(2**31)),
        )
        table = gene_table(context)
        spec = context.space.make(
            [values[gene.name] for gene in table], settings=context.settings, inputs=context.inputs
        )
        choices = {name: str(values[CHOICE + name]) for name in context.choices}
        return Proposal(spec, choices, "initial" if mirror.generations == 0 else "offspring")

    def options(self) -> dict[str, Json]:
        """Returns the options."""
        return {
            "population": self.population,
            "crossover": self.crossover,
            "swapping": self.swapping,
            "mutation": self.mutation,
        }


class _Mirror:
    """An Optuna study in memory that holds the trials of a context."""

    def __init__(self, context: Context) -> None:
        try:
            import optuna
            from optuna.distributions import CategoricalDistribution
            from optuna.study import StudyDirection
        except ImportError:
            raise missing_extra("optuna", "search") from None

        self._table = gene_table(context)
        self._context = context
        self._space: dict[str, BaseDistribution] = {
            gene.name: CategoricalDistribution(gene.choices) for gene in self._table
        }
        self._space |= {CHOICE + name: CategoricalDistribution(values) for name, values in context.choices.items()}
        with quiet_optuna():
            self._study = optuna.create_study(
                directions=[StudyDirection[goal.direction.upper()] for goal in context.goals],
                storage=optuna.storages.InMemoryStorage(),
            )
        self._sampler = _sampler_class(self._space)
        # Optuna gives each trial its generation when it is asked for; these trials come from elsewhere.
        self._generation_key = self._sampler._get_generation_key()
        self._trials: list[Trial] = []
        self._added = 0
        self.generations = 0
        self._worst: dict[str, float] = {}

    def reflects(self, context: Context) -> bool:
        """Returns whether the mirrored trials are the first ones of `context`."""
        same = (
            context.space is self._context.space
            and context.settings == self._context.settings
            and context.goals == self._context.goals
            and context.choices == self._context.choices
            and len(context.trials) >= len(self._trials)
        )
        return same and all(one is other for one, other in zip(context.trials, self._trials, strict=False))

    def add(self, trials: Sequence[Trial], population: int) -> None:
        """Adds the trials that are new; failed ones tell nothing."""
        import optuna

        for trial in trials[len(self._trials) :]:
            self._trials.append(trial)
            if trial.state == "failed":
                continue
            attributes: dict[str, Any] = {self._generation_key: self._added // population}
            if self._context.limits:
                attributes["constraints"] = [violation(trial, self._context.limits)]
            self._study.add_trial(
                optuna.trial.create_trial(
                    values=[self._value(trial, goal) for goal in self._context.goals],
                    params=self._parameters(trial),
                    distributions=self._space,
                    system_attrs=attributes,
                )
            )
            self._added += 1
        self.generations = self._added // population

    def ask(self, **options: Any) -> dict[str, Scalar]:
        """Returns the values of all parameters that NSGA-II with these options gives."""
        import optuna

        self._study.sampler = self._sampler(**options)
        trial = self._study.ask(self._space)
        values: dict[str, Scalar] = dict(trial.params)
        # Only complete trials count for NSGA-II.
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return values

    def _value(self, trial: Trial, goal: Goal) -> float:
        value = trial.values.get(goal.name)
        if value is None:
            return self._worst.get(goal.name, 0.0)
        self._worst[goal.name] = max(value, self._worst.get(goal.name, value), key=goal.cost)
        return value

    def _parameters(self, trial: Trial) -> dict[str, Scalar]:
        space = self._context.space
        values = space.read_genes(space.settings(trial.spec.settings), trial.spec.genes)
        result = {gene.name: value for gene, value in zip(self._table, values, strict=True)}
        return result | {CHOICE + name: value for name, value in trial.choices.items()}


def _sampler_class(space: Mapping[str, BaseDistribution]) -> type[NSGAIISampler]:
    """Returns Optuna's sampler with a known search space: finding it in all trials would take longer and longer."""
    from optuna.samplers import NSGAIISampler

    class KnownSpace(NSGAIISampler):
        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            return {name: distribution for name, distribution in space.items() if not distribution.single()}

        def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
            # Optuna gives another order the first time than from its cache, which a killed search starts without.
            return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)

    return KnownSpace
