"""Small surgery on ONNX graphs that several steps of the export share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

OPSET = 18
IR_VERSION = 9


def static_shape(value: ValueInfoProto) -> tuple[int, ...]:
    """Returns the shape of a graph's input, output or inner value.

    Raises:
        UserError: a size is not a number.
    """
    sizes = []
    for dimension in value.type.tensor_type.shape.dim:
        if not dimension.HasField("dim_value"):
            known = dimension.dim_param or "?"
            raise UserError(
                f"{value.name!r} has the dynamic size {known!r}; engines here take static shapes, so fix it first"
            )
        sizes.append(dimension.dim_value)
    return tuple(sizes)


def dtype_name(value: ValueInfoProto) -> str:
    """Returns the NumPy dtype name of a value, such as `uint8`."""
    from onnx import helper

    return str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name)


def opset_version(model: ModelProto) -> int:
    """Returns the version of ONNX's own operators that a graph uses, 1 where it does not say."""
    return max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)


def constants(graph: GraphProto) -> dict[str, NDArray[Any]]:
    """Returns the arrays of all initialisers and Constant nodes by name."""
    from onnx import numpy_helper

    found = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def add_constant(graph: GraphProto, name: str, array: NDArray[Any]) -> str:
    """Adds an initialiser unless one of that name is there, and returns its name."""
    from onnx import numpy_helper

    if all(item.name != name for item in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name


def set_initialiser(graph: GraphProto, name: str, array: NDArray[Any]) -> None:
    """Replaces the array of an initialiser."""
    from onnx import numpy_helper

    (item,) = (each for each in graph.initializer if each.name == name)
    item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def prepend(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    """Puts nodes before all others: ONNX wants topological order."""
    later = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *later])


def drop_unused(graph: GraphProto, keep: Iterable[str] = ()) -> None:
    """Removes nodes and initialisers that no output (and none of the values `keep`) needs."""
    needed = {output.name for output in graph.output} | set(keep)
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(_outer_names(node))
    used = [item for item in graph.initializer if item.name in needed]
    for field, items in ((graph.node, kept[::-1]), (graph.initializer, used)):
        copies = list(items)
        del field[:]
        field.extend(copies)


def with_batch(model: ModelProto, batch: int) -> ModelProto:
    """Returns a copy of a static model whose inputs and outputs have `batch` as their first size.

    Raises:
        UserError: the graph computes with its batch size, so that another one does not fit it.
    """
    import onnx

    other = type(model)()
    other.CopyFrom(model)
    del other.graph.value_info[:]
    for value in (*other.graph.input, *other.graph.output):
        static_shape(value)
        value.type.tensor_type.shape.dim[0].dim_value = batch
    try:
        inferred = onnx.shape_inference.infer_shapes(other, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise UserError(
            f"the graph is made for batch {static_shape(model.graph.input[0])[0]} and takes no batch of {batch}: "
            f"{' '.join(str(error).split())}"
        ) from None
    del inferred
    return other


def _outer_names(node: NodeProto) -> set[str]:
    names: set[str] = set()
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                names.update(each.input)
                names.update(_outer_names(each))
    return names
