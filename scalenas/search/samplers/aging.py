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
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json

# Known children until one more gene changes.
_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class AgingSampler(Sampler):
    """Mutates the best of a random sample of the population, which is the trials that finished last.

    Source: Real et al., Regularized Evolution for Image Classifier Architecture Search (2019). With several goals the
    best of a sample is one of its Pareto front.

    Attributes:
        population: Size of the population; as many trials are drawn uniformly at first. None: a fifth of the study's
            trials, at most 100.
        sample: How many of the population compete to be the parent.
        mutation: Share of the genes that change on average. None: one gene changes, as in the source, and one more
            after every tenth child that was known already.

    Raises:
        UserError: a size or the share is out of range.
    """

    name: ClassVar[str] = "aging"

    population: int | None = None
    sample: int = 10
    mutation: float | None = None

    def __post_init__(self) -> None:
        check_sizes(population=self.population)
        check_whole(sample=self.sample)
        if self.mutation is not None:
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
        if self.mutation is None:
            spec = _changed(context, parent.spec, rng, count=1 + context.attempt // _PATIENCE)
        else:
            rate = self.mutation * (1 + context.attempt)
            spec = context.space.mutate(parent.spec, rng, rates=mutation_rates(gene_table(context), rate, rate))
        choices = vary_choices(context, (parent, parent), rng, crossover=0.0, mutation=0.1)
        return Proposal(spec, choices, "mutation")

    def options(self) -> dict[str, Json]:
        """Returns the options."""
        return {"population": self.population, "sample": self.sample, "mutation": self.mutation}


def _changed(context: Context, spec: SubnetSpec, rng: np.random.Generator, *, count: int) -> SubnetSpec:
    """Returns a spec with another choice for `count` of its genes."""
    table = gene_table(context)
    values = list(context.space.read_genes(context.space.settings(spec.settings), spec.genes))
    several = [index for index, gene in enumerate(table) if len(gene.choices) > 1]
    for index in rng.choice(several, size=min(count, len(several)), replace=False).tolist():
        others = [choice for choice in table[index].choices if choice != values[index]]
        values[index] = others[int(rng.integers(len(others)))]
    return context.space.make(values, settings=context.settings, inputs=context.inputs)
