"""Multi-scale topology evolution, the search of ScaleNAS, for any family with genes in groups."""

from __future__ import annotations

from dataclasses import dataclass, asdict
from typing import ClassVar

import numpy as np

from scalenas.genes import check_probability
from scalenas.search.candidates import Trial
from scalenas.search.merit import costs, ranked
from scalenas.search.pareto import crowding, hypervolume
from scalenas.search.samplers.base import Context, Proposal, Sampler
from scalenas.search.samplers.variation import (
    cells,
    check_sizes,
    draw_choices,
    draw_from_cell,
    gene_table,
    mutation_rates,
    vary_choices,
)
from scalenas_runtime.canonical import Json


@dataclass(frozen=True, slots=True)
class TopologySampler(Sampler):
    name: ClassVar[str] = "topology"

    initial: int | None = None
    parents: int | None = None
    crossover: float = 0.25
    mutation: float = 0.1
    depth_mutation: float = 0.1
    offspring: int = 12
    adaptive: bool = True
    cross: float = 1.0
    near: int = 0
    slack: float = 0.0

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal:
        table = gene_table(context)
        measured = [t for t in context.trials if t.state != "failed"]
        budget = context.budget or 500
        initial = self.initial if self.initial is not None else min(1000, max(len(cells(table)), budget // 5))
        if len(measured) < initial:
            return Proposal(draw_from_cell(context, rng), draw_choices(context, rng), "initial")
        count = self.parents if self.parents is not None else min(100, max(10, budget // 20))
        pool = self._parents(context, count)
        if context.rank is None:
            return self._child(context, table, pool, rng)
        return self._chosen(context, pool, [self._child(context, table, pool, rng) for _ in range(self.offspring)])

    def _child(self, context, table, pool, rng):
        first = pool[int(rng.integers(len(pool)))]
        second = pool[int(rng.integers(len(pool)))]
        if self.near and first.state == "complete":
            g = context.goals[0].name
            order = sorted((t for t in pool if t.state == "complete"), key=lambda t: t.values[g])
            at = order.index(first)
            lo, hi = max(0, at - self.near), min(len(order), at + self.near + 1)
            second = order[int(rng.integers(lo, hi))]
        spec = first.spec
        if rng.random() < self.cross:
            spec = context.space.crossover(spec, second.spec, rng, probability=self.crossover)
        top = max(self.mutation, 1 / len(table))
        shrink = np.exp(rng.uniform(np.log(1 / len(table) / top), 0)) if self.adaptive and top * len(table) > 1 else 1.0
        boost = shrink * (1 + 0.5 * context.attempt)
        rates = mutation_rates(
            table,
            min(1, max(self.mutation * boost, 1 / len(table))),
            min(1, max(self.depth_mutation * boost, 1 / len(table))),
        )
        spec = context.space.mutate(spec, rng, rates=rates)
        return Proposal(spec, vary_choices(context, (first, second), rng, crossover=0.25, mutation=0.1), "offspring")

    def _chosen(self, context, pool, children):
        guesses = [context.rank(c.spec, c.choices) for c in children]
        kept = [
            i
            for i, g in enumerate(guesses)
            if all(g.get(n, u) <= u * (1 + self.slack) for n, u in context.limits.items())
        ]
        if not kept:
            over = [sum(max(0, g.get(n, u) - u) for n, u in context.limits.items()) for g in guesses]
            return children[int(np.argmin(over))]
        names = [g.name for g in context.goals]
        if all(n in guesses[i] for i in kept for n in names):
            done = [t for t in context.trials if t.state == "complete"]
            points = costs(done, context.goals)
            ref = points.max(axis=0) + 0.1 * (np.ptp(points, axis=0) + 1e-9)
            gains = [
                self._gain(points, ref, np.array([g.cost(guesses[i][g.name]) for g in context.goals])) for i in kept
            ]
            return children[kept[int(np.argmax(gains))]]
        return children[kept[0]]

    def _gain(self, points, ref, new):
        base = hypervolume(points, ref)
        gain = hypervolume(np.vstack([points, new]), ref) - base
        if gain > 0:
            return gain
        span = np.ptp(points, axis=0) + 1e-9
        return -float(np.min(np.max((new - points) / span, axis=1)))

    def _parents(self, context, count):
        fronts = ranked(context.trials, context.goals, context.limits, count=count)
        pool = []
        for front in fronts:
            if front[0].state == "complete" and len(front) > 2:
                order = np.argsort(-crowding(costs(front, context.goals)), kind="stable")
                front = [front[i] for i in order]
            pool += front
        return pool[:count]

    def options(self):
        return asdict(self)
