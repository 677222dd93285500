"""Pareto dominance: fronts, peeling, and the volume that a front dominates. Less is better throughout."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def dominates(first: ArrayLike, second: ArrayLike) -> bool:
    """Returns whether `first` is nowhere worse and somewhere better than `second`."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return bool((a <= b).all() and (a < b).any())


def front(points: ArrayLike) -> list[int]:
    """Returns the indices, ascending, of the points that none dominates; equal points stay together.

    Args:
        points: Points (N, K).
    """
    fronts = peel(points, 1)
    return fronts[0] if fronts else []


def peel(points: ArrayLike, count: int | None = None) -> list[list[int]]:
    """Returns the fronts that come off one after the other, as indices, until they hold `count` points (all if None).

    Args:
        points: Points (N, K).
        count: How many points are enough; the last front is given whole.
    """
    table = _table(points)
    if not len(table):
        return []
    # In lexicographic order, whatever dominates a point stands before it.
    distinct, member = np.unique(table, axis=0, return_inverse=True)
    member = member.reshape(-1)
    left = np.arange(len(distinct))
    fronts: list[list[int]] = []
    found = 0
    while len(left) and (count is None or found < count):
        best = _first(distinct[left])
        fronts.append(np.flatnonzero(np.isin(member, left[best])).tolist())
        found += len(fronts[-1])
        left = left[~best]
    return fronts


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Returns the volume between the front of `points` and `reference`, exact; points not below it add nothing.

    Args:
        points: Points (N, K).
        reference: A point (K,) worse than all that counts.

    Raises:
        ValueError: the reference has another number of values.
    """
    table, limit = _table(points), np.asarray(reference, dtype=float)
    if limit.shape != (table.shape[1],) and len(table):
        raise ValueError(f"reference point has {limit.size} values, the points have {table.shape[1]}")
    inside = table[(table < limit).all(axis=1)] if len(table) else table
    if not len(inside):
        return 0.0
    return _volume(inside[front(inside)], limit)


def crowding(points: ArrayLike) -> Points:
    """Returns the crowding distance (N,) of each point: the sides of the box its neighbours leave it (NSGA-II).

    Args:
        points: Points (N, K) of one front; the outermost of each axis get infinity.
    """
    table = _table(points)
    distance = np.zeros(len(table))
    for column in table.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] if len(order) else 0.0
        distance[order[[0, -1]]] = np.inf
        if span > 0 and len(order) > 2:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def _first(points: Points) -> NDArray[np.bool_]:
    """Returns which of distinct points (N, K) in lexicographic order none dominates, (N,)."""
    if points.shape[1] <= 2:
        last = points[:, -1]
        lowest = np.minimum.accumulate(np.append(np.inf, last[:-1]))
        return np.asarray(last < lowest)
    kept = np.zeros(len(points), dtype=bool)
    for index, point in enumerate(points):
        kept[index] = not (points[:index][kept[:index]] <= point).all(axis=1).any()
    return kept


def _volume(points: Points, reference: Points) -> float:
    if points.shape[1] == 1:
        return float(reference[0] - points.min())
    order = np.argsort(points[:, -1], kind="stable")
    points = points[order]
    edges = np.append(points[:, -1], reference[-1])
    if points.shape[1] == 2:
        lowest = np.minimum.accumulate(points[:, 0])
        return float(((reference[0] - lowest) * np.diff(edges)).sum())
    total = 0.0
    for index in range(len(points)):
        thickness = edges[index + 1] - edges[index]
        if thickness > 0:
            below = points[: index + 1, :-1]
            total += float(thickness) * _volume(below[front(below)], reference[:-1])
    return total


def _table(points: ArrayLike) -> Points:
    table = np.asarray(points, dtype=float)
    return table if table.ndim == 2 else table.reshape(len(table), 1)
