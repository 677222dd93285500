"""Operators of a net as CUDA graphs: small nets take longer to launch than to compute.

A block of a small net is some twenty kernels of a few microseconds each, and launching one from Python takes longer
than that. Recorded once, a block's forward is one launch, and so is its backward. Blocks and not whole steps are
recorded, because a supernet trains another subnet at every step, whose blocks are always some of the same ones, in the
same order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scalenas.spec import SubnetSpec
from scalenas.supernet import Supernet


def replay_blocks(net: nn.Module, x: Tensor, spec: SubnetSpec, names: list[str], *, bf16: bool) -> list[str]:
    """Makes operators of a net run as CUDA graphs, in place, and returns their names.

    Operators with one input and with weights are recorded, in the order of `names`; the others (sums, some heads) go on
    as before. Afterwards the net takes inputs of the shape of `x` alone, and calls must keep the order of `names`.

    Args:
        net: A supernet or a static net on a GPU, in train mode. Its BN statistics move a little.
        x: Normalised pictures (B, 3, H, W) on the GPU, as every step will bring them.
        spec: The subnet with every operator of the net.
        names: The operators, in the order in which they run.
        bf16: Whether the net runs under autocast to bfloat16.
    """
    modules = {name: net.get_submodule(name) for name in names}
    taken: dict[str, tuple[Tensor, ...]] = {}

    def remember(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            taken[name] = inputs

        return hook

    hooks = [module.register_forward_pre_hook(remember(name)) for name, module in modules.items()]
    # What autocast rounds must be rounded inside the graphs, at every replay anew.
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
        net(x, spec) if isinstance(net, Supernet) else net(x)
        for hook in hooks:
            hook.remove()
        chosen = [name for name in taken if len(taken[name]) == 1 and any(True for _ in modules[name].parameters())]
        arguments = tuple((_apart(taken[name][0]),) for name in chosen)
        # A tensor of this first pass would keep its autograd graph alive, which belongs to another stream.
        taken.clear()
        torch.cuda.make_graphed_callables(tuple(modules[name] for name in chosen), arguments)
    return chosen


def _apart(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_(x.requires_grad)


def replay_net(net: nn.Module, x: Tensor, *, bf16: bool) -> None:
    """Makes a frozen net run as one CUDA graph, in place, for inputs of the shape of `x`."""
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
        torch.cuda.make_graphed_callables(net, (x.clone(),))
