"""Drawings: the grid of a ScaleNAS net, and the layered default."""

from collections import Counter

from scalenas.graph import Graph, Node
from scalenas.layout import layered
from scalenas.operators import AddReLU
from scalenas.registry import get_space

SPACE = get_space("scalenas")


def test_branches_are_rows_and_time_runs_from_left_to_right() -> None:
    for spec in (SPACE.max(), SPACE.named()["scalenet-s1"], SPACE.min({"modules": [2, 1, 1], "depths": [1, 3]})):
        layout = SPACE.layout(spec)
        place = {item.id: item for item in layout.places}
        assert all(place[source].column < place[target].column for source, target in layout.edges)
        spots = Counter((item.column, item.row, item.kind.startswith("Fuse")) for item in layout.places)
        assert max(count for (_, _, fusion), count in spots.items() if not fusion) == 1
        assert layout.rows == 4
        assert layout.columns == place["head"].column + 1
        block = place["stage4.0.branch3.block0"]
        assert (block.row, block.kind) == (3, "BasicBlock")
        assert dict(block.labels) == {"stage": "4", "module": "stage4.0", "branch": "3", "step": "0"}


def test_fusions_lie_between_their_branches_and_steps_stand_at_the_same_columns() -> None:
    largest = {item.id: item for item in SPACE.layout(SPACE.max()).places}
    other = {item.id: item for item in SPACE.layout(SPACE.named()["hrnet-w32"]).places}
    fusion = other["stage3.0.step3.branch0_from_branch2"]
    assert fusion.row == 1.0
    assert dict(fusion.labels)["source"] == "2"
    assert all(largest[name].column == item.column for name, item in other.items())


def test_dead_blocks_are_marked() -> None:
    places = SPACE.layout(SPACE.named()["scalenet-p1"]).places
    assert "stage4.2.branch1.block3" in {item.id for item in places if not item.live}
    assert all(item.live for item in SPACE.layout(SPACE.named()["hrnet-w32"]).places if item.kind != "Input")


def test_layered_layout_puts_nodes_behind_what_they_read() -> None:
    nodes = tuple(Node(name, AddReLU(), inputs) for name, inputs in (("a", ("x",)), ("b", ("a",)), ("c", ("a", "x"))))
    layout = layered(Graph(("x",), nodes, ("c",)))
    found = {item.id: (item.column, item.row, item.live) for item in layout.places}
    assert found == {"x": (0, 0, True), "a": (1, 0, True), "b": (2, 0, False), "c": (2, 1, True)}
    assert (layout.columns, layout.rows) == (3, 2)
    assert layout.edges == (("x", "a"), ("a", "b"), ("a", "c"), ("x", "c"))
