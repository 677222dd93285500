"""Parameters and multiply-adds of nets, counted from their operators: exact, additive, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scalenas.graph import Graph, Node
from scalenas.operators import Operator, Part, Shape


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters and multiply-adds (MACs) of one picture through a net or a part of it; costs add.

    Attributes:
        params: Learnable parameters.
        macs: Multiply-adds, the plain count.
    """

    params: int = 0
    macs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs)

    @property
    def mparams(self) -> float:
        """Parameters in millions (10^6)."""
        return self.params / 1e6

    @property
    def gmacs(self) -> float:
        """MACs / 2^30: the unit of the tables of ScaleNAS and of the HRNet repositories."""
        return self.macs / 2**30

    @property
    def gmacs_decimal(self) -> float:
        """MACs / 10^9: the unit of the HigherHRNet tables and of most other papers."""
        return self.macs / 1e9


@dataclass(frozen=True, slots=True)
class Counting:
    """What a cost includes. The defaults are the published convention of ScaleNAS and HRNet.

    Attributes:
        live: Count only what reaches an output; published figures include dead blocks and fusions.
        bn_params: Count the scale and shift of batch normalisation as parameters.
        bn_macs: Count one MAC per element of every batch normalisation's output (Lite-HRNet's tables).
        attention: Count the two matrix products of attention (ViT-ResNAS, HR-NAS).
        scope: Count only nodes whose dotted name starts with one of these (whole words); empty means all.
    """

    live: bool = False
    bn_params: bool = True
    bn_macs: bool = False
    attention: bool = True
    scope: tuple[str, ...] = ()

    def of_parts(self, parts: Iterable[Part]) -> Cost:
        """Returns the cost of an operator's parts."""
        params = macs = 0
        for part in parts:
            if part.kind != "bn" or self.bn_params:
                params += part.params
            if self._counts_macs(part.kind):
                macs += part.macs
        return Cost(params, macs)

    def in_scope(self, name: str) -> bool:
        """Returns whether the node called `name` counts."""
        return not self.scope or any(f"{name}.".startswith(f"{prefix}.") for prefix in self.scope)

    def _counts_macs(self, kind: str) -> bool:
        if kind == "bn":
            return self.bn_macs
        return self.attention or kind != "attention"


PUBLISHED = Counting()
LIVE = Counting(live=True)


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """One node of a net with its shapes and its cost: a row of a profile, a feature for a predictor.

    Attributes:
        id: Name of the node, which is also its module path.
        kind: Name of the operator's class.
        operator: The operator itself.
        inputs: Shapes (channels, height, width) of the node's inputs, in order.
        output: Shape (channels, height, width) of the node's output.
        cost: Parameters and MACs.
    """

    id: str
    kind: str
    operator: Operator
    inputs: tuple[Shape, ...]
    output: Shape
    cost: Cost

    @property
    def params(self) -> int:
        """Learnable parameters."""
        return self.cost.params

    @property
    def macs(self) -> int:
        """Multiply-adds, the plain count."""
        return self.cost.macs


def blocks(graph: Graph, inputs: Mapping[str, Shape], counting: Counting = PUBLISHED) -> tuple[BlockRecord, ...]:
    """Returns one record per node of `graph` that counts, in the graph's order.

    Args:
        graph: The net, as published; with `counting.live` its dead nodes are left out.
        inputs: Shape (channels, height, width) of every graph input.
        counting: What counts.

    Raises:
        ValueError: the shapes do not fit; the node is named.
    """
    counted = graph.live() if counting.live else graph
    shapes = counted.shapes(inputs)
    return tuple(_record(node, shapes, counting) for node in counted if counting.in_scope(node.name))


def graph_cost(graph: Graph, inputs: Mapping[str, Shape], counting: Counting = PUBLISHED) -> Cost:
    """Returns the cost of `graph`, summed over `blocks`."""
    return total(record.cost for record in blocks(graph, inputs, counting))


def total(costs: Iterable[Cost]) -> Cost:
    """Returns the sum of costs."""
    params = macs = 0
    for cost in costs:
        params += cost.params
        macs += cost.macs
    return Cost(params, macs)


def _record(node: Node, shapes: Mapping[str, Shape], counting: Counting) -> BlockRecord:
    inputs = tuple(shapes[name] for name in node.inputs)
    cost = counting.of_parts(node.operator.parts(*inputs))
    kind = type(node.operator).__name__
    return BlockRecord(node.name, kind, node.operator, inputs, shapes[node.name], cost)
