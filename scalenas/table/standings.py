"""What a race tells: means with intervals, ranks, and each sampler against each other by a paired test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalenas.table.race import Raced
from scalenas.table.wilcoxon import mean_ranks, signed_rank
from scalenas_runtime.canonical import Json

ROUNDS = 2000
Measure = Literal["final", "anytime"]
# Of one run: the hypervolume after its last candidate, and the mean over all its candidates.
MEASURES: tuple[Measure, ...] = ("final", "anytime")


@dataclass(frozen=True, slots=True)
class Standing:
    """One sampler by one measure: mean over seeds with its 95 % interval (bootstrap over seeds), and mean rank."""

    sampler: str
    measure: Measure
    mean: float
    interval: tuple[float, float]
    rank: float


@dataclass(frozen=True, slots=True)
class Duel:
    """Two samplers by one measure, seed by seed: median of first minus second, seeds won and lost, two-sided p."""

    first: str
    second: str
    measure: Measure
    difference: float
    won: int
    lost: int
    p: float


@dataclass(frozen=True, slots=True)
class Standings:
    """All of it."""

    samplers: tuple[Standing, ...]
    duels: tuple[Duel, ...]

    def to_json(self) -> dict[str, Json]:
        """Returns the standings as JSON values."""
        return {
            "samplers": [{**asdict(each), "interval": list(each.interval)} for each in self.samplers],
            "duels": [asdict(each) for each in self.duels],
        }


def standings(raced: Raced) -> Standings:
    """Returns the standings of a race; 1 is the best rank, and equal values share the mean of theirs."""
    samplers: list[Standing] = []
    duels: list[Duel] = []
    for measure in MEASURES:
        scores = {label: _scores(curves, measure) for label, curves in raced.curves.items()}
        ranks = _ranks(scores)
        for label, values in scores.items():
            low, high = (float(bound[0]) for bound in mean_interval(values[:, np.newaxis]))
            samplers.append(Standing(label, measure, float(values.mean()), (low, high), ranks[label]))
        for first, second in itertools.combinations(scores, 2):
            differences = scores[first] - scores[second]
            found = signed_rank(differences.tolist())
            won, lost = int((differences > 0).sum()), int((differences < 0).sum())
            duels.append(Duel(first, second, measure, float(np.median(differences)), won, lost, found.p))
    return Standings(tuple(samplers), tuple(duels))


def mean_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the 95 % bounds (T,), (T,) of the mean over seeds of values (S, T), by drawing seeds anew."""
    rng = np.random.default_rng(0)
    count = len(values)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=ROUNDS) / count
    low, high = np.quantile(weights @ values, [0.025, 0.975], axis=0)
    return low, high


def _scores(curves: NDArray[np.float64], measure: Measure) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = curves[:, -1] if measure == "final" else curves.mean(axis=1)
    return scores


def _ranks(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    table = np.stack(list(scores.values()))
    ranks = np.stack([mean_ranks(-column) for column in table.T], axis=1)
    return dict(zip(scores, ranks.mean(axis=1).tolist(), strict=True))
