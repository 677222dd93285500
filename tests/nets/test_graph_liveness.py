"""Graphs: checks, liveness, and the ScaleNAS graph against the module semantics written down independently."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from scalenas.graph import Graph, Node, merge
from scalenas.operators import AddReLU, BasicBlock, PoseHead
from scalenas.registry import get_space
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json

SPACE = get_space("scalenas")
SETTINGS: list[Mapping[str, Json]] = [
    {},
    {"task": "segmentation"},
    {"modules": [1, 2, 1], "depths": [1, 2]},
    {"modules": [1, 1, 1], "depths": [2, 4], "width": 18},
    {"modules": [2, 4, 3], "depths": [1, 3, 6]},
    {"modules": [2, 1, 2], "depths": [3], "task": "segmentation", "width": 4},
]


def node(name: str, *inputs: str) -> Node:
    return Node(name, AddReLU(), inputs)


@pytest.mark.parametrize(
    ("inputs", "nodes", "outputs", "text"),
    [
        (("x",), (node("a", "b"), node("b", "x")), ("b",), "node 'a' reads 'b', which no earlier node or input gives"),
        (("x",), (node("a", "x"), node("a", "x")), ("a",), "two nodes or inputs named 'a'"),
        (("x",), (node("x", "x"),), ("x",), "two nodes or inputs named 'x'"),
        (("x", "x"), (), ("x",), r"graph inputs are named twice: \['x', 'x'\]"),
        (("x",), (), ("y",), "output 'y' is neither a node nor an input"),
    ],
)
def test_malformed_graphs_are_refused(
    inputs: tuple[str, ...], nodes: tuple[Node, ...], outputs: tuple[str, ...], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Graph(inputs, nodes, outputs)


def test_shape_errors_name_the_node_and_missing_inputs() -> None:
    graph = Graph(("x",), (Node("a", BasicBlock(8), ("x",)),), ("a",))
    with pytest.raises(ValueError, match=r"node 'a': BasicBlock\(channels=8\) takes inputs of \[8\] channels"):
        graph.shapes({"x": (4, 2, 2)})
    with pytest.raises(ValueError, match="no shape for graph input x; got image"):
        graph.shapes({"image": (8, 2, 2)})


def test_liveness_drops_chains_that_reach_no_output() -> None:
    nodes = (node("a", "x"), node("dead1", "a"), node("b", "a", "x"), node("dead2", "dead1", "b"))
    graph = Graph(("x", "unused"), nodes, ("b",))
    assert [item.name for item in graph.live()] == ["a", "b"]
    assert graph.live().inputs == ("x", "unused")
    assert graph.live().live() == graph.live()


def test_merge_holds_every_node_once_and_refuses_contradictions() -> None:
    first = Graph(("x",), (node("a", "x"), node("out", "a")), ("out",))
    second = Graph(("x",), (node("b", "x"), node("out", "b")), ("out",))
    merged = merge([first, second])
    assert [item.name for item in merged] == ["a", "out", "b"]
    other = Graph(("x",), (Node("a", PoseHead(1, 1), ("x",)),), ("a",))
    with pytest.raises(ValueError, match=r"node 'a' is AddReLU.* in one graph and PoseHead"):
        merge([first, other])
    with pytest.raises(ValueError, match="graphs have different inputs"):
        merge([first, Graph(("y",), (), ("y",))])
    with pytest.raises(ValueError, match="there is no graph to merge"):
        merge([])


Expression = tuple[Any, ...]


def by_definition(spec: SubnetSpec) -> tuple[Expression, ...]:
    """Returns what a net computes as nested tuples, by the module semantics as the fact sheet states them."""
    plain: dict[str, Any] = dict(spec.to_json())
    depths, pose = plain["settings"]["depths"], plain["settings"]["task"] == "pose"
    x: list[Expression] = [("stage1",)]
    for name, module in plain["genes"].items():
        stage, index = int(name[5]), int(name.split(".")[1])
        if index == 0:
            x = [("t", 1, 0, x[0]), ("t", 1, 1, x[0])] if stage == 2 else [*x, ("t", stage - 1, stage - 1, x[-1])]
        last = pose and stage == 4 and index == plain["settings"]["modules"][2] - 1
        for step in range(max(depths)):
            x = [("block", name, i, step, x[i]) if step < d else x[i] for i, d in enumerate(module["depth"])]
            y = []
            for i, d in enumerate(module["depth"]):
                sources = [k for k in range(len(x)) if k != i]
                bits = module["fuse"][i][step] if step < d else "0" * len(sources)
                if last and step == d - 1:
                    bits = ("1" if i == 0 else "0") * len(sources)
                terms = [("fuse", name, i, step, k, x[k]) for k, bit in zip(sources, bits, strict=True) if bit == "1"]
                y.append(("sum", name, i, step, x[i], *terms) if terms else x[i])
            x = y
    return tuple(x[:1]) if pose else tuple(x)


def node_names(outputs: tuple[Expression, ...]) -> set[str]:
    """Returns the names of all searchable nodes in expressions."""
    found: set[str] = set()
    seen: set[int] = set()
    stack: list[Any] = list(outputs)
    while stack:
        item = stack.pop()
        if not isinstance(item, tuple) or id(item) in seen:
            continue
        seen.add(id(item))
        stack.extend(item)
        if item[0] == "block":
            found.add(f"{item[1]}.branch{item[2]}.block{item[3]}")
        elif item[0] == "sum":
            found.add(f"{item[1]}.step{item[3]}.branch{item[2]}.sum")
        elif item[0] == "fuse":
            found.add(f"{item[1]}.step{item[3]}.branch{item[2]}_from_branch{item[4]}")
    return found


def short(outputs: tuple[Expression, ...]) -> list[tuple[Any, ...]]:
    """Returns expressions with shared parts numbered once, so that comparing them takes no exponential time."""
    numbers: dict[tuple[Any, ...], int] = {}
    known: dict[int, int] = {}

    def number(item: Expression) -> int:
        if id(item) not in known:
            key = tuple(("#", number(part)) if isinstance(part, tuple) else part for part in item)
            known[id(item)] = numbers.setdefault(key, len(numbers))
        return known[id(item)]

    result = [("output", number(item)) for item in outputs]
    return [*result, *numbers]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_live_nodes_are_those_that_the_definition_uses(settings: Mapping[str, Json]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(15):
        spec = SPACE.sample(rng, settings=settings)
        names = {item.name for item in SPACE.graph(spec).live() if item.name[:6] in ("stage2", "stage3", "stage4")}
        assert names == node_names(by_definition(spec))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_live_form_computes_the_same_expression(settings: Mapping[str, Json]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(15):
        spec = SPACE.sample(rng, settings=settings)
        live = SPACE.live(spec)
        assert short(by_definition(live)) == short(by_definition(spec))
        assert SPACE.live(live) == live
        assert SPACE.normalise(live) == live


def test_specs_that_differ_in_dead_parts_alone_share_their_live_form() -> None:
    genes: dict[str, Any] = dict(SPACE.min().to_json()["genes"])  # type: ignore[arg-type]
    deeper: dict[str, Any] = {**genes, "stage4.2": {**genes["stage4.2"], "depth": [2, 5, 4, 3]}}
    first = SPACE.min()
    second = SPACE.normalise(SubnetSpec("scalenas", first.settings, first.inputs, deeper))
    assert SPACE.live(second) == SPACE.live(first)
    assert SPACE.graph(second).live() == SPACE.graph(first).live()
    assert SPACE.cost(second).macs > SPACE.cost(first).macs


@pytest.mark.parametrize(
    ("name", "dead"), [("scalenet-p1", "stage4.2.branch1.block3"), ("scalenet-p2", "stage4.2.branch1.block4")]
)
def test_published_nets_have_one_dead_block(name: str, dead: str) -> None:
    spec = SPACE.named()[name]
    graph = SPACE.graph(spec)
    alive = {item.name for item in graph.live()}
    assert [item.name for item in graph if "block" in item.name and item.name not in alive] == [dead]


def test_published_nets_of_later_tables_have_no_dead_block() -> None:
    for name in ("scalenet-p3", "scalenet-p4", "scalenet-s1", "hrnet-w32"):
        spec = SPACE.named()[name]
        assert len([item for item in SPACE.graph(spec) if "block" in item.name]) == len(
            [item for item in SPACE.graph(spec).live() if "block" in item.name]
        )


def test_node_names_say_where_a_layer_sits() -> None:
    names = [item.name for item in SPACE.graph(SPACE.named()["hrnet-w32"])]
    expected = {
        "stem.conv1", "stem.conv2", "stage1.block0", "stage1.block3", "transition1.branch0", "transition1.branch1",
        "transition2.branch2", "transition3.branch3", "stage2.0.branch1.block3", "stage3.1.branch2.block0",
        "stage3.1.step3.branch0_from_branch2", "stage3.1.step3.branch0.sum", "stage4.2.step3.branch0.sum", "head",
    }  # fmt: skip
    assert expected <= set(names)
    assert "stage4.2.step3.branch1.sum" not in names
    assert names[-1] == "head"


def test_every_graph_fits_its_shapes_at_odd_multiples_of_32() -> None:
    for settings in SETTINGS:
        shapes = SPACE.supergraph(settings).shapes({"image": (3, 32, 96)})
        assert shapes["head"][1:] == (8, 24)
