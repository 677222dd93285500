"""Random weights and statistics with which a net's outputs are neither nothing nor everything."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def enliven(net: nn.Module, seed: int) -> None:
    """Gives every convolution and BN random values, in place."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            module.weight.normal_(0, fan**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(-0.5, 1.0, generator=generator)
            module.bias.normal_(0, 0.2, generator=generator)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
