"""Batch normalisation folded into the convolution before it, on a copy of the net."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

N = TypeVar("N", bound=nn.Module)


def fold(net: N) -> N:
    """Returns a copy of an eval net in which every BN that follows a convolution is part of its weights.

    The arithmetic is float64, rounded once. A BN stays where its convolution has other readers. Folded BNs become
    identities, so module paths stay what they were.

    Raises:
        ValueError: the net is in train mode, where BN has no fixed statistics.
    """
    if any(isinstance(module, nn.BatchNorm2d) and module.training for module in net.modules()):
        raise ValueError("fold() needs a net in eval mode, call net.eval() first")
    folded = copy.deepcopy(net)
    for conv_path, norm_path in _pairs(folded):
        conv, norm = folded.get_submodule(conv_path), folded.get_submodule(norm_path)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _merge(conv, norm)
        parent, _, name = norm_path.rpartition(".")
        setattr(folded.get_submodule(parent), name, nn.Identity())
    return folded


def _pairs(net: nn.Module) -> list[tuple[str, str]]:
    pairs = []
    modules = dict(net.named_modules())
    trace = fx.symbolic_trace(net)
    uses = [node.target for node in trace.graph.nodes if node.op == "call_module"]
    for node in trace.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        (source,) = node.all_input_nodes
        is_conv = source.op == "call_module" and isinstance(modules[source.target], nn.Conv2d)
        # A module that runs twice has one weight and could fit only one of its BNs.
        alone = uses.count(node.target) == 1 and (not is_conv or uses.count(source.target) == 1)
        if is_conv and alone and len(source.users) == 1:
            pairs.append((source.target, node.target))
    return pairs


def folded_scale(norm: nn.BatchNorm2d) -> Tensor:
    """Returns what a BN multiplies each channel with, float64 (C,)."""
    assert norm.running_var is not None
    scale = (norm.running_var.detach().double() + norm.eps).rsqrt()
    return scale * norm.weight.detach().double() if norm.affine else scale


def folded_shift(conv: nn.Conv2d, norm: nn.BatchNorm2d, scale: Tensor) -> Tensor:
    """Returns the bias of a convolution with its BN folded, float64 (C,); `scale` is that of the BN."""
    assert norm.running_mean is not None
    shift = -norm.running_mean.detach().double()
    if conv.bias is not None:
        shift += conv.bias.detach().double()
    shift *= scale
    return shift + norm.bias.detach().double() if norm.affine else shift


@torch.no_grad()
def _merge(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    scale = folded_scale(norm)
    weight = conv.weight.double() * scale[:, None, None, None]
    shift = folded_shift(conv, norm, scale)
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
