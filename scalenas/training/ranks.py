"""Several processes that train as one: sums over processes, averaged gradients, BN statistics of the whole batch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scalenas_runtime.errors import UserError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: 0-based number of this process.
        world: Number of processes; 1 needs no communication, and then every method is the identity.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """True in the process that writes files and talks."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Returns the sum of every process's tensor, without gradient; `value` stays as it is."""
        if self.world == 1:
            return value.detach()
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes.

        Weights without a gradient are left out: all processes train the same subnet, so they lack the same ones.
        """
        if self.world == 1:
            return
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, torch.split(flat, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites tensors with those of the first process."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def shared(self, value: object) -> Any:
        """Returns the first process's value in all processes; values are plain data."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        """Ends the communication."""
        if self.world > 1:
            dist.destroy_process_group()


def join(*, cuda: bool = False) -> Ranks:
    """Returns this process's place among those that `torchrun` started, or a single one outside of it.

    Args:
        cuda: Each process computes on a GPU of its own, and they talk over NCCL; otherwise on CPUs, over gloo.

    Raises:
        UserError: more processes on this machine than GPUs.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    if cuda:
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise UserError(f"process {local} of this machine finds {gpus} GPUs; start no more than there are")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())


class _SumOverRanks(torch.autograd.Function):
    """A sum over processes whose gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class BatchNormOverRanks(nn.BatchNorm2d):
    """BN whose statistics in train mode are those of all processes' batches; torch's own refuses CPU tensors."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns a tensor of the shape and type of `input` (B, C, H, W); batches may differ in size."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        axes = (0, 2, 3)
        local = torch.cat([x.sum(axes), x.new_tensor([x.numel() / x.shape[1]])])
        total = _sum_over_ranks(local)
        count = total[-1].detach()
        mean = total[:-1] / count
        # Two passes: squares of values far from zero would lose the variance in float32.
        centred = x - mean[:, None, None]
        variance = _sum_over_ranks(centred.square().sum(axes)) / count
        scale = self.weight * (variance + self.eps).rsqrt()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp_min(1)), self.momentum)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def over_ranks(net: nn.Module, ranks: Ranks) -> None:
    """Gives every BN of a net statistics over all processes, in place; weights and buffers stay the same tensors."""
    if ranks.world == 1:
        return
    for module in list(net.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                replaced = BatchNormOverRanks(child.num_features, child.eps, cast(float, child.momentum))
                replaced.weight, replaced.bias = child.weight, child.bias
                replaced.running_mean, replaced.running_var = child.running_mean, child.running_var
                replaced.num_batches_tracked = child.num_batches_tracked
                replaced.training = child.training
                setattr(module, name, replaced)


def _sum_over_ranks(value: Tensor) -> Tensor:
    return cast(Tensor, _SumOverRanks.apply(value))  # type: ignore[no-untyped-call]
