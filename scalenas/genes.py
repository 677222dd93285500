"""Gene tables: the atoms of a search space, and the draws that every family derives from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scalenas_runtime.errors import UserError

Scalar = str | int | float | bool
Values = Sequence[Scalar]


@dataclass(frozen=True, slots=True)
class Gene:
    """One choice of a family.

    Attributes:
        name: How errors and tables call it, such as `stage3.1.depth[2]`.
        choices: Allowed values, the smallest net's first and the largest's last.
        group: Genes of one group stay together in crossover; a module, for example.
        kind: What groups and mutation rates speak of, such as `depth`.
    """

    name: str
    choices: tuple[Scalar, ...]
    group: str = ""
    kind: str = ""

    @property
    def numeric(self) -> bool:
        """Whether all choices are numbers, such as depths, so that some lie closer together than others."""
        return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in self.choices)

    def check(self, value: object) -> Scalar:
        """Returns `value`.

        Raises:
            UserError: it is none of the choices; the text names the gene and the choices.
        """
        for choice in self.choices:
            if choice == value and type(choice) is type(value):
                return choice
        allowed = ", ".join(repr(choice) for choice in self.choices)
        raise UserError(f"gene {self.name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class Group:
    """A distribution to sample subnets from.

    Attributes:
        name: How `SearchSpace.sample(group=...)` calls it.
        odds: (kind of gene, its ((value, weight), ...)) pairs; weights need not sum to one, values without a weight
            are not drawn. Kinds that are not here are drawn uniformly from all choices.
    """

    name: str
    odds: tuple[tuple[str, tuple[tuple[Scalar, float], ...]], ...] = ()


UNIFORM = Group("uniform")


class Sampler:
    """Draws gene values of one table from one group."""

    def __init__(self, table: Sequence[Gene], group: Group = UNIFORM) -> None:
        odds = dict(group.odds)
        width = max((len(gene.choices) for gene in table), default=1)
        self._rows = np.arange(len(table))
        self._choices = np.empty((len(table), width), dtype=object)
        self._limits = np.ones((len(table), width))
        for row, gene in enumerate(table):
            weights = _weights(gene, dict(odds[gene.kind]) if gene.kind in odds else None, group.name)
            self._choices[row, : len(gene.choices)] = gene.choices
            self._limits[row, : len(gene.choices)] = np.cumsum(weights) / np.cumsum(weights)[-1]
        self._limits = self._limits[:, :-1]

    def draw(self, rng: np.random.Generator) -> list[Scalar]:
        """Returns one value per gene, in the table's order, each drawn on its own."""
        numbers = rng.random(len(self._rows))
        index = (numbers[:, None] >= self._limits).sum(axis=1)
        values: list[Scalar] = self._choices[self._rows, index].tolist()
        return values


def mutated(
    table: Sequence[Gene], values: Values, rng: np.random.Generator, *, rates: npt.NDArray[np.float64]
) -> list[Scalar]:
    """Returns `values` where each gene took another of its choices with its own probability.

    Args:
        table: The genes.
        values: One value per gene.
        rng: Where the randomness comes from; two numbers per gene are drawn whatever happens.
        rates: Probability of a change, per gene (N,).
    """
    hit = rng.random(len(table)) < rates
    pick = rng.random(len(table))
    result = list(values)
    for row in np.flatnonzero(hit).tolist():
        others = [choice for choice in table[row].choices if choice != values[row]]
        if others:
            result[row] = others[int(pick[row] * len(others))]
    return result


def crossed(
    table: Sequence[Gene], pair: tuple[Values, Values], rng: np.random.Generator, *, probability: float
) -> list[Scalar]:
    """Returns the first parent's values, where each group of genes comes from the second with `probability`."""
    groups = list(dict.fromkeys(gene.group for gene in table))
    swapped = dict(zip(groups, rng.random(len(groups)) < probability, strict=True))
    return [pair[int(swapped[gene.group])][row] for row, gene in enumerate(table)]


def check_probability(name: str, value: float) -> float:
    """Returns `value`.

    Raises:
        UserError: it is outside 0..1, or no number.
    """
    if not (isinstance(value, int | float) and 0 <= value <= 1):
        raise UserError(f"{name} is {value!r}; a probability is in 0..1")
    return value


def _weights(gene: Gene, odds: Mapping[Scalar, float] | None, group: str) -> list[float]:
    if odds is None:
        return [1.0] * len(gene.choices)
    weights = [odds.get(choice, 0.0) for choice in gene.choices]
    if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise UserError(f"group {group!r} gives none of the choices {list(gene.choices)} of {gene.name} a weight")
    return weights
