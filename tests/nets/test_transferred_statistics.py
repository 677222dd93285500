"""BN statistics that are moved from those of a supernet's training, against a recalculation by plain loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalenas import Weights, recalibrate
from scalenas.inheriting import inherit
from scalenas.registry import get_space
from scalenas.shared_recalibration import SharedRecalibration
from scalenas.static import StaticNet
from scalenas.training.config import SamplingConfig
from scalenas.training.sampling import Sampling
from scalenas.transferred_statistics import TransferredStatistics, rule_for, statistics_by
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

SPACE = get_space("scalenas")
SETTINGS: dict[str, Json] = {"modules": [1, 2, 1], "stage1_blocks": 1, "depths": [1, 2], "width": 4, "joints": 3}
Moments = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def trained(rule: str = "cycle", seed: int = 3) -> Weights:
    """Weights whose header says that `train` made them, with statistics of no pictures in particular."""
    complete = SPACE.settings(SETTINGS)
    state = SPACE.supernet(complete).state_dict()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.3, generator=generator)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
    config: dict[str, Json] = {"phase": "supernet", "sampling": {"rule": rule, "random": 1}, "seed": seed}
    return Weights("supernet", "scalenas", complete, state, provenance={"config": config})


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 3, 64, 64, generator=generator) for count in (6, 4)]


def measure(net: StaticNet) -> int:
    return recalibrate(net, pictures())


def moments(net: nn.Module) -> Moments:
    return {
        name: (norm.running_mean.double().numpy().copy(), norm.running_var.double().numpy().copy())
        for name, norm in net.named_modules()
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    }


def mean_of_drawn(weights: Weights, rule: str, seed: int, nets: int) -> Moments:
    """The mean over the first subnets that training would draw, net by net."""
    sampling = Sampling(SPACE, weights.settings, SPACE.inputs(SETTINGS), SamplingConfig(rule=rule, random=1), seed)  # type: ignore[arg-type]
    drawn = [spec for step in range(nets) for spec in sampling.specs(step)][:nets]
    found: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for spec in drawn:
        net = inherit(weights, spec)
        measure(net)
        for name, pair in moments(net).items():
            found.setdefault(name, []).append(pair)
    return {
        name: (np.mean([each[0] for each in pairs], 0), np.mean([each[1] for each in pairs], 0))
        for name, pairs in found.items()
    }


@pytest.mark.parametrize("rule", ["cycle", "groups", "uniform", "sandwich"])
def test_statistics_move_by_what_the_pictures_say_of_the_net(rule: str) -> None:
    weights = trained(rule)
    typical = mean_of_drawn(weights, rule, 3, 11)
    transferred = TransferredStatistics(weights, SPACE, measure)
    for spec in (SPACE.min(SETTINGS), SPACE.max(SETTINGS), SPACE.sample(np.random.default_rng(5), settings=SETTINGS)):
        own, made = inherit(weights, spec), inherit(weights, spec)
        measure(own)
        assert transferred(made) == 10
        pictured, found = moments(own), moments(made)
        moved = 0
        for name, (mean, variance) in found.items():
            running_mean = weights.tensors[f"{name}.running_mean"].double().numpy()
            running_var = weights.tensors[f"{name}.running_var"].double().numpy()
            if name not in typical:
                np.testing.assert_array_equal(mean, pictured[name][0])
                continue
            scale = np.sqrt(np.clip(running_var / typical[name][1], 0.1, 10))
            wanted = running_mean + (pictured[name][0] - typical[name][0]) * scale
            np.testing.assert_allclose(mean, wanted, atol=1e-5, err_msg=name)
            ratio = np.clip(pictured[name][1] / typical[name][1], 0.1, 10)
            np.testing.assert_allclose(variance, running_var * ratio, rtol=1e-4, err_msg=name)
            moved += 1
        assert moved


def test_where_training_saw_these_very_pictures_they_are_the_measured_ones() -> None:
    weights = trained()
    tensors = dict(weights.tensors)
    for name, (mean, variance) in mean_of_drawn(weights, "cycle", 3, 11).items():
        tensors[f"{name}.running_mean"] = torch.from_numpy(mean).float()
        tensors[f"{name}.running_var"] = torch.from_numpy(variance).float()
    weights = replace(weights, tensors=tensors)
    made, wanted = (inherit(weights, SPACE.min(SETTINGS)) for _ in range(2))
    TransferredStatistics(weights, SPACE, measure)(made)
    measure(wanted)
    for name, (mean, variance) in moments(wanted).items():
        np.testing.assert_allclose(moments(made)[name][0], mean, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(moments(made)[name][1], variance, rtol=1e-4, err_msg=name)


def test_what_all_subnets_share_keeps_the_statistics_of_training() -> None:
    weights = trained()
    shared = SharedRecalibration(SPACE, weights.settings, pictures())
    net = inherit(weights, SPACE.min(SETTINGS))
    TransferredStatistics(weights, SPACE, shared)(net)
    stem = [name for name in moments(net) if "stem" in name]
    assert stem
    for name in stem:
        np.testing.assert_allclose(moments(net)[name][0], weights.tensors[f"{name}.running_mean"], atol=1e-6)
        np.testing.assert_allclose(moments(net)[name][1], weights.tensors[f"{name}.running_var"], rtol=1e-5)


def test_the_weights_stay_and_the_same_net_gets_the_same_again() -> None:
    weights = trained()
    before = weights.digest
    one, two = (inherit(weights, SPACE.max(SETTINGS)) for _ in range(2))
    transferred = TransferredStatistics(weights, SPACE, measure)
    transferred(one)
    transferred(inherit(weights, SPACE.min(SETTINGS)))
    transferred(two)
    for name, (mean, variance) in moments(one).items():
        np.testing.assert_array_equal(mean, moments(two)[name][0])
        np.testing.assert_array_equal(variance, moments(two)[name][1])
    del weights.__dict__["digest"]
    assert weights.digest == before


@pytest.mark.parametrize(
    ("changed", "wanted", "rule"),
    [
        (dict, None, "transferred"),
        (dict, "measured", "measured"),
        (lambda provenance: {"importer": "hrnet-pose"}, None, "measured"),
        (lambda provenance: {"config": {"phase": "teacher"}}, None, "measured"),
    ],
    ids=["trained", "asked for", "imported", "teacher"],
)
def test_the_rule_is_what_the_weights_allow(changed: object, wanted: object, rule: str) -> None:
    weights = trained()
    provenance: Mapping[str, Json] = changed(weights.provenance)  # type: ignore[operator]
    weights = replace(weights, provenance=provenance)
    assert rule_for(weights, wanted) == rule  # type: ignore[arg-type]
    assert (statistics_by(rule_for(weights), weights, SPACE, measure) is measure) == (
        provenance != trained().provenance
    )


def test_transferred_from_imported_weights_is_refused() -> None:
    weights = replace(trained(), provenance={"importer": "hrnet-pose"})
    with pytest.raises(UserError, match=r"of no supernet that `train` made; take `measured`"):
        rule_for(weights, "transferred")
