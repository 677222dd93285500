"""Static nets with a supernet's weights, made in hundredths of a second: what a search asks for by the thousand."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import cast

import torch
from torch import nn

from scalenas import operators
from scalenas.layers import build
from scalenas.operators import Operator
from scalenas.registry import get_space
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet, assemble
from scalenas.supernet import differing_settings
from scalenas.weights import COUNTER, Weights, check_names
from scalenas_runtime.errors import UserError

# The constructors of their layers make convolutions and BNs and nothing else, so that no value is lost on a device
# without storage.
_PLAIN = frozenset(
    (
        *(operators.ConvBN, operators.BasicBlock, operators.Bottleneck, operators.FuseUp, operators.FuseDown),
        *(operators.AddReLU, operators.PoseHead, operators.SegmentationHead),
    )
)


def inherit(weights: Weights, spec: SubnetSpec, *, space: SearchSpace | None = None) -> StaticNet:
    """Returns the static net of `spec` with the weights of a supernet, in eval mode.

    It computes what `static_net` and `load_into` give, but no initial weights are drawn and nothing large is copied:
    its parameters *are* the tensors of `weights`, and must not be changed in place. BN statistics are the net's own.

    Args:
        weights: Of a supernet that has the spec, or of that very net.
        spec: What is dead in it is left out.
        space: The family, where it is not registered.

    Raises:
        UserError: another family or other settings, the spec is invalid, or tensors are missing or misshaped.
    """
    family = space or get_space(spec.space)
    if weights.space != family.name or spec.space != family.name:
        raise UserError(f"the weights are of family {weights.space}, the spec of {spec.space}")
    difference = differing_settings(("weights", weights.settings), ("spec", family.settings(spec.settings)))
    if difference:
        raise UserError(f"the weights do not fit the spec: {difference}")
    family.layers()
    graph = family.graph(spec).live()
    modules = {node.name: _module(node.operator) for node in graph}
    _fill(modules, weights)
    return assemble(spec, graph, modules, training=False)


def _module(operator: Operator) -> nn.Module:
    if type(operator) not in _PLAIN:
        return build(operator).eval()
    return _twin(_template(cast(Hashable, operator)))


@lru_cache(maxsize=4096)
def _template(operator: Hashable) -> nn.Module:
    """Returns the module of an operator without storage; nobody changes it."""
    with torch.device("meta"):
        return build(cast(Operator, operator)).eval()


def _twin(module: nn.Module) -> nn.Module:
    """Returns a copy that shares nothing but the tensors, far faster than a module's constructor makes one."""
    twin = object.__new__(type(module))
    state = {name: value.copy() if isinstance(value, dict | set) else value for name, value in vars(module).items()}
    state["_modules"] = {name: None if child is None else _twin(child) for name, child in module._modules.items()}
    vars(twin).update(state)
    return twin


def _fill(modules: Mapping[str, nn.Module], weights: Weights) -> None:
    """Puts the weights into the modules, in place.

    Raises:
        UserError: tensors are missing, surplus or misshaped; the modules are unchanged then.
    """
    places = {f"{path}.{leaf}": (owner, leaf) for path, owner, leaf in _leaves(modules)}
    needed = {name: getattr(owner, leaf) for name, (owner, leaf) in places.items() if leaf != COUNTER}
    given = weights.tensors
    if weights.kind == "supernet":
        given = {name: tensor for name, tensor in given.items() if name in needed}
    check_names(needed, given, what="the weights")
    for name, (owner, leaf) in places.items():
        if leaf == COUNTER:
            setattr(owner, leaf, torch.zeros((), dtype=torch.long))
        elif isinstance(needed[name], nn.Parameter):
            setattr(owner, leaf, nn.Parameter(given[name], requires_grad=False))
        else:
            setattr(owner, leaf, given[name].clone())


def _leaves(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module, str]]:
    """Yields (path of the owner, owner, name in the owner) of all that a state has."""
    for root, module in modules.items():
        state = module.state_dict(prefix=f"{root}.")
        for path, owner in module.named_modules(prefix=root):
            for leaf, _ in chain(owner.named_parameters(recurse=False), owner.named_buffers(recurse=False)):
                if f"{path}.{leaf}" in state:
                    yield path, owner, leaf
