"""Which trials are better than which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scalenas.search import pareto
from scalenas.search.candidates import Trial
from scalenas.search.objectives import Goal


def cost_of(trial: Trial, goal: Goal) -> float:
    """Returns the figure of a complete trial such that less is better."""
    return goal.cost(trial.values[goal.name])


def costs(trials: Sequence[Trial], goals: Sequence[Goal]) -> pareto.Points:
    """Returns the figures (N, K) of complete trials such that less is better."""
    return np.array([[cost_of(trial, goal) for goal in goals] for trial in trials], dtype=float).reshape(-1, len(goals))


def excess(value: float, upper: float) -> float:
    """Returns by how much a figure is above its limit, relative to the limit; 0 when it keeps it."""
    return max(0.0, value - upper) / (abs(upper) or 1.0)


def violation(trial: Trial, limits: Mapping[str, float]) -> float:
    """Returns by how much a trial is above its limits in all, each relative to its limit; 0 when it keeps them."""
    return sum(excess(trial.values[name], upper) for name, upper in limits.items() if name in trial.values)


def ranked(
    trials: Sequence[Trial], goals: Sequence[Goal], limits: Mapping[str, float], *, count: int
) -> list[list[Trial]]:
    """Returns the best measured trials in fronts, best first, until the fronts hold `count` of them.

    Complete trials come off by Pareto peeling over the goals; every infeasible one is worse than all of them, in the
    order of how much it breaks its limits. Failed trials are left out.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    fronts = [[complete[index] for index in front] for front in pareto.peel(costs(complete, goals), count)]
    missing = count - sum(map(len, fronts))
    if missing > 0:
        broken = [trial for trial in trials if trial.state == "infeasible"]
        broken.sort(key=lambda trial: violation(trial, limits))
        fronts += [[trial] for trial in broken[:missing]]
    return fronts
