"""Operators as CUDA graphs compute what they compute without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scalenas.registry import get_space
from scalenas.supernet import Supernet
from scalenas.training.replay import replay_blocks, replay_net

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU; torch finds none here")

SPACE = get_space("scalenas")
SETTINGS = SPACE.settings({"task": "pose", "width": 8, "modules": [1, 1, 1], "depths": [1, 2], "joints": 3})
INPUTS = SPACE.inputs(SETTINGS, {"image": (3, 64, 64)})


def made() -> Supernet:
    return Supernet(SPACE, SETTINGS, INPUTS, seed=0).train().cuda()


def gradients(net: Supernet, x: Tensor, which: str) -> dict[str, Tensor]:
    net.zero_grad(set_to_none=True)
    spec = SPACE.max(SETTINGS, INPUTS) if which == "max" else SPACE.min(SETTINGS, INPUTS)
    output = net(x, spec)
    assert isinstance(output, Tensor)
    output.square().mean().backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad.clone() for name, weight in net.named_parameters() if weight.grad is not None}


def test_subnets_of_a_recorded_supernet_get_the_gradients_of_a_plain_one() -> None:
    plain, recorded = made(), made()
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)).cuda()
    largest = SPACE.max(SETTINGS, INPUTS)
    names = [node.name for node in SPACE.graph(largest).live()]
    assert replay_blocks(recorded, x, largest, names, bf16=False)
    for which in ("max", "min", "max"):
        wanted, found = gradients(plain, x, which), gradients(recorded, x, which)
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)


def test_a_recorded_frozen_net_follows_its_input() -> None:
    net = SPACE.static(SPACE.min(SETTINGS, INPUTS)).eval().cuda().requires_grad_(False)
    first, second = torch.rand(2, 3, 64, 64).cuda(), torch.rand(2, 3, 64, 64).cuda()
    with torch.no_grad():
        wanted = net(second)
        replay_net(net, first, bf16=False)
        torch.testing.assert_close(net(second), wanted, rtol=1e-4, atol=1e-6)
