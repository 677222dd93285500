"""From a static net to an ONNX graph that every engine reads: static shapes, low opset, readable names, no traces."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from scalenas_export.graphs import IR_VERSION, OPSET, add_constant, constants, drop_unused, static_shape

if TYPE_CHECKING:
    import torch
    from onnx import GraphProto, ModelProto, NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir")


def to_onnx(net: torch.nn.Module, shape: tuple[int, int, int], *, output: str) -> ModelProto:
    """Returns the net as ONNX: input `image` float32 (1, C, H, W), normalised; one output float32.

    Opset 18, IR 9, every weight inside the model under its name in the net. Nodes and values are named by the module
    they come from (`stage3.1.branch2.block0.conv1.conv/Conv`). Inner shapes are left out: they are static, and each
    engine infers them. The same net gives the same bytes.

    Args:
        net: A net in eval mode that takes one picture.
        shape: Channels, height and width of the picture.
        output: Name of the graph's output.
    """
    import torch

    example = torch.zeros(1, *shape)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            net,
            (example,),
            input_names=["image"],
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _resize_by_factors(model.graph)
    drop_unused(model.graph)
    _rename(model.graph)
    strip(model)
    return model


def strip(model: ModelProto, *, ir_version: int = IR_VERSION) -> None:
    """Removes stack traces, notes of the exporter and inner shapes in place, and declares the IR version."""
    graph = model.graph
    del model.metadata_props[:]
    del graph.value_info[:]
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
        if item is not model:
            del item.metadata_props[:]
    model.ir_version = ir_version


def _resize_by_factors(graph: GraphProto) -> None:
    """Gives every Resize constant factors in place of sizes: NPUs want them, and sizes would fix the batch."""
    arrays = constants(graph)
    shapes = {value.name: value for value in (*graph.input, *graph.value_info)}
    for node in graph.node:
        if node.op_type != "Resize" or len(node.input) < 4 or node.input[3] not in arrays:
            continue
        before = static_shape(shapes[node.input[0]])
        after = arrays[node.input[3]].tolist()
        factors = [size / old for size, old in zip(after, before, strict=True)]
        name = "resize/factors_" + "x".join(f"{factor:g}" for factor in factors[2:])
        add_constant(graph, name, np.array(factors, np.float32))
        del node.input[2:]
        node.input.append(name)


def _rename(graph: GraphProto) -> None:
    fixed = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    taken: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for node in graph.node:
        base = f"{_module_path(node)}/{node.op_type}"
        taken[base] += 1
        node.name = base if taken[base] == 1 else f"{base}_{taken[base]}"
        for index, value in enumerate(node.output):
            if value and value not in fixed:
                renamed[value] = node.name if index == 0 else f"{node.name}:{index}"
    for node in graph.node:
        for values in (node.input, node.output):
            for index, value in enumerate(values):
                values[index] = renamed.get(value, value)


def _module_path(node: NodeProto) -> str:
    """Returns the path of the module a node was traced in, or `net` where the exporter does not say."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            # The text is a list's repr: the modules from the outermost to the innermost, then the traced value.
            scopes = [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
            return next((scope for scope in reversed(scopes[:-1]) if scope), "net")
    return "net"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's chatter (torchvision is not needed, deprecations inside torch) while it runs."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
