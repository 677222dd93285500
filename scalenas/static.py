"""Static nets: a spec as a plain module with a straight-line forward."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import fx, nn

from scalenas.graph import Graph
from scalenas.layers import build, initialise
from scalenas.registry import get_space
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas.supernet import Supernet


class StaticNet(fx.GraphModule):
    """One subnet as a module: a generated forward without conditions, one `call_module` per operator.

    Module paths are the node names of the family's graph, the same as in the supernet, so weights are exchanged by
    name. `print(net.code)` shows the forward. Made by `static_net` and `extract`.
    """

    @property
    def spec(self) -> SubnetSpec:
        """The spec the net was made from."""
        return cast(SubnetSpec, self.meta["spec"])

    def __reduce__(self) -> tuple[object, ...]:
        # GraphModule's own pickling traces anew and loses class and spec.
        graph = cast(Graph, self.meta["graph"])
        modules = {node.name: self.get_submodule(node.name) for node in graph}
        return assemble, (self.spec, graph, modules, self.training)


def static_net(spec: SubnetSpec, *, space: SearchSpace | None = None, seed: int = 0) -> StaticNet:
    """Returns the subnet of `spec` with initial weights, in train mode as torch's modules are.

    Args:
        spec: Any spec; what is dead in it is left out.
        space: The family, where it is not registered.
        seed: Seed of the weights; they equal those of a supernet of the same seed (`scalenas.layers.initialise`).

    Raises:
        UserError: unknown family, or the spec is invalid.
    """
    family = space or get_space(spec.space)
    family.layers()
    graph = family.graph(spec).live()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = {node.name: build(node.operator) for node in graph}
    net = assemble(spec, graph, modules, training=True)
    initialise(net, seed)
    return net


def extract(supernet: Supernet, spec: SubnetSpec) -> StaticNet:
    """Returns the subnet of `spec` with copies of the supernet's weights and statistics, in the supernet's mode.

    In eval its outputs equal `supernet(x, spec)` exactly: the same operators on the same numbers in the same order.

    Raises:
        UserError: the spec has another family or other settings than the supernet, or is invalid.
    """
    supernet.check(spec)
    graph = supernet.space.graph(spec).live()
    modules = {node.name: copy.deepcopy(supernet.get_submodule(node.name)) for node in graph}
    return assemble(spec, graph, modules, training=supernet.training)


def assemble(spec: SubnetSpec, graph: Graph, modules: dict[str, nn.Module], training: bool) -> StaticNet:
    """Returns the net that joins modules as a live graph says; they keep the mode they come with.

    Args:
        spec: What the graph was made from.
        graph: Nodes without dead ones.
        modules: One of each node, by its name; they become the net's own.
        training: Mode of the net itself.
    """
    trace = fx.Graph()
    values = {name: trace.placeholder(name) for name in graph.inputs}
    for node in graph:
        values[node.name] = trace.call_module(node.name, tuple(values[source] for source in node.inputs))
    outputs = tuple(values[name] for name in graph.outputs)
    trace.output(outputs[0] if len(outputs) == 1 else outputs)
    net = StaticNet(modules, trace, class_name="StaticNet")
    net.meta.update(spec=spec, graph=graph)
    # The generated containers start in train mode.
    for module in net.modules():
        if isinstance(module, StaticNet) or type(module) is nn.Module:
            module.training = training
    return net
