"""What sampling draws: the published statistics of groups, sizes of the space, seeds, mutation and crossover."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenas.genes import Gene, Group, Sampler
from scalenas.registry import get_space
from scalenas.spaces.scalenas.drawing import counts
from scalenas.spaces.scalenas.encoding import typed
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

SPACE = get_space("scalenas")
SEG: Mapping[str, Json] = {"task": "segmentation"}
DRAWS = 800

# group: (pose W32 256x192 mean G, its deviation, seg W32 mean G, its deviation, blocks, fusions pose, fusions seg);
# figures as printed in the published measurement of 3000 draws, None where none is printed.
PUBLISHED = {
    "uniform": (6.81, 0.35, 321.5, 15.2, 91, 106, 109),
    "depth2-3_fuse0.2": (4.91, None, 239, None, 65, 32, 31),
    "depth2-3_fuse0.5": (5.22, None, 254, None, 65, 75, 78),
    "depth2-3_fuse0.8": (5.52, None, 268, None, 65, 118, 124),
    "depth3-4_fuse0.2": (6.38, None, 302, None, 91, 44, 43),
    "depth3-4_fuse0.5": (6.80, None, 321, None, 91, 106, 108),
    "depth3-4_fuse0.8": (7.24, None, 341, None, 91, 167, 174),
    "depth4-5_fuse0.2": (7.83, None, 364, None, 117, 56, 56),
    "depth4-5_fuse0.5": (8.40, None, 389, None, 117, 137, 140),
    "depth4-5_fuse0.8": (8.96, None, 414, None, 117, 216, 223),
}


@pytest.mark.parametrize("task", ["pose", "segmentation"])
@pytest.mark.parametrize("group", PUBLISHED)
def test_groups_reproduce_the_published_means(group: str, task: str) -> None:
    pose_mean, pose_std, seg_mean, seg_std, blocks, *fusions = PUBLISHED[group]
    mean, deviation = (pose_mean, pose_std) if task == "pose" else (seg_mean, seg_std)
    rng = np.random.default_rng(2022)
    specs = [SPACE.sample(rng, settings={"task": task}, group=group) for _ in range(DRAWS)]
    costs = np.array([SPACE.cost(spec).gmacs for spec in specs])
    found = np.array([counts(typed(spec.genes)) for spec in specs]).mean(axis=0)
    assert costs.mean() == pytest.approx(mean, rel=0.01)
    assert found[0] == pytest.approx(blocks, rel=0.01)
    # The published counts are whole numbers: half a fusion is their rounding.
    assert found[1] == pytest.approx(fusions[task == "segmentation"], rel=0.01, abs=0.9)
    if deviation is not None:
        assert costs.std() == pytest.approx(deviation, rel=0.06)
    else:
        low, high = (0.14, 0.19) if task == "pose" else (6.2, 7.9)
        assert low < costs.std() < high


def test_nine_groups_and_the_eleven_slots_are_those_published() -> None:
    assert list(SPACE.groups()) == [
        f"depth{depths}_fuse{odds}" for odds in (0.2, 0.5, 0.8) for depths in ("2-3", "3-4", "4-5")
    ]
    cycle = SPACE.cycle()
    lists, odds = ["2-3", "3-4", "4-5"], [0.2, 0.5, 0.8]
    expected = [f"depth{lists[slot % 3]}_fuse{odds[(slot % 9) // 3]}" for slot in range(1, 10)]
    assert [group.name for group in cycle] == ["smallest", *expected, "largest"]
    rng = np.random.default_rng(0)
    assert SPACE.sample(rng, group="largest") == SPACE.max()
    smallest = SPACE.sample(rng, group="smallest", settings=SEG)
    depths: list[Any] = [depth for depth, _ in typed(smallest.genes).values()]
    assert {d for depth in depths for d in depth} == {2}
    assert (
        10
        <= np.mean([counts(typed(SPACE.sample(rng, group="smallest", settings=SEG).genes))[1] for _ in range(50)])
        <= 15
    )


@pytest.mark.parametrize(
    ("depths", "groups", "slots"), [([1, 2], 3, 5), ([4], 3, 5), ([2, 3, 4, 5], 9, 11), ([1, 3, 6], 6, 8)], ids=str
)
def test_groups_follow_the_list_of_depths(depths: list[int], groups: int, slots: int) -> None:
    some: Mapping[str, Json] = {"depths": depths}
    assert len(SPACE.groups(some)) == groups
    assert len(SPACE.cycle(some)) == slots
    for group in SPACE.cycle(some):
        SPACE.validate(SPACE.sample(np.random.default_rng(0), settings=some, group=group))


def test_unknown_group_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown group 'depth2-3'; known: depth2-3_fuse0\.2, .*uniform"):
        SPACE.sample(np.random.default_rng(0), group="depth2-3")


def test_distinct_encodings_are_counted_as_published() -> None:
    assert f"{SPACE.log10_size(SEG):.1f}" == "96.0"
    assert f"{SPACE.log10_size():.1f}" == "92.4"


def test_size_equals_the_number_of_specs_that_brute_force_finds() -> None:
    tiny: Mapping[str, Json] = {"modules": [1, 1, 1], "depths": [1, 2], "width": 2}
    # One module at a time: the others stay as they are, and distinct canonical forms are counted by sampling them all.
    table = SPACE.gene_table(SPACE.settings(tiny))
    rows = [row for row, gene in enumerate(table) if gene.group == "stage2.0"]
    base = [gene.choices[0] for gene in table]
    found = set()
    for pattern in range(2 ** len(rows)):
        values = list(base)
        for bit, row in enumerate(rows):
            values[row] = table[row].choices[pattern >> bit & 1]
        found.add(SPACE.make(values, settings=tiny))
    assert len(found) == (2**1 + 2**2) ** 2
    others = SPACE.log10_size(tiny) - np.log10(len(found))
    assert others == pytest.approx(np.log10((2**2 + 2**4) ** 3 * (1 + 2**3) ** 4))


def test_same_seed_gives_same_specs_and_seed_zero_is_a_seed() -> None:
    def draw(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [SPACE.sample(rng).digest for _ in range(3)]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    assert len(set(draw(0))) == 3


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), some=st.sampled_from([{}, SEG, {"modules": [1, 2, 1], "depths": [1, 4]}]))
def test_variation_never_changes_parents_and_keeps_specs_canonical(seed: int, some: Mapping[str, Json]) -> None:
    rng = np.random.default_rng(seed)
    first, second = (SPACE.sample(rng, settings=some) for _ in range(2))
    before = first.canonical, second.canonical
    for child in (
        SPACE.mutate(first, rng),
        SPACE.mutate(first, rng, probability=0.5, rates={"depth": 0.5}),
        SPACE.crossover(first, second, rng),
    ):
        assert SPACE.normalise(child) == child
    fresh = SubnetSpec.from_json(first.to_json()), SubnetSpec.from_json(second.to_json())
    assert tuple(spec.canonical for spec in fresh) == before


def test_mutation_flips_meaningful_bits_with_its_probability_and_leaves_depths() -> None:
    rng = np.random.default_rng(5)
    flipped = meaningful = 0
    for _ in range(40):
        spec = SPACE.sample(rng, settings=SEG)
        child = SPACE.mutate(spec, rng)
        for (depth, fuse), (new_depth, new_fuse) in zip(
            typed(spec.genes).values(), typed(child.genes).values(), strict=True
        ):
            assert new_depth == depth
            for own, rows, new_rows in zip(depth, fuse, new_fuse, strict=True):
                for row, new_row in zip(rows[:own], new_rows[:own], strict=True):
                    meaningful += len(row)
                    flipped += sum(a != b for a, b in zip(row, new_row, strict=True))
    assert flipped / meaningful == pytest.approx(0.2, abs=0.015)


def test_mutation_of_depths_is_asked_for() -> None:
    rng = np.random.default_rng(6)
    spec = SPACE.max()
    child = SPACE.mutate(spec, rng, probability=0.0, rates={"depth": 1.0})
    assert all(d in (2, 3, 4) for depth, _ in typed(child.genes).values() for d in depth)


def test_crossover_swaps_whole_modules_two_of_eight_on_average() -> None:
    rng = np.random.default_rng(7)
    first, second = SPACE.max(), SPACE.min()
    swapped: list[int] = []
    for _ in range(400):
        child = SPACE.crossover(first, second, rng)
        origins = Counter("second" if child.genes[name] == second.genes[name] else "first" for name in first.genes)
        assert all(child.genes[name] in (first.genes[name], second.genes[name]) for name in first.genes)
        swapped.append(origins["second"])
    assert np.mean(swapped) == pytest.approx(2.0, abs=0.2)


def test_weights_decide_and_nothing_without_weight_is_drawn() -> None:
    table = [Gene("a", (1, 2, 3), kind="k"), Gene("b", ("x", "y"))]
    sampler = Sampler(table, Group("g", (("k", ((1, 0.0), (2, 3.0), (3, 1.0))),)))
    rng = np.random.default_rng(0)
    drawn = Counter(tuple(sampler.draw(rng)) for _ in range(4000))
    assert {values[0] for values in drawn} == {2, 3}
    assert sum(count for values, count in drawn.items() if values[0] == 2) / 4000 == pytest.approx(0.75, abs=0.03)
    assert sum(count for values, count in drawn.items() if values[1] == "x") / 4000 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("odds", [((7, 1.0),), ((1, -1.0), (2, 2.0)), ((1, 0.0),)], ids=str)
def test_groups_that_leave_a_gene_no_choice_are_refused(odds: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(UserError, match=r"group 'g' gives none of the choices \[1, 2\] of a a weight"):
        Sampler([Gene("a", (1, 2), kind="k")], Group("g", (("k", odds),)))
