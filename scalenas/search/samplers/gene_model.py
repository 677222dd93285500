"""A model of a study's figures over genes: evolution screens offspring with it where nothing else predicts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalenas.genes import Gene
from scalenas.search.candidates import Trial
from scalenas.search.samplers.base import Context
from scalenas.spec import SubnetSpec

Array = NDArray[np.float64]

# Trials that a fit looks at, and how many new ones come before the next fit: a fit takes some ten milliseconds.
WINDOW = 300
REFIT = 5
LEAST = 10
_DEGREES = (1, 2, 4)
_STRENGTHS = np.logspace(-4, 1, 11)


@dataclass(frozen=True, slots=True)
class Similarity:
    """Places of specs, such that distance 0 means equal genes and 1 different in everything.

    A gene of numbers counts by how far its values are apart, halved with whether they differ at all; other genes by
    the latter alone.
    """

    table: tuple[Gene, ...]
    context: Context

    def place(self, spec: SubnetSpec, choices: Sequence[str]) -> tuple[Array, Array]:
        """Returns codes of all genes and choices (G,), and positions in 0..1 (O,) of those that are numbers."""
        space = self.context.space
        values = space.read_genes(space.settings(spec.settings), spec.genes)
        codes = [gene.choices.index(value) for gene, value in zip(self.table, values, strict=True)]
        positions = [
            code / (len(gene.choices) - 1)
            for gene, code in zip(self.table, codes, strict=True)
            if gene.numeric and len(gene.choices) > 2
        ]
        extra = [
            self.context.choices[name].index(value) for name, value in zip(self.context.choices, choices, strict=True)
        ]
        return np.array([*codes, *extra], float), np.array(positions, float)


class GeneModel:
    """Kernel ridge regression of one figure: powers of the share of genes in which two nets agree.

    The first power is a model of main effects, higher ones add interactions; power and strength are those of the least
    error when each trial in turn is left out.
    """

    def __init__(self, places: Sequence[tuple[Array, Array]], values: Sequence[float]) -> None:
        self._codes = np.array([codes for codes, _ in places])
        self._positions = np.array([positions for _, positions in places])
        given = np.array(values, float)
        self._mean = float(given.mean())
        self._degree, self._weights = _least_error(self._agreement(places), given - self._mean)

    def predict(self, places: Sequence[tuple[Array, Array]]) -> Array:
        """Returns the predicted figures (M,)."""
        return np.asarray(self._mean + self._agreement(places) ** self._degree @ self._weights)

    def _agreement(self, places: Sequence[tuple[Array, Array]]) -> Array:
        codes = np.array([each for each, _ in places])
        positions = np.array([each for _, each in places])
        different = (codes[:, None, :] != self._codes[None]).sum(axis=2).astype(float)
        if positions.shape[1]:
            far = np.abs(positions[:, None, :] - self._positions[None])
            different += 0.5 * (far - (far > 0)).sum(axis=2)
        return np.asarray(1 - different / max(1, codes.shape[1]))


def _least_error(agreement: Array, values: Array) -> tuple[int, Array]:
    best, chosen = np.inf, (_DEGREES[0], np.zeros(len(values)))
    for degree in _DEGREES:
        sizes, vectors = np.linalg.eigh(agreement**degree)
        sizes = np.maximum(sizes, 0.0)
        turned = vectors.T @ values
        for strength in _STRENGTHS * float(sizes.sum()) / len(values):
            shrunk = 1 / (sizes + strength)
            weights = vectors @ (shrunk * turned)
            # The exact residual of a row that is left out is its weight over the inverse's diagonal.
            error = float(np.mean((weights / ((vectors**2) @ shrunk)) ** 2))
            if error < best:
                best, chosen = error, (degree, weights)
    return chosen


def models(context: Context, similarity: Similarity, trials: Sequence[Trial]) -> dict[str, GeneModel]:
    """Returns a model of every goal and limit that enough of `trials` have a figure of, by name."""
    recent = [trial for trial in trials if trial.values][-WINDOW:]
    places = [similarity.place(trial.spec, [trial.choices[name] for name in context.choices]) for trial in recent]
    found = {}
    for name in dict.fromkeys([*context.limits, *(goal.name for goal in context.goals)]):
        rows = [row for row, trial in enumerate(recent) if name in trial.values]
        if len(rows) >= LEAST:
            found[name] = GeneModel([places[row] for row in rows], [recent[row].values[name] for row in rows])
    return found
