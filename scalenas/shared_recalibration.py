"""Many subnets on the same pictures, BN recalibration first: what all of them compute alike is computed once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scalenas.graph import Graph, Node, reaching
from scalenas.operators import Operator
from scalenas.recalibration import recalibrate
from scalenas.space import SearchSpace, Settings
from scalenas.static import StaticNet
from scalenas_runtime.errors import UserError

MOST_BYTES = 2**30

# A node with all that it is computed from: its name, operator, and the numbers of what it reads.
_Cone = tuple[str, Operator | None, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Trunk:
    """What nets computed alike.

    Attributes:
        outputs: Of each batch, by number of the node.
        statistics: Mean and variance of each BN, by its path.
        weights: By path; a net has them too if its parameters are these very tensors.
    """

    outputs: dict[int, list[Tensor]]
    statistics: dict[str, tuple[Tensor, Tensor]]
    weights: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What nets in eval mode compute alike of batches, by number of the node."""

    batches: Sequence[Tensor]
    outputs: dict[int, list[Tensor]]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A net's nodes on both sides of what is kept.

    Attributes:
        given: Names of the nodes whose outputs are kept.
        skipped: Nodes that need not run, those of `given` among them.
        nodes: Nodes that run on what is kept.
    """

    given: tuple[str, ...]
    skipped: list[Node]
    nodes: list[Node]


class SharedRecalibration:
    """Recalibrates static nets of one supernet on the same pictures; statistics are those of `recalibrate`.

    Stem and first stage are the same in every subnet, and so is what pictures make of them. They run for the first net
    alone; their outputs are kept. A net whose weights there are not the very tensors of the first one's
    (`scalenas.inheriting.inherit` gives such) runs whole.
    """

    def __init__(
        self, space: SearchSpace, settings: Settings, batches: Iterable[Tensor], *, most_bytes: int = MOST_BYTES
    ) -> None:
        """Takes what the nets have in common.

        Args:
            space: The family.
            settings: Of the supernet.
            batches: Normalised pictures (B, 3, H, W) as the nets take them; copies are kept in channels-last order,
                in which the passes are faster.
            most_bytes: If the outputs to keep would take more, every net runs whole.

        Raises:
            UserError: there are no batches.
        """
        self._batches = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
        if not self._batches:
            raise UserError("recalibration needs at least one picture, got no batches")
        self._numbers: dict[_Cone, int] = {}
        self._kept = self._shared([space.graph(spec).live() for spec in (space.min(settings), space.max(settings))])
        self._most_bytes = most_bytes
        self._trunk: _Trunk | None = None
        self._seen: _Seen | None = None

    def __call__(self, net: StaticNet) -> int:
        """Writes BN statistics into a net of the supernet, in place, and returns the number of pictures.

        Raises:
            UserError: the net runs no BN, or a batch gives a BN one value per channel.
        """
        graph = cast(Graph, net.meta["graph"])
        numbers = self._numbered(graph)
        ends = [name for name, number in numbers.items() if number in self._kept]
        if not ends or not self._affordable(graph, ends, self._batches):
            return recalibrate(net, self._batches)
        if self._trunk is None:
            self._trunk = self._grown(net, graph, ends, numbers)
        cut = _cut(graph, numbers, self._trunk.outputs)
        if not _inherits(net, cut.skipped, self._trunk):
            return recalibrate(net, self._batches)
        _set_statistics(net, cut.skipped, self._trunk)
        if any(_norms(net.get_submodule(node.name), node.name) for node in cut.nodes):
            recalibrate(_rest(net, graph, cut), _rows(self._batches, cut, numbers, self._trunk.outputs))
        return sum(len(batch) for batch in self._batches)

    @torch.inference_mode()
    def outputs(self, net: StaticNet, batches: Sequence[Tensor]) -> list[Tensor]:
        """Returns what a net gives in eval mode for each batch, once it was recalibrated here.

        Args:
            net: A net that `__call__` was given, unchanged since.
            batches: Normalised pictures; what nets compute alike of them is kept for as long as it is the same
                sequence that is given.
        """
        graph = cast(Graph, net.meta["graph"])
        numbers = self._numbered(graph)
        kept = self._seen_in(net, graph, numbers, batches)
        if not kept:
            return [net(batch) for batch in batches]
        cut = _cut(graph, numbers, kept)
        rest = _rest(net, graph, cut)
        for row in _rows(batches, cut, numbers, kept):
            rest(*row)
        return [value for (value,) in rest.made]

    def _seen_in(
        self, net: StaticNet, graph: Graph, numbers: Mapping[str, int], batches: Sequence[Tensor]
    ) -> Mapping[int, list[Tensor]]:
        """Returns what the trunk makes of the batches, by number of the node; nothing where the net shares none."""
        if self._trunk is None:
            return {}
        cut = _cut(graph, numbers, self._trunk.outputs)
        if not cut.given or not _inherits(net, cut.skipped, self._trunk):
            return {}
        if self._seen is None or self._seen.batches is not batches:
            if not self._affordable(graph, list(cut.given), batches):
                return {}
            part = _Part(net, cut.skipped, graph.inputs, cut.given)
            for batch in batches:
                part(batch)
            self._seen = _Seen(batches, part.by_number(numbers))
        return self._seen.outputs

    def _numbered(self, graph: Graph) -> dict[str, int]:
        """Returns the number of every input and node: equal numbers in two graphs are computed alike."""
        numbers: dict[str, int] = {}
        cones: list[_Cone] = [(name, None, ()) for name in graph.inputs]
        for name, _, _ in cones:
            numbers[name] = self._numbers.setdefault((name, None, ()), len(self._numbers))
        for node in graph:
            cone = (node.name, node.operator, tuple(numbers[source] for source in node.inputs))
            numbers[node.name] = self._numbers.setdefault(cone, len(self._numbers))
        return numbers

    def _shared(self, graphs: Sequence[Graph]) -> frozenset[int]:
        """Returns the numbers of the nodes that all graphs have and that something else reads in one of them."""
        if any(len(graph.inputs) != 1 for graph in graphs):
            return frozenset()
        tables = [self._numbered(graph) for graph in graphs]
        common = set.intersection(*(set(table.values()) for table in tables))
        ends: set[int] = set()
        for graph, table in zip(graphs, tables, strict=True):
            others = [node.inputs for node in graph if table[node.name] not in common]
            ends.update(table[name] for names in (*others, graph.outputs) for name in names)
            ends.discard(table[graph.inputs[0]])
        return frozenset(ends & common)

    def _affordable(self, graph: Graph, ends: list[str], batches: Sequence[Tensor]) -> bool:
        pictures = sum(len(batch) for batch in batches)
        _, channels, height, width = batches[0].shape
        shapes = graph.shapes({graph.inputs[0]: (channels, height, width)})
        size = batches[0].element_size()
        return pictures * size * sum(math.prod(shapes[name]) for name in ends) <= self._most_bytes

    def _grown(self, net: StaticNet, graph: Graph, ends: list[str], numbers: dict[str, int]) -> _Trunk:
        names = reaching(_edges(graph), ends)
        nodes = [node for node in graph if node.name in names]
        part = _Part(net, nodes, graph.inputs, tuple(ends))
        recalibrate(part, self._batches)
        statistics: dict[str, tuple[Tensor, Tensor]] = {}
        weights: dict[str, Tensor] = {}
        for node in nodes:
            module = net.get_submodule(node.name)
            weights.update(module.named_parameters(prefix=node.name))
            for path, norm in _norms(module, node.name):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                statistics[path] = norm.running_mean.clone(), norm.running_var.clone()
        return _Trunk(part.by_number(numbers), statistics, weights)


class _Part(nn.Module):
    """Some nodes of a net, as a module over the values they read; what it gave is kept in `made`."""

    def __init__(self, net: StaticNet, nodes: Sequence[Node], given: tuple[str, ...], wanted: tuple[str, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(net.get_submodule(node.name) for node in nodes)
        self.made: list[tuple[Tensor, ...]] = []
        self._given, self._wanted = given, wanted
        last = {source: node.name for node in nodes for source in node.inputs if source not in wanted}
        self._steps = [
            (node.name, node.inputs, tuple(source for source, reader in last.items() if reader == node.name))
            for node in nodes
        ]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the values wanted, in order."""
        values = dict(zip(self._given, inputs, strict=True))
        for layer, (name, sources, finished) in zip(self.layers, self._steps, strict=True):
            values[name] = layer(*(values[source] for source in sources))
            for source in finished:
                del values[source]
        self.made.append(tuple(values[name] for name in self._wanted))
        return self.made[-1]

    def by_number(self, numbers: Mapping[str, int]) -> dict[int, list[Tensor]]:
        """Returns what was made, by number of the node and batch."""
        return {numbers[name]: [made[row] for made in self.made] for row, name in enumerate(self._wanted)}


def _cut(graph: Graph, numbers: Mapping[str, int], kept: Mapping[int, object]) -> _Cut:
    given = tuple(node.name for node in graph if numbers[node.name] in kept)
    rest = reaching(_edges(graph, stop=given), graph.outputs)
    skipped = [node for node in graph if node.name not in rest or node.name in given]
    return _Cut(given, skipped, [node for node in graph if node.name in rest and node.name not in given])


def _rest(net: StaticNet, graph: Graph, cut: _Cut) -> _Part:
    return _Part(net, cut.nodes, (graph.inputs[0], *cut.given), graph.outputs)


def _rows(
    batches: Sequence[Tensor], cut: _Cut, numbers: Mapping[str, int], kept: Mapping[int, list[Tensor]]
) -> Iterator[tuple[Tensor, ...]]:
    return zip(batches, *(kept[numbers[name]] for name in cut.given), strict=True)


def _edges(graph: Graph, stop: Sequence[str] = ()) -> list[tuple[str, tuple[str, ...]]]:
    """Returns (name, what it reads) of every node in reverse order; those of `stop` read nothing."""
    return [(node.name, () if node.name in stop else node.inputs) for node in reversed(graph.nodes)]


def _norms(module: nn.Module, path: str) -> list[tuple[str, _BatchNorm]]:
    return [
        (name, norm)
        for name, norm in module.named_modules(prefix=path)
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None
    ]


def _inherits(net: StaticNet, nodes: Sequence[Node], trunk: _Trunk) -> bool:
    return all(
        name in trunk.weights and tensor.data_ptr() == trunk.weights[name].data_ptr()
        for node in nodes
        for name, tensor in net.get_submodule(node.name).named_parameters(prefix=node.name)
    )


@torch.no_grad()
def _set_statistics(net: StaticNet, nodes: Sequence[Node], trunk: _Trunk) -> None:
    for node in nodes:
        for path, norm in _norms(net.get_submodule(node.name), node.name):
            mean, variance = trunk.statistics[path]
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
