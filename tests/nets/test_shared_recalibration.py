"""Recalibration that runs what all nets have in common once: the statistics are those of `recalibrate`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scalenas import Weights, load_into, recalibrate, static_net
from scalenas.inheriting import inherit
from scalenas.registry import get_space
from scalenas.shared_recalibration import SharedRecalibration
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

SPACE = get_space("scalenas")
POSE: dict[str, Json] = {"modules": [1, 2, 1], "stage1_blocks": 1, "depths": [1, 2], "width": 4, "joints": 3}
SETTINGS: dict[str, Mapping[str, Json]] = {
    "pose": POSE,
    "segmentation": {"modules": [1, 1, 1], "depths": [1, 3], "width": 4, "task": "segmentation", "classes": 5},
}


def _weights(settings: Mapping[str, Json]) -> Weights:
    complete = SPACE.settings(settings)
    return Weights("supernet", "scalenas", complete, SPACE.supernet(complete).state_dict())


def _batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Of different sizes, so that the weighting counts.
    return [torch.randn(count, 3, 64, 64, generator=generator) for count in (4, 4, 2)]


def _specs(settings: Mapping[str, Json]) -> list[SubnetSpec]:
    rng = np.random.default_rng(7)
    drawn = [SPACE.sample(rng, settings=settings) for _ in range(3)]
    return [*drawn, SPACE.max(settings), SPACE.min(settings), drawn[0]]


def _expect_alike(made: StaticNet, expected: StaticNet) -> None:
    compared = 0
    for (name, norm), other in zip(made.named_modules(), expected.modules(), strict=True):
        if isinstance(norm, nn.BatchNorm2d):
            assert isinstance(other, nn.BatchNorm2d)
            for ours, theirs in ((norm.running_mean, other.running_mean), (norm.running_var, other.running_var)):
                assert ours is not None
                assert theirs is not None
                scale = float(theirs.abs().max())
                assert float((ours - theirs).abs().max()) <= 1e-4 * scale, name
            compared += 1
    assert compared


@pytest.mark.parametrize("task", SETTINGS)
def test_statistics_are_those_of_a_plain_recalibration(task: str) -> None:
    settings = SETTINGS[task]
    weights = _weights(settings)
    shared = SharedRecalibration(SPACE, weights.settings, _batches())
    for spec in _specs(settings):
        made, expected = inherit(weights, spec), inherit(weights, spec)
        assert shared(made) == recalibrate(expected, _batches()) == 10
        _expect_alike(made, expected)


def test_the_same_net_gets_the_same_statistics_whatever_came_before() -> None:
    weights = _weights(POSE)
    first, *others = _specs(POSE)[:3]
    fresh, used = (SharedRecalibration(SPACE, weights.settings, _batches()) for _ in range(2))
    for spec in others:
        used(inherit(weights, spec))
    one, other = inherit(weights, first), inherit(weights, first)
    fresh(one)
    used(other)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_common_part_runs_for_the_first_net_alone() -> None:
    weights = _weights(POSE)
    shared = SharedRecalibration(SPACE, weights.settings, _batches())
    runs: list[int] = []

    def counted(net: StaticNet) -> StaticNet:
        net.get_submodule("stem.conv1").register_forward_hook(lambda module, inputs, output: runs.append(1))
        return net

    for spec in _specs(POSE)[:3]:
        shared(counted(inherit(weights, spec)))
    assert len(runs) == 3  # three batches, one net


@pytest.mark.parametrize("reason", ["other tensors", "too much memory"])
def test_a_net_that_cannot_share_runs_whole(reason: str) -> None:
    weights = _weights(POSE)
    most = 1000 if reason == "too much memory" else 2**30
    shared = SharedRecalibration(SPACE, weights.settings, _batches(), most_bytes=most)
    spec = _specs(POSE)[0]
    shared(inherit(weights, spec))
    made, expected = inherit(weights, spec), inherit(weights, spec)
    if reason == "other tensors":
        made = static_net(spec).eval()
        load_into(made, weights)
    shared(made)
    recalibrate(expected, _batches())
    _expect_alike(made, expected)


def test_no_pictures_are_refused() -> None:
    with pytest.raises(UserError, match=r"needs at least one picture, got no batches"):
        SharedRecalibration(SPACE, SPACE.settings(POSE), [])


@pytest.mark.parametrize("task", SETTINGS)
def test_outputs_are_those_of_the_whole_net_also_when_pictures_change(task: str) -> None:
    settings = SETTINGS[task]
    weights = _weights(settings)
    shared = SharedRecalibration(SPACE, weights.settings, _batches())
    pictures, others = (
        [torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for count in (3, 1)]
        for seed in (1, 2)
    )
    for spec in _specs(settings):
        net = inherit(weights, spec)
        shared(net)
        for batches in (pictures, others, pictures):
            found = list(shared.outputs(net, batches))
            with torch.inference_mode():
                expected = [net(batch) for batch in batches]
            for ours, theirs in zip(found, expected, strict=True):
                scale = float(theirs.abs().max())
                assert float((ours - theirs).abs().max()) <= 1e-5 * scale
    # A net with weights of its own runs whole.
    strange = inherit(_weights(settings), SPACE.max(settings))
    shared(strange)
    (first, *_) = shared.outputs(strange, pictures)
    with torch.inference_mode():
        assert torch.equal(first, strange(pictures[0]))
