"""Optimisers in which weights that a step does not use stay exactly as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from scalenas.training.config import OptimiserConfig

State = dict[str, dict[str, Tensor]]


class Optimiser:
    """torch's SGD, Adam or AdamW over named weights.

    All three pass over a weight whose `grad` is None: no momentum, no decay, no count of the step. So a subnet's step
    leaves the other subnets' own weights alone, as long as gradients are dropped and not zeroed: `zero_grad` here does.
    """

    def __init__(self, config: OptimiserConfig, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.config = config
        self.parameters = dict(parameters)
        matrices = [each for each in self.parameters.values() if config.decay_all or each.dim() > 1]
        vectors = [each for each in self.parameters.values() if not config.decay_all and each.dim() <= 1]
        groups = [
            {"params": members, "weight_decay": decay}
            for members, decay in ((matrices, config.weight_decay), (vectors, 0.0))
            if members
        ]
        self.torch = _make(config, groups)

    def zero_grad(self) -> None:
        """Drops all gradients."""
        self.torch.zero_grad(set_to_none=True)

    def gradient_norm(self) -> Tensor:
        """Returns the norm of all gradients together, a scalar on their device; not finite if one of them is not."""
        return torch.nn.utils.get_total_norm(each.grad for each in self.parameters.values() if each.grad is not None)

    def step(self, factor: float, norm: Tensor | None = None) -> None:
        """Moves the weights that have a gradient.

        Args:
            factor: Learning rate as a factor of the largest.
            norm: What `gradient_norm` gave, for clipping; found anew if None.
        """
        if self.config.clip is not None:
            norm = self.gradient_norm() if norm is None else norm
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self.config.clip, norm)
        for group in self.torch.param_groups:
            group["lr"] = self.config.lr * factor
        self.torch.step()

    def state(self) -> State:
        """Returns the state of every weight that was ever moved, by name; the tensors are the optimiser's own."""
        found = {name: self.torch.state.get(weight, {}) for name, weight in self.parameters.items()}
        return {
            name: {key: value for key, value in values.items() if isinstance(value, Tensor)}
            for name, values in found.items()
            if values
        }

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets the state that `state` gave, copied; weights that it does not name have none.

        Raises:
            KeyError: a name that is no weight of this optimiser.
        """
        self.torch.state.clear()
        for name, values in state.items():
            weight = self.parameters[name]
            self.torch.state[weight] = {key: _like(weight, value) for key, value in values.items()}


def _make(config: OptimiserConfig, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
    if config.kind == "sgd":
        # Its fused kernel refuses a step in which some weights move for the first time and others do not.
        return torch.optim.SGD(groups, config.lr, momentum=config.momentum, nesterov=config.nesterov, foreach=True)
    # The fused kernels do in one call what costs ten small ones for each of a thousand tensors.
    if config.kind == "adam":
        return torch.optim.Adam(groups, config.lr, betas=config.betas, fused=True)
    return torch.optim.AdamW(groups, config.lr, betas=config.betas, fused=True)


def _like(weight: Tensor, value: Tensor) -> Tensor:
    if value.shape != weight.shape:
        return value.to(weight.device, copy=True)
    # In the weight's memory format, as the optimiser itself makes its state.
    return torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)
