"""BN recalibration: statistics that fit one subnet, measured on pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from scalenas_runtime.errors import UserError

Variance = Literal["total", "mean"]


@dataclass(slots=True)
class _Sums:
    """Sums over all values of each channel, float64."""

    count: int
    mean: Tensor
    variance: Tensor
    square: Tensor


def recalibrate(net: nn.Module, batches: Iterable[Tensor | tuple[object, ...]], *, variance: Variance = "total") -> int:
    """Measures the BN statistics of `net` on pictures, writes them into the net, and returns the number of pictures.

    A supernet's running statistics mix all subnets and fit none. Here every BN normalises with its batch's own
    statistics, whose averages, weighted by the number of values, become `running_mean` and `running_var` of the BNs
    that ran (Cai et al., ICLR 2020; Cheng et al., AutoML 2022). Modes and momenta are as before afterwards; the
    same batches in the same order give the same statistics.

    Args:
        net: A static net; weights are not changed.
        batches: Normalised pictures (B, 3, H, W) as the net takes them, on its device; a tuple is given as
            several arguments. Larger batches give steadier statistics.
        variance: `total` is the variance over all values of all batches; `mean` averages the variances within
            batches, as the published code does, and so leaves out how the batches' means differ.

    Raises:
        UserError: there are no batches, the net runs no BN, a batch gives a BN one value per channel, or
            `variance` is neither.
    """
    if variance not in get_args(Variance):
        raise UserError(f"variance is {variance!r}, known: {', '.join(get_args(Variance))}")
    sums: dict[_BatchNorm, _Sums] = {}
    pictures = 0
    with torch.no_grad(), _batch_statistics(net, sums):
        for batch in batches:
            arguments = batch if isinstance(batch, tuple) else (batch,)
            net(*arguments)
            pictures += next(value.shape[0] for value in arguments if isinstance(value, Tensor))
        if pictures == 0:
            raise UserError("recalibration needs at least one picture, got no batches")
        if not sums:
            raise UserError(f"recalibration found no batch normalisation that runs in {type(net).__name__}")
    with torch.no_grad():
        for module, total in sums.items():
            _write(module, total, variance)
    return pictures


@contextmanager
def _batch_statistics(net: nn.Module, sums: dict[_BatchNorm, _Sums]) -> Iterator[None]:
    modules = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    modes = [(module, module.training) for module in net.modules()]
    before = [
        (module, module.momentum, {key: value.clone() for key, value in module.named_buffers(recurse=False)})
        for module in modules
    ]
    hooks: list[RemovableHandle] = []
    try:
        net.eval()
        for module in modules:
            module.train()
            # A forward pass then leaves its batch's own statistics behind, which it computes anyway.
            module.momentum = 1.0
            # Not torch's reset, which wants a counter of batches; nets in training have none.
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.zero_()
                module.running_var.fill_(1)
            hooks.append(module.register_forward_pre_hook(_check))
            hooks.append(module.register_forward_hook(partial(_add, sums)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, momentum, buffers in before:
            module.momentum = momentum
            for key, value in buffers.items():
                module.get_buffer(key).copy_(value)
        for any_module, training in modes:
            any_module.training = training


def _check(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    x = arguments[0]
    if (count := x.numel() // x.shape[1]) < 2:
        raise UserError(
            f"a batch of shape {tuple(x.shape)} at a batch normalisation holds {count} value per channel; "
            "recalibration needs larger batches or pictures"
        )


def _add(sums: dict[_BatchNorm, _Sums], module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
    assert isinstance(module, _BatchNorm)
    x = arguments[0]
    count = x.numel() // x.shape[1]
    means, variances = _statistics(module, x, count)
    parts = _Sums(count, means * count, variances * count, (variances + means.square()) * count)
    known = sums.get(module)
    if known is None:
        sums[module] = parts
        return
    known.count += count
    known.mean += parts.mean
    known.variance += parts.variance
    known.square += parts.square


def _statistics(module: _BatchNorm, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of each channel of the batch that just ran, float64."""
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None or mean.dtype not in (torch.float32, torch.float64):
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x.float(), dim=axes, correction=0)
        return mean.double(), variance.double()
    # torch keeps the unbiased variance.
    return mean.double(), variance.double() * ((count - 1) / count)


def _write(module: _BatchNorm, sums: _Sums, variance: Variance) -> None:
    mean = sums.mean / sums.count
    total = sums.square / sums.count - mean.square()
    chosen = total.clamp_min(0) if variance == "total" else sums.variance / sums.count
    if module.running_mean is not None and module.running_var is not None:
        module.running_mean.copy_(mean)
        module.running_var.copy_(chosen)
