"""A net as a graph of named operators, and the liveness that tells computed from dead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from scalenas.operators import Operator, Shape


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a net.

    Attributes:
        name: Dotted path; also the module's path in supernet and static net, so weights are copied by name.
        operator: What is computed.
        inputs: Names of graph inputs or of earlier nodes, in the order of the operator's arguments.
    """

    name: str
    operator: Operator
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """A net: named inputs, nodes in topological order, and the names whose tensors are the outputs.

    Raises:
        ValueError: a name is used twice, or a node or output refers to a name that does not come before it.
    """

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        known = set(self.inputs)
        if len(known) != len(self.inputs):
            raise ValueError(f"graph inputs are named twice: {list(self.inputs)}")
        for node in self.nodes:
            for name in node.inputs:
                if name not in known:
                    raise ValueError(f"node {node.name!r} reads {name!r}, which no earlier node or input gives")
            if node.name in known:
                raise ValueError(f"the graph has two nodes or inputs named {node.name!r}")
            known.add(node.name)
        for name in self.outputs:
            if name not in known:
                raise ValueError(f"output {name!r} is neither a node nor an input of the graph")

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def live(self) -> Graph:
        """Returns the graph without the nodes from which no output can be reached; inputs and outputs stay."""
        needed = reaching(((node.name, node.inputs) for node in reversed(self.nodes)), self.outputs)
        return Graph(self.inputs, tuple(node for node in self.nodes if node.name in needed), self.outputs)

    def shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Returns the shape (channels, height, width) of every input and node, by name.

        Raises:
            ValueError: an input is missing, or an operator does not fit the shapes it gets; the node is named.
        """
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ValueError(f"no shape for graph input {', '.join(missing)}; got {', '.join(inputs) or 'none'}")
        shapes = {name: inputs[name] for name in self.inputs}
        for node in self.nodes:
            try:
                shapes[node.name] = node.operator.output_shape(*(shapes[name] for name in node.inputs))
            except ValueError as error:
                raise ValueError(f"node {node.name!r}: {error}") from None
        return shapes


def reaching(edges: Iterable[tuple[str, tuple[str, ...]]], outputs: Iterable[str]) -> set[str]:
    """Returns the names from which an output can be reached, outputs included.

    Args:
        edges: (name, the names it reads) of every node, in reverse topological order.
        outputs: Names whose values leave the net.
    """
    needed = set(outputs)
    for name, inputs in edges:
        if name in needed:
            needed.update(inputs)
    return needed


def merge(graphs: Iterable[Graph]) -> Graph:
    """Returns a graph that holds every node of `graphs`, each once, as it stands in the first graph that has it.

    Raises:
        ValueError: there is no graph, or two graphs give one name different operators or have different inputs.
    """
    found: dict[str, Node] = {}
    first: Graph | None = None
    for graph in graphs:
        first = first or graph
        if graph.inputs != first.inputs:
            raise ValueError(f"graphs have different inputs: {list(first.inputs)} and {list(graph.inputs)}")
        for node in graph:
            known = found.setdefault(node.name, node)
            if known.operator != node.operator:
                raise ValueError(f"node {node.name!r} is {known.operator} in one graph and {node.operator} in another")
    if first is None:
        raise ValueError("there is no graph to merge")
    return Graph(first.inputs, tuple(found.values()), first.outputs)
