"""What emitters write an ONNX graph with: nodes and values named by module, weights in float32, shapes kept in step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scalenas_export.graphs import IR_VERSION, OPSET

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

Attribute = int | float | str | tuple[int, ...]
Attributes = Mapping[str, Attribute]
Shape = tuple[int, int, int]

PRODUCER = "scalenas_export.fast_graph"


class CannotEmit(Exception):
    """A layer, or a variant of one, that no emitter knows; the text says which and is no error of the user's."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: its name, and its shape (channels, height, width) for one picture."""

    name: str
    shape: Shape


class GraphWriter:
    """Collects nodes and weights in the order in which they are computed.

    Names are those of the full export: a node is called `{module path}/{operator}`, further ones of the same module
    `_2`, `_3`, and its output is called as the node is.
    """

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}
        self._taken: Counter[str] = Counter()
        self._attributes: dict[tuple[str, tuple[tuple[str, Attribute], ...]], list[AttributeProto]] = {}

    def node(
        self, kind: str, path: str, inputs: Sequence[str], shape: Shape, *, attributes: Attributes | None = None
    ) -> Value:
        """Adds a node of one output and returns that.

        Args:
            kind: ONNX operator of the default domain.
            path: Path of the module it belongs to.
            inputs: Names of values and weights, an empty name for an input that is left out.
            shape: Of the output.
            attributes: By name, all that the operator needs.
        """
        from onnx import NodeProto

        base = f"{path}/{kind}"
        self._taken[base] += 1
        name = base if self._taken[base] == 1 else f"{base}_{self._taken[base]}"
        node = NodeProto(op_type=kind, name=name, input=inputs, output=[name])
        if attributes:
            node.attribute.extend(self._made(kind, attributes))
        self._nodes.append(node)
        return Value(name, shape)

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Adds a weight or constant and returns its name; a name that is there already keeps its first array."""
        from onnx import TensorProto, helper

        if name not in self._tensors:
            self._tensors[name] = TensorProto(
                name=name,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                dims=array.shape,
                raw_data=array.tobytes(),
            )
        return name

    def model(self, given: Value, made: Value, output: str) -> ModelProto:
        """Returns the graph: input `given`, and what `made` is under the name `output`; both float32, batch 1.

        Raises:
            CannotEmit: the input itself is the output.
        """
        from onnx import ModelProto, OperatorSetIdProto
        from onnx import TensorProto as Tensor
        from onnx.helper import make_tensor_value_info as info

        if made.name == given.name:
            raise CannotEmit("a net without layers")
        for node in self._nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == made.name:
                        names[index] = output
        model = ModelProto(
            ir_version=IR_VERSION,
            producer_name=PRODUCER,
            opset_import=[OperatorSetIdProto(version=OPSET)],
        )
        graph = model.graph
        graph.name = "main_graph"
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._tensors.values())
        graph.input.append(info(given.name, Tensor.FLOAT, (1, *given.shape)))
        graph.output.append(info(output, Tensor.FLOAT, (1, *made.shape)))
        return model

    def _made(self, kind: str, attributes: Attributes) -> list[AttributeProto]:
        # A net has a handful of distinct sets of attributes, and making them anew is most of a node's time.
        from onnx import helper

        key = (kind, tuple(attributes.items()))
        if key not in self._attributes:
            self._attributes[key] = [helper.make_attribute(name, value) for name, value in attributes.items()]
        return self._attributes[key]


def factors_name(factors: NDArray[np.float32]) -> str:
    """Returns the name that the full export gives the factors of a Resize (batch, channels, height, width)."""
    return "resize/factors_" + "x".join(f"{factor:g}" for factor in factors.tolist()[2:])
