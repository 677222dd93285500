"""One step of training: forward, teacher, losses, backward, and the move of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from scalenas.data.loader import Batch
from scalenas.spec import SubnetSpec
from scalenas.supernet import Supernet
from scalenas.training.config import TrainConfig
from scalenas.training.loss import TaskLoss, Total, output_distance
from scalenas.training.optimisers import Optimiser
from scalenas.training.pictures import normalised
from scalenas.training.ranks import Ranks
from scalenas_runtime.tasks import Recipe


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of a step, means over all processes and over the subnets of the step.

    Attributes:
        task: Against the labels.
        distance: Against the teacher's outputs; 0 without one.
        total: What was minimised, alpha included.
        gradient: Norm of all gradients together, before it is clipped.
    """

    task: float
    distance: float
    total: float
    gradient: float

    @property
    def finite(self) -> bool:
        """True where loss and gradients are numbers, false where one is NaN or infinite."""
        return math.isfinite(self.total) and math.isfinite(self.gradient)


@dataclass(frozen=True)
class Teacher:
    """A frozen net, in eval mode, and the weight of the distance to it."""

    net: nn.Module
    alpha: float

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Returns the teacher's undecoded outputs, without gradient."""
        return cast(Tensor, self.net(x))


@dataclass(frozen=True)
class Step:
    """What takes steps.

    Attributes:
        net: The supernet, or the one net that is trained.
        loss: The task's loss.
        optimiser: Of all the net's weights.
        config: Precision.
        recipe: How pictures become inputs.
        ranks: The processes that train together.
        teacher: None trains on labels alone.
        device: Where the net is.
    """

    net: nn.Module
    loss: TaskLoss
    optimiser: Optimiser
    config: TrainConfig
    recipe: Recipe
    ranks: Ranks
    teacher: Teacher | None
    device: torch.device

    def __call__(self, specs: Sequence[SubnetSpec], batch: Batch, factor: float) -> Losses:
        """Trains the subnets of a step on a batch, adding their gradients, and returns the losses before the move.

        Where a loss or a gradient is not finite no weight moves.

        Args:
            specs: Subnets of the supernet; for a single net, its own spec.
            batch: This process's part of the step's pictures.
            factor: Learning rate as a factor of the largest.
        """
        self.optimiser.zero_grad()
        x = self.pictures(batch)
        target = batch.target.to(self.device, non_blocking=True)
        weight = None if batch.weight is None else batch.weight.to(self.device, non_blocking=True)
        wanted = None
        if self.teacher is not None:
            with self._precision():
                wanted = self.teacher(x)
        sums = torch.zeros(2, device=self.device)
        alpha = 0.0 if self.teacher is None else self.teacher.alpha
        for spec in specs:
            with self._precision():
                output = self._forward(x, spec)
            task = self._mean(self.loss(output, target, weight))
            total, distance = task, None
            if wanted is not None:
                distance = self._mean(output_distance(output, wanted))
                total = task + alpha * distance
            total.backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([task.detach(), task.new_zeros(()) if distance is None else distance.detach()])
        sums = self.ranks.sum(sums) / (self.ranks.world * len(specs))
        self.ranks.average_gradients(self.optimiser.parameters.values())
        norm = self.optimiser.gradient_norm()
        # One message to the host for all four numbers: on a GPU each would wait for the whole step.
        losses = Losses(*torch.cat([sums, sums[:1] + alpha * sums[1:], norm.reshape(1).to(sums)]).tolist())
        if losses.finite:
            self.optimiser.step(factor, norm)
        return losses

    def pictures(self, batch: Batch) -> Tensor:
        """Returns what the nets take of a batch: (B, 3, H, W) on the device, in the configuration's memory format."""
        x = normalised(batch.pictures.to(self.device, non_blocking=True), self.recipe)
        return x if self.config.channels_last else x.contiguous()

    def _forward(self, x: Tensor, spec: SubnetSpec) -> Tensor:
        return cast(Tensor, self.net(x, spec) if isinstance(self.net, Supernet) else self.net(x))

    def _mean(self, total: Total) -> Tensor:
        # Gradients are averaged over the processes afterwards, so each one's part is scaled up to a share of the whole.
        count = self.ranks.sum(total.count).clamp_min(1e-12)
        return total.sum * self.ranks.world / count

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16")
