"""Nets that share a supernet's tensors: what `static_net` and `load_into` give, without copies."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from scalenas import Weights, load_into, recalibrate, static_net
from scalenas.inheriting import inherit
from scalenas.registry import get_space
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

SPACE = get_space("scalenas")
SETTINGS: dict[str, Mapping[str, Json]] = {
    "pose": {"modules": [1, 2, 1], "stage1_blocks": 1, "depths": [1, 2], "width": 4, "joints": 3},
    "segmentation": {"modules": [1, 1, 1], "depths": [1, 3], "width": 4, "task": "segmentation", "classes": 5},
}
SIZE = (64, 32)


def _weights(task: str) -> Weights:
    settings = SPACE.settings(SETTINGS[task])
    supernet = SPACE.supernet(settings)
    generator = torch.Generator().manual_seed(1)
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return Weights("supernet", "scalenas", settings, supernet.state_dict())


def _specs(task: str) -> list[SubnetSpec]:
    rng = np.random.default_rng(4)
    settings = SETTINGS[task]
    drawn = [SPACE.sample(rng, settings=settings) for _ in range(3)]
    return [SPACE.max(settings), SPACE.min(settings), *drawn]


@pytest.fixture(scope="module", params=["pose", "segmentation"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def weights(task: str) -> Weights:
    return _weights(task)


def test_outputs_and_state_are_those_of_a_net_the_weights_were_loaded_into(task: str, weights: Weights) -> None:
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    for spec in _specs(task):
        expected, made = static_net(spec).eval(), inherit(weights, spec)
        load_into(expected, weights)
        assert not any(module.training for module in made.modules())
        assert made.state_dict().keys() == expected.state_dict().keys()
        with torch.no_grad():
            assert torch.equal(made(x), expected(x))


def test_parameters_are_the_weights_own_and_statistics_are_not(task: str, weights: Weights) -> None:
    net = inherit(weights, SPACE.max(SETTINGS[task]))
    before = {name: tensor.clone() for name, tensor in weights.tensors.items()}
    for name, parameter in net.named_parameters():
        assert parameter.data_ptr() == weights.tensors[name].data_ptr()
        assert not parameter.requires_grad
    recalibrate(net, [torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))])
    for name, tensor in weights.tensors.items():
        assert torch.equal(tensor, before[name]), name
    assert any(not torch.equal(value, before[name]) for name, value in net.named_buffers() if name in before)


def test_weights_of_one_net_are_inherited_too(task: str) -> None:
    spec = _specs(task)[2]
    net = static_net(spec, seed=3).eval()
    made = inherit(Weights.of(net), spec)
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(made(x), net(x))


def test_weights_that_do_not_fit_are_refused() -> None:
    weights = _weights("pose")
    with pytest.raises(UserError, match=r"the weights do not fit the spec: .*width"):
        inherit(weights, SPACE.max({**SETTINGS["pose"], "width": 6}))
    lacking = {name: tensor for name, tensor in weights.tensors.items() if name != "head.conv.weight"}
    with pytest.raises(UserError, match=r"head\.conv\.weight"):
        inherit(Weights("supernet", "scalenas", weights.settings, lacking), SPACE.max(SETTINGS["pose"]))
    with pytest.raises(UserError, match=r"the weights are of family other, the spec of scalenas"):
        inherit(Weights("supernet", "other", weights.settings, {}), SPACE.max(SETTINGS["pose"]))


def test_two_nets_of_one_spec_share_weights_and_nothing_else(task: str, weights: Weights) -> None:
    spec = SPACE.min(SETTINGS[task])
    one, two = inherit(weights, spec), inherit(weights, spec)
    calls: list[nn.Module] = []
    for module in one.modules():
        module.register_forward_hook(lambda module, _inputs, _output: calls.append(module))
        module.train()
    for buffer in one.buffers():
        buffer.zero_()
    with torch.no_grad():
        two(torch.zeros(1, 3, *SIZE))
    assert calls == []
    assert not any(module.training for module in two.modules())
    assert all(bool((buffer != 0).any()) for name, buffer in two.named_buffers() if name.endswith("running_var"))
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert first.data_ptr() == second.data_ptr()
