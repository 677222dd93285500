"""Cost against every published or independently measured figure, to the digits printed."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from scalenas.cost import LIVE, PUBLISHED, Cost, Counting, graph_cost, total
from scalenas.names import resolve_spec
from scalenas.operators import Part
from scalenas.registry import get_space
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

SPACE = get_space("scalenas")
SEG: Mapping[str, Json] = {"task": "segmentation"}


def printed(value: float, figure: str) -> str:
    """Returns `value` with as many digits after the point as `figure`."""
    return f"{value:.{len(figure.partition('.')[2])}f}"


@pytest.mark.parametrize(
    ("name", "size", "params", "gmacs"),
    [
        ("hrnet-w32", (256, 192), "28.536", "7.120"),
        ("hrnet-w32", (384, 288), "28.536", "16.020"),
        ("hrnet-w48", (256, 192), "63.596", "14.614"),
        ("hrnet-w48", (384, 288), "63.596", "32.882"),
        ("hrnet-w32", (256, 256), "28.536", "9.493"),
        ("hrnet-w18-seg", (1024, 2048), "9.64", "137.3"),
        ("hrnet-w32-seg", (1024, 2048), "29.547", "336.42"),
        ("hrnet-w40-seg", (1024, 2048), "45.9", "498.7"),
        ("hrnet-w48-seg", (1024, 2048), "65.859", "696.18"),
        ("scalenet-p1", (256, 192), "28.484", "6.948"),
        ("scalenet-p1", (256, 256), "28.484", "9.264"),
        ("scalenet-p2", (256, 192), "35.614", "8.013"),
        ("scalenet-p3", (384, 288), "26.168", "14.319"),
        ("scalenet-p4", (384, 288), "64.280", "32.590"),
        ("scalenet-s1", (1024, 2048), "25.349", "265.54"),
        ("scalenet-s2", (1024, 2048), "28.502", "309.48"),
        ("scalenet-s3", (1024, 2048), "58.502", "575.22"),
        ("scalenet-s4", (1024, 2048), "67.550", "673.59"),
    ],
)
def test_published_nets_cost_what_was_published(name: str, size: tuple[int, int], params: str, gmacs: str) -> None:
    spec = resolve_spec(name, size=size)
    cost = SPACE.cost(spec)
    assert printed(cost.mparams, params) == params
    assert printed(cost.gmacs, gmacs) == gmacs
    assert SPACE.cost(SPACE.named().get(name, spec), {"image": (3, *size)}) == cost


@pytest.mark.parametrize(
    ("settings", "largest", "smallest", "whole"),
    [
        ({}, ("46.840", "10.245"), ("13.632", "4.023"), "47.610"),
        ({"width": 48}, ("104.731", "21.646"), ("30.083", "7.646"), "106.461"),
        (SEG, ("47.850", "469.76"), ("13.857", "200.71"), "47.850"),
        ({**SEG, "width": 48}, ("106.995", "996.20"), ("30.584", "390.83"), "106.995"),
    ],
    ids=["pose-w32", "pose-w48", "seg-w32", "seg-w48"],
)
def test_largest_smallest_and_whole_supernet_cost_what_was_measured(
    settings: Mapping[str, Json], largest: tuple[str, str], smallest: tuple[str, str], whole: str
) -> None:
    for spec, figures in ((SPACE.max(settings), largest), (SPACE.min(settings), smallest)):
        cost = SPACE.cost(spec)
        assert (printed(cost.mparams, figures[0]), printed(cost.gmacs, figures[1])) == figures
    inputs = SPACE.shapes(SPACE.max(settings))
    assert printed(graph_cost(SPACE.supergraph(settings), inputs).mparams, whole) == whole


# MACs / 2^30 of single parts: (pose W32 256x192, segmentation W32 1024x2048).
EDGES = {
    (0, 1): (".00146", ".0625"), (0, 2): (".00073", ".03125"), (0, 3): (".00037", ".01562"),
    (1, 2): (".00146", ".0625"), (1, 3): (".00073", ".03125"), (2, 3): (".00146", ".0625"),
    (1, 0): (".01318", ".5625"), (2, 0): (".01318", ".5625"), (2, 1): (".01318", ".5625"),
    (3, 0): (".01154", ".49219"), (3, 1): (".01318", ".5625"), (3, 2): (".01318", ".5625"),
}  # fmt: skip


@pytest.mark.parametrize("column", [0, 1], ids=["pose", "segmentation"])
def test_every_edge_and_block_costs_what_the_lookup_table_says(column: int) -> None:
    settings = (dict[str, Json](), SEG)[column]
    records = {record.id: record.cost.gmacs for record in SPACE.blocks(SPACE.max(settings))}
    for (destination, source), figures in EDGES.items():
        found = records[f"stage4.0.step0.branch{destination}_from_branch{source}"]
        assert found == pytest.approx(float(figures[column]), abs=0.6e-5)
    block = (0.05273, 2.25)[column]
    for branch in range(4):
        assert records[f"stage4.1.branch{branch}.block2"] == pytest.approx(block, abs=0.6e-5)
    fixed = sum(value for name, value in records.items() if name.split(".")[0] not in ("stage2", "stage3", "stage4"))
    assert fixed == pytest.approx((1.2782, 83.707)[column], abs=(0.6e-4, 0.6e-3)[column])


def variety() -> list[SubnetSpec]:
    rng = np.random.default_rng(11)
    specs = []
    for task in ("pose", "segmentation"):
        for width in (18, 32, 48):
            for modules in ([1, 4, 3], [2, 1, 2]):
                settings: dict[str, Json] = {"task": task, "width": width, "modules": modules}
                specs += [SPACE.sample(rng, settings=settings) for _ in range(5)]
    specs.append(SPACE.sample(rng, settings={"depths": [1, 4], "fuse_upsample": {"mode": "bilinear"}}))
    return specs


COUNTINGS = [
    PUBLISHED,
    LIVE,
    Counting(bn_macs=True),
    Counting(bn_params=False, live=True),
    Counting(scope=("stage4", "head")),
    Counting(scope=("stage3.1.step0", "stage4.2.branch0.block1")),
]


@pytest.mark.parametrize("counting", COUNTINGS, ids=str)
def test_cost_by_table_equals_cost_counted_on_the_graph(counting: Counting) -> None:
    for spec in variety():
        graph, inputs = SPACE.graph(spec), SPACE.shapes(spec)
        assert SPACE.cost(spec, counting=counting) == graph_cost(graph, inputs, counting)
        assert SPACE.cost(spec, counting=counting) == total(b.cost for b in SPACE.blocks(spec, counting=counting))


def test_live_cost_leaves_dead_blocks_out() -> None:
    spec = SPACE.named()["scalenet-p1"]
    live, published = SPACE.cost(spec, counting=LIVE), SPACE.cost(spec)
    kept = {record.id for record in SPACE.blocks(spec, counting=LIVE)}
    dead = [record for record in SPACE.blocks(spec) if record.id not in kept]
    # Two 3x3 convolutions of 64 channels with BN, and fusions behind the last step that branch 0 reads.
    assert [record.params for record in dead if record.kind == "BasicBlock"] == [2 * (64 * 64 * 9 + 2 * 64)]
    assert {record.id[:8] for record in dead} == {"stage4.2"}
    assert live + total(record.cost for record in dead) == published
    assert SPACE.cost(SPACE.live(spec)) == live


def test_scope_takes_whole_words_of_names() -> None:
    counting = Counting(scope=("stage3.1",))
    assert counting.in_scope("stage3.1.branch0.block0")
    assert counting.in_scope("stage3.1")
    assert not counting.in_scope("stage3.10.branch0.block0")


def test_scopes_add_up_to_the_whole() -> None:
    spec = SPACE.max()
    scopes = ("stem", "stage1", "transition1", "stage2", "transition2", "stage3", "transition3", "stage4", "head")
    parts = [SPACE.cost(spec, counting=Counting(scope=(scope,))) for scope in scopes]
    assert total(parts) == SPACE.cost(spec)


def test_switches_choose_parts() -> None:
    parts = [Part("conv", 10, 100), Part("bn", 4, 7), Part("linear", 3, 30), Part("attention", 0, 1000)]
    assert PUBLISHED.of_parts(parts) == Cost(17, 1130)
    assert replace(PUBLISHED, bn_macs=True).of_parts(parts) == Cost(17, 1137)
    assert replace(PUBLISHED, bn_params=False).of_parts(parts) == Cost(13, 1130)
    assert replace(PUBLISHED, attention=False).of_parts(parts) == Cost(17, 130)


def test_both_units_are_at_hand() -> None:
    cost = Cost(28_536_000, 2**30) + Cost(0, 2**30)
    assert cost.gmacs == 2.0
    assert cost.gmacs_decimal == pytest.approx(2.147483648)
    assert cost.mparams == 28.536


def test_blocks_carry_shapes_and_kinds() -> None:
    records = {record.id: record for record in SPACE.blocks(SPACE.named()["hrnet-w32"])}
    fusion = records["stage3.0.step3.branch2_from_branch0"]
    assert (fusion.kind, fusion.inputs, fusion.output) == ("FuseDown", ((32, 64, 48),), (128, 16, 12))
    assert (fusion.params, fusion.macs) == (fusion.cost.params, fusion.cost.macs)
    assert records["head"].output == (17, 64, 48)


def test_workload_is_checked_like_inputs() -> None:
    with pytest.raises(UserError, match=r"input size 100x100 .*100 is not a positive multiple of 32; 96 would work"):
        SPACE.cost(SPACE.max(), {"image": (3, 100, 100)})
    with pytest.raises(UserError, match=r"input 'image' is \[3, 64\.0, 64\]; sizes are whole numbers or names"):
        SPACE.cost(SPACE.max(), {"image": (3, 64.0, 64)})  # type: ignore[dict-item]
