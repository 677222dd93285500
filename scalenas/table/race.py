"""A race of samplers over one table: the same seeds for all, and the hypervolume after every candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from scalenas.search.options import SearchOptions
from scalenas.search.pareto import dominates, hypervolume
from scalenas.search.run import search
from scalenas.search.samplers import get_sampler
from scalenas.table.table import Table, load
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

Curves = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Race:
    """Who races, and over what.

    Attributes:
        table: A table's file or name.
        samplers: Options of each sampler by its name, or by a label of the form `name#1` for a second set of options.
        seeds: Numbers of the runs; every sampler runs each of them.
        n_trials: Candidates a run.
        latency: Which latency, by its target; the table's first if None.
        noise: Figures that samplers see carry the noise of a measurement; the hypervolume is always of the means.
        reference: (milliseconds, accuracy) that hypervolumes reach to; the table's own point if None.

    Raises:
        UserError: no sampler, no seed, one seed twice, or no candidates.
    """

    table: str
    samplers: Mapping[str, Mapping[str, Json]]
    seeds: Sequence[int] = tuple(range(30))
    n_trials: int = 200
    latency: str | None = None
    noise: bool = True
    reference: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.samplers:
            raise UserError("a race needs at least one sampler, got none")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise UserError(f"a race needs different seeds from 0 on, at least one; got {list(self.seeds)}")
        if self.n_trials < 1:
            raise UserError(f"n_trials is {self.n_trials}; needed is a whole number from 1")
        for label, options in self.samplers.items():
            get_sampler(sampler_name(label), **options)


@dataclass(frozen=True, slots=True)
class Raced:
    """What a race gave.

    Attributes:
        race: Who raced.
        curves: By sampler (S, T): for each seed the hypervolume after each candidate, as a share of the true front's.
        reference: (milliseconds, accuracy) of the reference point.
        front: Members of the true front.
        columns: Names of the two figures.
    """

    race: Race
    curves: Mapping[str, Curves]
    reference: tuple[float, float]
    front: int
    columns: tuple[str, str]


@dataclass(frozen=True)
class Course:
    """The points of all members, and what hypervolumes are measured against. Less is better."""

    table: Table
    points: NDArray[np.float64]
    reference: NDArray[np.float64]
    whole: float
    front: int
    columns: tuple[str, str]


def run_race(race: Race, *, jobs: int = 1, progress: Callable[[str, int], object] | None = None) -> Raced:
    """Returns the curves of all samplers.

    Args:
        race: Who races.
        jobs: Processes that share the runs; the result does not depend on it.
        progress: Told sampler and seed of each run that is done.

    Raises:
        UserError: no such table or latency, or a reference point that no member is better than.
    """
    course = open_course(race.table, race.latency, race.reference)
    tasks = [(race, label, seed) for label in race.samplers for seed in race.seeds]
    curves = {label: np.zeros((len(race.seeds), race.n_trials)) for label in race.samplers}
    for (_, label, seed), curve in zip(tasks, _curves(tasks, jobs), strict=True):
        curves[label][list(race.seeds).index(seed)] = curve
        if progress is not None:
            progress(label, seed)
    milliseconds, accuracy = float(course.reference[0]), -float(course.reference[1])
    return Raced(race, curves, (milliseconds, accuracy), course.front, course.columns)


@lru_cache(maxsize=4)
def open_course(table: str, latency: str | None, reference: tuple[float, float] | None) -> Course:
    """Returns the points that a race runs over.

    Raises:
        UserError: no such table or latency, or a reference point that no member is better than.
    """
    opened = load(Path(table)) if Path(table).is_file() else load(table)
    goals = opened.goals(latency)
    points = opened.points(goals)
    limit = opened.reference(goals) if reference is None else np.array([reference[0], -reference[1]])
    best = opened.front(goals)
    whole = hypervolume(points[best], limit)
    if not whole > 0:
        low, high = points[best].min(axis=0), points[best].max(axis=0)
        raise UserError(
            f"no member of {opened.name} is better than the reference point {limit[0]:g} ms, {-limit[1]:g}; the front "
            f"reaches from {low[0]:.4g} ms, {-high[1]:.4g} to {high[0]:.4g} ms, {-low[1]:.4g}"
        )
    return Course(opened, points, limit, whole, len(best), (goals[0].name, goals[1].name))


def run_once(race: Race, label: str, seed: int) -> Curves:
    """Returns the curve (T,) of one sampler with one seed; after the last new candidate it stays level."""
    course = open_course(race.table, race.latency, race.reference)
    table = course.table
    objectives = table.objectives(race.latency, seed=seed if race.noise else None)
    options = SearchOptions(
        settings=table.record.settings,
        inputs=table.record.inputs,
        seed=seed,
        n_trials=race.n_trials,
    )
    sampler = get_sampler(sampler_name(label), **race.samplers[label])
    study = search(table.space, objectives, (), sampler, None, options=options)
    visited = [table.space.index(trial.spec) for trial in study.trials if trial.state == "complete"]
    return anytime(course.points[visited], course.reference, count=race.n_trials) / course.whole


def anytime(points: NDArray[np.float64], reference: NDArray[np.float64], *, count: int) -> Curves:
    """Returns the hypervolume (count,) after each point; where there are fewer points, the last value goes on."""
    curve = np.zeros(count)
    front: list[NDArray[np.float64]] = []
    volume = 0.0
    for place in range(count):
        if place < len(points) and not any((one <= points[place]).all() for one in front):
            front = [one for one in front if not dominates(points[place], one)] + [points[place]]
            volume = hypervolume(np.array(front), reference)
        curve[place] = volume
    return curve


def sampler_name(label: str) -> str:
    """Returns the name of the sampler that a label means: what stands before `#`."""
    return label.partition("#")[0]


def keep_to_one_thread() -> None:
    """Keeps the linear algebra of this process to one thread, for processes that share the cores.

    Matrices of predictors are too small for threads, and threads of several processes wait for each other's cores.
    Unlike threadpoolctl's own function, this one comes with NumPy, whose threads it is to find.
    """
    threadpool_limits(1)


def _curves(tasks: Sequence[tuple[Race, str, int]], jobs: int) -> Iterator[Curves]:
    if jobs <= 1:
        with threadpool_limits(1):
            yield from (run_once(*task) for task in tasks)
        return
    races, labels, seeds = zip(*tasks, strict=True)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=keep_to_one_thread) as pool:
        yield from pool.map(run_once, races, labels, seeds)
