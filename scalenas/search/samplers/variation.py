"""What evolution needs besides a family's own mutate and crossover: rates, cells to start from, deployment choices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from scalenas.genes import Gene, Scalar
from scalenas.search.candidates import Trial
from scalenas.search.samplers.base import Context
from scalenas.spec import SubnetSpec
from scalenas_runtime.errors import UserError

SWITCH_ODDS = (0.2, 0.35, 0.5, 0.65, 0.8)
_MOST_CELLS = 64


def gene_table(context: Context) -> tuple[Gene, ...]:
    """Returns the genes that are searched."""
    return context.space.gene_table(context.space.settings(context.settings))


def mutation_rates(table: Sequence[Gene], switch: float, depth: float) -> dict[str, float]:
    """Returns the probability of a change by kind of gene.

    Args:
        table: The genes.
        switch: For kinds whose choices are no numbers, such as a fusion that is there or not.
        depth: For kinds whose choices are numbers, such as depths.
    """
    numeric: dict[str, bool] = {}
    for gene in table:
        numeric[gene.kind] = numeric.get(gene.kind, True) and gene.numeric
    return {kind: min(1.0, depth if numbers else switch) for kind, numbers in numeric.items()}


def cells(table: Sequence[Gene]) -> list[dict[str, float]]:
    """Returns the cells that starting candidates are drawn from, each a position in 0..1 for every kind of gene.

    For a kind of two choices the position is the odds of the larger one; for a kind of more it says which pair of
    neighbouring choices is drawn from, the smallest at 0. A cell is one combination over all kinds. For ScaleNAS these
    are the 15 of its authors' code: five odds of a fusion x three pairs of depths.
    """
    axes: dict[str, tuple[float, ...]] = {}
    for kind in dict.fromkeys(gene.kind for gene in table):
        widest = max(len(gene.choices) for gene in table if gene.kind == kind)
        pairs = widest - 1
        axes[kind] = SWITCH_ODDS if widest <= 2 else tuple(index / max(1, pairs - 1) for index in range(pairs))
    if math.prod(map(len, axes.values())) <= _MOST_CELLS:
        return [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*axes.values())]
    # Too many kinds for every combination: all kinds move from small to large together.
    return [{kind: axis[round(at * (len(axis) - 1))] for kind, axis in axes.items()} for at in SWITCH_ODDS]


def draw_from_cell(context: Context, rng: np.random.Generator) -> SubnetSpec:
    """Returns a random spec from the cell whose turn it is: neighbouring trials visit distant cells."""
    table = gene_table(context)
    all_cells = cells(table)
    stride = max(1, round(0.618 * len(all_cells)))
    while math.gcd(stride, len(all_cells)) > 1:
        stride += 1
    cell = all_cells[context.number * stride % len(all_cells)]
    numbers = rng.random(len(table)).tolist()
    values = [_drawn(gene, cell[gene.kind], number) for gene, number in zip(table, numbers, strict=True)]
    return context.space.make(values, settings=context.settings, inputs=context.inputs)


def draw_choices(context: Context, rng: np.random.Generator) -> dict[str, str]:
    """Returns a uniform choice of deployment."""
    return {name: values[int(rng.integers(len(values)))] for name, values in context.choices.items()}


def vary_choices(
    context: Context, parents: tuple[Trial, Trial], rng: np.random.Generator, *, crossover: float, mutation: float
) -> dict[str, str]:
    """Returns the first parent's choices of deployment, some from the second, some drawn anew.

    Args:
        context: What is searched.
        parents: The parents.
        rng: Where the randomness comes from.
        crossover: Probability, per choice, to take the second's.
        mutation: Probability, per choice, to draw.
    """
    result = {}
    for name, values in context.choices.items():
        parent = parents[int(rng.random() < crossover)]
        drawn = values[int(rng.integers(len(values)))]
        result[name] = drawn if rng.random() < mutation else parent.choices[name]
    return result


def check_sizes(*, least: int = 1, **sizes: int | None) -> None:
    """Accepts whole numbers from `least`, and None.

    Raises:
        UserError: a size is smaller, or no whole number.
    """
    check_whole(least=least, **{name: value for name, value in sizes.items() if value is not None})


def check_whole(*, least: int = 1, **sizes: object) -> None:
    """Accepts whole numbers from `least`.

    Raises:
        UserError: a size is smaller, or no whole number.
    """
    for name, value in sizes.items():
        if not (isinstance(value, int) and not isinstance(value, bool) and value >= least):
            raise UserError(f"{name} is {value!r}; needed is a whole number from {least}")


def check_switch(**switches: object) -> None:
    """Accepts true and false.

    Raises:
        UserError: a switch is something else.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise UserError(f"{name} is {value!r}; needed is true or false")


def _drawn(gene: Gene, position: float, number: float) -> Scalar:
    if len(gene.choices) <= 2:
        return gene.choices[-1] if number < position else gene.choices[0]
    low = round(position * (len(gene.choices) - 2))
    return gene.choices[low + int(number >= 0.5)]
