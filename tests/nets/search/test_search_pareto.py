"""Fronts, peeling, volume and crowding, held against definitions written out."""

import itertools

import numpy as np
import pytest

from scalenas.search.pareto import crowding, dominates, front, hypervolume, peel


def grid(seed: int, count: int, axes: int, top: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (count, axes)).astype(float)


def brute_front(points: np.ndarray) -> list[int]:
    return [
        index
        for index, point in enumerate(points)
        if not any((other <= point).all() and (other < point).any() for other in points)
    ]


CASES = [(seed, count, axes) for seed in range(4) for count in (1, 7, 40) for axes in (1, 2, 3, 4)]


@pytest.mark.parametrize(("seed", "count", "axes"), CASES)
def test_front_and_peeling_equal_their_definitions(seed: int, count: int, axes: int) -> None:
    points = grid(seed, count, axes)
    assert front(points) == brute_front(points)
    left = list(range(count))
    for found in peel(points):
        assert found == [left[index] for index in brute_front(points[left])]
        left = [index for index in left if index not in found]
    assert not left


def test_peeling_stops_with_the_front_that_is_enough() -> None:
    points = grid(0, 60, 2, top=20)
    fronts = peel(points)
    wanted = len(fronts[0]) + 1
    assert peel(points, wanted) == fronts[:2]
    assert peel(points, 0) == []
    assert peel(np.empty((0, 2))) == []
    assert front(np.empty((0, 2))) == []


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_volume_equals_the_number_of_dominated_cells(axes: int) -> None:
    for seed in range(5):
        points = grid(seed, 9, axes)
        limit = 5
        cells = sum(
            any((point <= np.array(cell)).all() for point in points)
            for cell in itertools.product(range(limit), repeat=axes)
        )
        assert hypervolume(points, [limit] * axes) == pytest.approx(cells)


def test_points_that_are_not_below_the_reference_add_nothing() -> None:
    assert hypervolume([[1, 1], [0, 9]], [3, 3]) == 4
    assert hypervolume([[3, 0]], [3, 3]) == 0
    assert hypervolume(np.empty((0, 2)), [3, 3]) == 0
    with pytest.raises(ValueError, match=r"reference point has 3 values, the points have 2"):
        hypervolume([[1, 1]], [3, 3, 3])


def test_dominance_needs_one_better_figure() -> None:
    assert dominates([1, 2], [1, 3])
    assert not dominates([1, 2], [1, 2])
    assert not dominates([1, 3], [2, 2])


def test_crowding_is_the_box_between_neighbours() -> None:
    found = crowding([[0, 4], [1, 2], [4, 0]])
    assert found[[0, 2]].tolist() == [np.inf, np.inf]
    assert found[1] == pytest.approx(4 / 4 + 4 / 4)
    assert crowding([[1, 1]]).tolist() == [np.inf]
