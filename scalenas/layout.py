"""Where the nodes of a net stand in a drawing."""

from __future__ import annotations

from dataclasses import dataclass

from scalenas.graph import Graph


@dataclass(frozen=True, slots=True)
class Place:
    """One node of a drawing.

    Attributes:
        id: Name of the graph's node or input.
        kind: Name of the operator's class, `Input` for an input.
        column, row: Position on a grid, from the top left; halves lie between the lines.
        labels: Names and numbers that a drawing may show or colour by: stage, module, branch, step, ...
        live: False for what reaches no output.
    """

    id: str
    kind: str
    column: float
    row: float
    labels: tuple[tuple[str, str], ...] = ()
    live: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing: places, and the edges between them as (from, to) names in the order of the graph."""

    places: tuple[Place, ...]
    edges: tuple[tuple[str, str], ...]

    @property
    def columns(self) -> float:
        """Width of the grid."""
        return max((place.column for place in self.places), default=-1.0) + 1

    @property
    def rows(self) -> float:
        """Height of the grid."""
        return max((place.row for place in self.places), default=-1.0) + 1


def edges(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Returns (from, to) of every edge of `graph`."""
    return tuple((name, node.name) for node in graph for name in node.inputs)


def layered(graph: Graph) -> Layout:
    """Returns a drawing where a node's column is its longest way from an input, and rows fill from the top."""
    alive = {node.name for node in graph.live()}
    column = dict.fromkeys(graph.inputs, 0)
    used: dict[int, int] = {}
    places: list[Place] = []
    kinds = [(name, "Input") for name in graph.inputs]
    for node in graph:
        column[node.name] = 1 + max((column[name] for name in node.inputs), default=-1)
        kinds.append((node.name, type(node.operator).__name__))
    for name, kind in kinds:
        row = used.get(column[name], 0)
        used[column[name]] = row + 1
        live = name in alive or name in graph.inputs
        places.append(Place(name, kind, float(column[name]), float(row), live=live))
    return Layout(tuple(places), edges(graph))
