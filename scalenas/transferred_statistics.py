"""BN statistics of a subnet on the data that its supernet was trained on, without these data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scalenas.inheriting import inherit
from scalenas.space import Inputs, SearchSpace
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet
from scalenas.training.config import SamplingConfig
from scalenas.training.sampling import Sampling
from scalenas.weights import Weights
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import read_record

Rule = Literal["transferred", "measured"]

# As many as the released cycle has slots.
_NETS = 11
# How far a subnet's variance may lie from the mean subnet's; beyond, the few pictures say little.
_LIMIT = 10.0
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class _Moments:
    """Mean and variance of each channel, float64."""

    mean: Tensor
    variance: Tensor


def is_transferable(weights: Weights) -> bool:
    """Returns whether the running statistics of weights are of a supernet's training, drawn subnet by subnet."""
    config = weights.provenance.get("config")
    return weights.kind == "supernet" and isinstance(config, Mapping) and config.get("phase") == "supernet"


def rule_for(weights: Weights, wanted: Rule | None = None) -> Rule:
    """Returns where BN statistics of subnets come from: what is wanted, or `transferred` where that can be.

    Raises:
        UserError: `transferred` is wanted, and the weights are of no supernet that `train` made.
    """
    possible = is_transferable(weights)
    if wanted == "transferred" and not possible:
        raise UserError(
            "BN statistics are transferred from those that training left in a supernet, and these weights are of no "
            "supernet that `train` made; take `measured`"
        )
    return wanted or ("transferred" if possible else "measured")


def statistics_by(
    rule: Rule, weights: Weights, space: SearchSpace, measure: Callable[[StaticNet], int]
) -> Callable[[StaticNet], int]:
    """Returns what writes BN statistics into a net of a supernet, in place, and returns the number of pictures.

    Args:
        rule: `measured` is `measure` itself; `transferred` gives a `TransferredStatistics`.
        weights: Of the supernet.
        space: Its family.
        measure: Writes into a net the statistics that pictures give, and returns their number.
    """
    return TransferredStatistics(weights, space, measure) if rule == "transferred" else measure


class TransferredStatistics:
    """Sets BN statistics of subnets as if they had been measured on the supernet's training data.

    The supernet's running statistics are of the right data, but of a mean over the subnets that training drew. What
    other pictures give for a subnet is of the right subnet, but of the wrong data. So the difference that the pictures
    show between the subnet and the mean of drawn subnets moves the running statistics: with r for running, p for the
    pictures, and a bar for the mean over subnets drawn as training drew them,

        mean = mean_r + (mean_p - bar mean_p) * sqrt(var_r / bar var_p)
        var  = var_r * var_p / bar var_p

    where both ratios stay within a tenth and ten.
    """

    def __init__(self, weights: Weights, space: SearchSpace, measure: Callable[[StaticNet], int]) -> None:
        """Takes the supernet and how statistics are measured.

        Args:
            weights: Of a supernet that `train` made (`is_transferable`).
            space: Its family.
            measure: Writes into a net the statistics that the pictures give, and returns the number of pictures.
        """
        self._weights, self._space, self._measure = weights, space, measure
        self._typical: dict[str, _Moments] | None = None

    def __call__(self, net: StaticNet) -> int:
        """Writes the statistics into a net of the supernet, in place, and returns the number of pictures used.

        All nets must have the inputs of the first one. A BN that none of the drawn subnets has keeps what the pictures
        give.

        Raises:
            UserError: the net is not of the supernet.
        """
        if self._typical is None:
            self._typical = self._measured_typical(net.spec.inputs)
        pictures = self._measure(net)
        tensors = self._weights.tensors
        for name, module in _norms(net):
            typical = self._typical.get(name)
            if typical is None:
                continue
            running = _Moments(tensors[f"{name}.running_mean"].double(), tensors[f"{name}.running_var"].double())
            moved = _moved(running, _moments(module), typical)
            with torch.no_grad():
                cast(Tensor, module.running_mean).copy_(moved.mean)
                cast(Tensor, module.running_var).copy_(moved.variance)
        return pictures

    def _measured_typical(self, inputs: Inputs) -> dict[str, _Moments]:
        sums: dict[str, tuple[int, Tensor, Tensor]] = {}
        for spec in islice(self._drawn(inputs), _NETS):
            net = inherit(self._weights, spec, space=self._space)
            self._measure(net)
            for name, module in _norms(net):
                found = _moments(module)
                number, mean, variance = sums.get(name, (0, torch.zeros(()), torch.zeros(())))
                sums[name] = (number + 1, mean + found.mean, variance + found.variance)
        return {name: _Moments(mean / number, variance / number) for name, (number, mean, variance) in sums.items()}

    def _drawn(self, inputs: Inputs) -> Iterator[SubnetSpec]:
        """Yields subnets as the supernet's training drew them."""
        config = cast(Mapping[str, object], self._weights.provenance["config"])
        rule = read_record(SamplingConfig, config.get("sampling") or {}, what="sampling rule of the weights")
        seed = config.get("seed")
        drawn = Sampling(self._space, self._weights.settings, inputs, rule, seed if isinstance(seed, int) else 0)
        for step in count():
            yield from drawn.specs(step)


def _norms(net: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    return ((name, module) for name, module in net.named_modules() if isinstance(module, _BatchNorm))


def _moments(module: _BatchNorm) -> _Moments:
    return _Moments(cast(Tensor, module.running_mean).double(), cast(Tensor, module.running_var).double())


def _moved(running: _Moments, own: _Moments, typical: _Moments) -> _Moments:
    floor = typical.variance.clamp_min(_TINY)
    scale = (running.variance / floor).clamp(1 / _LIMIT, _LIMIT).sqrt()
    mean = running.mean + (own.mean - typical.mean) * scale
    return _Moments(mean, running.variance * (own.variance / floor).clamp(1 / _LIMIT, _LIMIT))
