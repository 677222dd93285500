"""Names of values in graphs that came from elsewhere: ours must be free before nodes are added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# What `io_forms` calls its own values: inputs, outputs, and the beginnings of all others.
RESERVED = ("image", "heatmaps", "logits", "keypoints", "class_map", "input.mean", "input.order", "input.std")
RESERVED_BEGINNINGS = ("input/", "decode/", "decode.")


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """Yields a graph and, at any depth, the graphs inside its nodes: branches and bodies of loops."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from graphs_of(inner)


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yields the graphs that are attributes of a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def free_reserved_names(model: ModelProto) -> None:
    """Gives every value whose name our input and output forms use another one, in place.

    Also inside branches and loops, which see the values of the graph around them, and which may not use a name again.
    """
    taken = {name for graph in graphs_of(model.graph) for name in _names(graph)}
    renamed = {}
    for name in sorted(taken):
        if name in RESERVED or name.startswith(RESERVED_BEGINNINGS):
            other = f"given/{name}"
            while other in taken:
                other += "_"
            renamed[name] = other
            taken.add(other)
    rename(model, renamed)


def rename(model: ModelProto, names: Mapping[str, str]) -> None:
    """Gives values other names wherever they stand, in place; shapes of inner values are dropped.

    Args:
        model: The graph.
        names: New names by old ones; the new ones must be free.
    """
    if not names:
        return
    for graph in graphs_of(model.graph):
        del graph.value_info[:], graph.quantization_annotation[:]
        for item in (*graph.input, *graph.output, *graph.initializer):
            item.name = names.get(item.name, item.name)
        for sparse in graph.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)
        for node in graph.node:
            for values in (node.input, node.output):
                for index, name in enumerate(values):
                    values[index] = names.get(name, name)


def _names(graph: GraphProto) -> Iterator[str]:
    for item in (*graph.input, *graph.output, *graph.initializer):
        yield item.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield from (name for name in (*node.input, *node.output) if name)
