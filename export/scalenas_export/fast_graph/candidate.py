"""From a static net to an ONNX graph in raw form, straight from its layers where all of them are known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from scalenas_export.fast_graph.writer import CannotEmit, GraphWriter, Value
from scalenas_export.io_forms import INPUT, check_forms, make_raw, output_name
from scalenas_runtime.tasks import Recipe

if TYPE_CHECKING:
    from onnx import ModelProto

    from scalenas.graph import Graph
    from scalenas.static import StaticNet


@dataclass(frozen=True, slots=True)
class CandidateGraph:
    """A candidate as engines read it.

    Attributes:
        model: The graph in raw form, batch 1: what the full export gives before it is simplified.
        path: `fast` where every layer was known, `full` where torch's exporter had to do it.
        reason: Why the full export was needed; empty on the fast path.
        seconds: Wall time by step.
    """

    model: ModelProto
    path: Literal["fast", "full"]
    reason: str
    seconds: dict[str, float]


def candidate_graph(net: StaticNet, recipe: Recipe) -> CandidateGraph:
    """Returns the graph of a static net: uint8 pictures (1, H, W, 3), BGR, to heatmaps or logits.

    BN is folded. Nodes, names, attributes and weights equal those of the full export before simplification; a net
    with a layer that has no emitter (`register_emitter`) goes through that export, which takes seconds.

    Args:
        net: A static net in eval mode; it is not changed.
        recipe: The task, at the size to export for.

    Raises:
        ValueError: the net is in train mode.
        UserError: the net's output is not the recipe's.
    """
    if net.training:
        raise ValueError("candidate_graph() needs a net in eval mode, call net.eval() first")
    seconds: dict[str, float] = {}
    path: Literal["fast", "full"] = "fast"
    reason = ""
    with _timed(seconds, "emit"):
        try:
            model = _emitted(net, recipe)
        except CannotEmit as unknown:
            reason, path = str(unknown), "full"
    if path == "full":
        with _timed(seconds, "export"):
            model = _exported(net, recipe)
    with _timed(seconds, "forms"):
        make_raw(model, recipe)
        check_forms(model, recipe)
    return CandidateGraph(model, path, reason, seconds)


def _emitted(net: StaticNet, recipe: Recipe) -> ModelProto:
    from scalenas_export.fast_graph.emitters import emit

    graph = cast("Graph", net.meta["graph"])
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise CannotEmit(f"the net has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    for name, module in net.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise CannotEmit(f"{name or 'the net'} has hooks, which may change what it computes")
    writer = GraphWriter()
    given = Value(INPUT, (3, recipe.height, recipe.width))
    values = {graph.inputs[0]: given}
    for node in graph:
        inputs = (values[source] for source in node.inputs)
        values[node.name] = emit(writer, net.get_submodule(node.name), node.name, *inputs)
    return writer.model(given, values[graph.outputs[0]], output_name(recipe))


def _exported(net: StaticNet, recipe: Recipe) -> ModelProto:
    from scalenas_export.folding import fold
    from scalenas_export.onnx_export import to_onnx

    return to_onnx(fold(net), (3, recipe.height, recipe.width), output=output_name(recipe))


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = time.perf_counter() - started
