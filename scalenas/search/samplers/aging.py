"""Aging evolution: tournaments among the youngest, and nothing but mutation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scalenas.genes import check_probability
from scalenas.search.merit import ranked
from scalenas.search.samplers.base import Context, Proposal, Sampler
from scalenas.search.samplers.variation import (
    check_sizes,
    check_whole,
    draw_choices,
    gene_table,
    mutation_rates,
    vary_choices,
)
from scalenas_runtime.canonical import Json


@dataclass(frozen=True, slots=True)
class AgingSampler(Sampler):
    """Mutates the best of a random sample of the population, which is the trials that finished last.

    Source: Real et al., Regularized Evolution for Image Classifier Architecture Search (2019). With several goals the
    best of a sample is one of its Pareto front.

    Attributes:
        population: Size of the population; as many trials are drawn uniformly at first. None: a fifth of the study's
            trials, at most 100.
        sample: How many of the population compete to be the parent.
        mutation: Share of the genes that change on average; at least one is tried.

    Raises:
        UserError: a size or the share is out of range.
    """

    name: ClassVar[str] = "aging"

    population: int | None = None
    sample: int = 10
    mutation: float = 0.02

    def __post_init__(self) -> None:
        check_sizes(population=self.population)
        check_whole(sample=self.sample)
        check_probability("mutation", self.mutation)

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal:
        """Returns a mutated parent, or a uniform draw while the population is not full."""
        size = self.population or max(10, min(100, (context.budget or 500) // 5))
        alive = [trial for trial in context.trials if trial.state != "failed"][-size:]
        if len(alive) < size:
            spec = context.space.sample(rng, settings=context.settings, inputs=context.inputs)
            return Proposal(spec, draw_choices(context, rng), "initial")
        drawn = rng.choice(len(alive), size=min(self.sample, len(alive)), replace=False)
        best = ranked([alive[index] for index in drawn.tolist()], context.goals, context.limits, count=1)[0]
        parent = best[int(rng.integers(len(best)))]
        table = gene_table(context)
        rate = max(self.mutation, 1 / len(table)) * (1 + context.attempt)
        spec = context.space.mutate(parent.spec, rng, rates=mutation_rates(table, rate, rate))
        choices = vary_choices(context, (parent, parent), rng, crossover=0.0, mutation=0.1)
        return Proposal(spec, choices, "mutation")

    def options(self) -> dict[str, Json]:
        """Returns the options."""
        return {"population": self.population, "sample": self.sample, "mutation": self.mutation}
