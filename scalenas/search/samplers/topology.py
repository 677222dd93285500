"""Multi-scale topology evolution, the search of ScaleNAS, for any family with genes in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from scalenas.genes import check_probability
from scalenas.search.candidates import Trial, figure_key
from scalenas.search.merit import costs, excess, ranked
from scalenas.search.pareto import crowding, front, hypervolume
from scalenas.search.samplers.base import Context, Proposal, Sampler
from scalenas.search.samplers.gene_model import REFIT, GeneModel, Similarity, models
from scalenas.search.samplers.variation import (
    cells,
    check_sizes,
    check_switch,
    check_whole,
    draw_choices,
    draw_from_cell,
    gene_table,
    mutation_rates,
    vary_choices,
)
from scalenas_runtime.canonical import Json


@dataclass(frozen=True, slots=True)
class TopologySampler(Sampler):
    """Evolves topologies: children of Pareto-peeled parents by module crossover, fusion and depth mutation.

    Source: Cheng et al., ScaleNAS: One-Shot Learning of Scale-Aware Representations for Visual Recognition (2020),
    section 3.3. The first candidates come from the family's cells in turn, each a range of depths and odds of a fusion.
    Beyond the paper, depths are mutated too, the number of changes varies from child to child, and several children are
    made for a candidate, of which the one whose predicted figures add most to the front's hypervolume is kept.
    Predictions are the study's where it has a predictor, and otherwise those of a model over genes that is fitted to
    the trials so far. The paper's own way is `offspring=1, spread=False, mutation=0.5, depth_mutation=0` (its code has
    a mutation of 0.2) with `initial` half of the trials; but for generations: parents are chosen anew for every child,
    of all trials so far, no net is measured twice, and nets over a budget are parents where too few keep it.

    Attributes:
        initial: How many candidates come from cells. None: a tenth of the study's trials, each cell at least once, at
            most 1,000.
        parents: How many of the best trials have children. None: a twentieth of the study's trials, 10 to 100.
        crossover: Probability, per module, to take the second parent's.
        mutation: Probability of a change per gene whose choices are no numbers, such as a fusion; 0 changes none.
        depth_mutation: The same for genes of numbers, such as depths.
        spread: The number of changes is drawn between one gene and these shares, evenly on a logarithmic scale, so that
            some children stay close, and grows where children are known already; otherwise the probabilities hold as
            they stand.
        offspring: Children that are made for one candidate; the best by prediction is kept.
        unscreened: Share of the candidates that are taken as they come, so that predictions cannot lock a search in.

    Raises:
        UserError: a size or probability is out of range.
    """

    name: ClassVar[str] = "topology"

    initial: int | None = None
    parents: int | None = None
    crossover: float = 0.25
    mutation: float = 0.1
    depth_mutation: float = 0.1
    spread: bool = True
    offspring: int = 24
    unscreened: float = 0.1
    _fits: dict[tuple[str, ...], dict[str, GeneModel]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        check_sizes(initial=self.initial, parents=self.parents)
        check_whole(offspring=self.offspring)
        check_switch(spread=self.spread)
        for name in ("crossover", "mutation", "depth_mutation", "unscreened"):
            check_probability(name, getattr(self, name))

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal:
        """Returns a candidate from a cell while there are few trials, and the most promising child afterwards."""
        measured = [trial for trial in context.trials if trial.state != "failed"]
        budget = context.budget or 500
        initial = self.initial or min(1000, max(len(cells(gene_table(context))), budget // 10))
        if len(measured) < initial:
            return Proposal(draw_from_cell(context, rng), draw_choices(context, rng), "initial")
        pool = _parents(context, self.parents or min(100, max(10, budget // 20)))
        if self.offspring == 1 or rng.random() < self.unscreened:
            return self._child(context, pool, rng)
        known = {trial.candidate.figure for trial in measured}
        children: dict[str, Proposal] = {}
        for _ in range(self.offspring):
            child = self._child(context, pool, rng)
            children.setdefault(figure_key(context.space.live(child.spec).digest, child.choices), child)
        fresh = [child for key, child in children.items() if key not in known]
        if not fresh:
            return next(iter(children.values()))
        return fresh[_most_promising(context, self._predicted(context, fresh, measured))]

    def options(self) -> dict[str, Json]:
        """Returns the options."""
        return {
            "initial": self.initial,
            "parents": self.parents,
            "crossover": self.crossover,
            "mutation": self.mutation,
            "depth_mutation": self.depth_mutation,
            "spread": self.spread,
            "offspring": self.offspring,
            "unscreened": self.unscreened,
        }

    def _child(self, context: Context, pool: Sequence[Trial], rng: np.random.Generator) -> Proposal:
        table = gene_table(context)
        first, second = (pool[index] for index in rng.permutation(len(pool))[[0, -1]].tolist())
        spec = context.space.crossover(first.spec, second.spec, rng, probability=self.crossover)
        switch, depth = self.mutation, self.depth_mutation
        if self.spread:
            share, least = rng.random(), 1 / len(table)
            # Another attempt at a known key goes further.
            further = 1 + 0.5 * context.attempt
            switch, depth = (further * _between(least, rate, share) if rate else 0.0 for rate in (switch, depth))
        spec = context.space.mutate(spec, rng, rates=mutation_rates(table, switch, depth))
        return Proposal(spec, vary_choices(context, (first, second), rng, crossover=0.25, mutation=0.1), "offspring")

    def _predicted(
        self, context: Context, children: Sequence[Proposal], measured: Sequence[Trial]
    ) -> list[dict[str, float]]:
        """Returns the predicted figures of each child: the study's own predictions go before the model over genes."""
        guesses = [dict(context.rank(child.spec, child.choices)) if context.rank else {} for child in children]
        wanted = {*context.limits, *(goal.name for goal in context.goals)}
        if all(wanted <= set(guess) for guess in guesses):
            return guesses
        similarity = Similarity(gene_table(context), context)
        # Some of the newest trials wait for the next fit: how many follows from the trials alone.
        seen = measured[: len(measured) // REFIT * REFIT]
        key = tuple(trial.candidate.key for trial in seen)
        if key not in self._fits:
            self._fits.clear()
            self._fits[key] = models(context, similarity, seen)
        places = [similarity.place(child.spec, [child.choices[name] for name in context.choices]) for child in children]
        for name, model in self._fits[key].items():
            for guess, value in zip(guesses, model.predict(places).tolist(), strict=True):
                guess.setdefault(name, value)
        return guesses


def _between(least: float, most: float, share: float) -> float:
    """Returns the value at a share, 0..1, of the way from `least` to `most` on a logarithmic scale."""
    return float(least * (max(least, most) / least) ** share)


def _parents(context: Context, count: int) -> list[Trial]:
    """Returns the best trials, front after front; of the last front those that stand alone."""
    pool: list[Trial] = []
    for peeled in ranked(context.trials, context.goals, context.limits, count=count):
        if peeled[0].state == "complete":
            order = np.argsort(-crowding(costs(peeled, context.goals)), kind="stable")
            peeled = [peeled[index] for index in order.tolist()]
        pool += peeled
    return pool[:count]


def _most_promising(context: Context, guesses: Sequence[dict[str, float]]) -> int:
    """Returns the index of the child that adds most to the front, of those that are predicted to keep the limits."""
    over = [
        sum(excess(guess[name], upper) for name, upper in context.limits.items() if name in guess) for guess in guesses
    ]
    kept = [index for index, above in enumerate(over) if above <= 0]
    if not kept:
        return int(np.argmin(over))
    done = [trial for trial in context.trials if trial.state == "complete"]
    if not done or not all(goal.name in guesses[index] for goal in context.goals for index in kept):
        return kept[0]
    points = costs(done, context.goals)
    span = np.ptp(points, axis=0) + 1e-12
    limit = points.max(axis=0) + 0.1 * span
    best = points[front(points)]
    children = np.array([[goal.cost(guesses[index][goal.name]) for goal in context.goals] for index in kept])
    whole = hypervolume(best, limit)
    gains = []
    for child in children:
        gain = hypervolume(np.vstack([best, child]), limit) - whole
        # Behind the front, how far behind decides.
        gains.append(gain if gain > 0 else -float(np.min(np.max((child - best) / span, axis=1))))
    return kept[int(np.argmax(gains))]
