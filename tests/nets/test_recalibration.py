import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scalenas import StaticNet, Supernet, get_space, recalibrate, static_net
from scalenas.recalibration import Variance
from scalenas.space import Settings
from scalenas_runtime.errors import UserError
from tests.nets.lively import enliven

SPACE = get_space("scalenas")
SMALL: Settings = {"task": "pose", "width": 4, "modules": [1, 1, 1]}


@pytest.fixture
def net() -> StaticNet:
    made = static_net(SPACE.sample(np.random.default_rng(0), settings=SMALL)).eval()
    enliven(made, seed=0)
    return made


def pictures(*sizes: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 3, 64, 64, generator=generator) + index for index, size in enumerate(sizes)]


def statistics(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.named_buffers() if "running" in name}


def test_eval_on_the_only_batch_equals_train_mode_on_it(net: StaticNet) -> None:
    (batch,) = pictures(4)
    with torch.no_grad():
        expected = copy.deepcopy(net).train()(batch)
        assert recalibrate(net, [batch]) == 4
        output = net(batch)
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("variance", ["total", "mean"])
def test_statistics_of_the_first_bn_equal_those_of_all_values(net: StaticNet, variance: Variance) -> None:
    batches = pictures(2, 6, 3)
    conv = net.get_submodule("stem.conv1.conv")
    with torch.no_grad():
        inputs = [conv(batch).transpose(0, 1).flatten(1).double() for batch in batches]
    every = torch.cat(inputs, dim=1)
    sizes = torch.tensor([values.shape[1] for values in inputs], dtype=torch.float64)
    within = torch.stack([values.var(dim=1, correction=0) for values in inputs])
    expected = every.var(dim=1, correction=0) if variance == "total" else (within * sizes[:, None]).sum(0) / sizes.sum()
    assert recalibrate(net, batches, variance=variance) == 11
    bn = net.get_submodule("stem.conv1.bn")
    assert isinstance(bn.running_mean, Tensor)
    assert isinstance(bn.running_var, Tensor)
    torch.testing.assert_close(bn.running_mean.double(), every.mean(dim=1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bn.running_var.double(), expected, rtol=1e-5, atol=1e-6)


def test_total_variance_holds_what_the_means_of_batches_differ_by(net: StaticNet) -> None:
    other = copy.deepcopy(net)
    batches = pictures(3, 3)
    recalibrate(net, batches, variance="total")
    recalibrate(other, batches, variance="mean")
    total, mean = statistics(net), statistics(other)
    name = "stem.conv1.bn.running_var"
    assert bool((total[name] > mean[name]).all())
    assert torch.equal(total["stem.conv1.bn.running_mean"], mean["stem.conv1.bn.running_mean"])


def test_same_batches_give_the_same_statistics_whatever_the_net_had(net: StaticNet) -> None:
    other = copy.deepcopy(net)
    for bn in other.modules():
        if isinstance(bn, nn.BatchNorm2d):
            bn.reset_running_stats()
    recalibrate(net, pictures(3, 2))
    recalibrate(other, iter(pictures(3, 2)))
    assert all(torch.equal(value, statistics(other)[name]) for name, value in statistics(net).items())


def test_weights_modes_momenta_and_counters_stay(net: StaticNet) -> None:
    net.get_submodule("stem").train()
    bn = net.get_submodule("stem.conv2.bn")
    assert isinstance(bn, nn.BatchNorm2d)
    bn.momentum = None
    modes = [module.training for module in net.modules()]
    kept = {name: value.clone() for name, value in net.state_dict().items() if "running" not in name}
    recalibrate(net, pictures(2))
    assert [module.training for module in net.modules()] == modes
    assert bn.momentum is None
    assert all(torch.equal(net.state_dict()[name], value) for name, value in kept.items())
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_random_net_behaves_after_recalibration() -> None:
    fresh = static_net(SPACE.max(SMALL)).eval()
    (batch,) = pictures(8)
    with torch.no_grad():
        before = float(fresh(batch).std())
        recalibrate(fresh, [batch])
        output = fresh(batch)
    assert before < 1e-6
    assert torch.isfinite(output).all()
    assert 1e-4 < float(output.std()) < 10


def test_supernet_takes_statistics_for_one_spec_alone() -> None:
    supernet = Supernet(SPACE, SMALL).eval()
    spec = SPACE.min(SMALL)
    before = statistics(supernet)
    assert recalibrate(supernet, [(batch, spec) for batch in pictures(2, 2)]) == 4
    changed = {name for name, value in statistics(supernet).items() if not torch.equal(value, before[name])}
    kept = {node.name for node in SPACE.graph(spec).live()}
    assert changed
    assert all(any(name.startswith(node + ".") for node in kept) for name in changed)


def test_failure_restores_the_net(net: StaticNet) -> None:
    def broken() -> Iterator[Tensor]:
        yield from pictures(2)
        raise RuntimeError("the disk is gone")

    before = statistics(net)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        recalibrate(net, broken())
    assert all(torch.equal(value, before[name]) for name, value in statistics(net).items())
    assert not any(module.training for module in net.modules())


def test_no_batches_are_refused(net: StaticNet) -> None:
    with pytest.raises(UserError, match="needs at least one picture, got no batches"):
        recalibrate(net, [])


def test_net_without_bn_is_refused() -> None:
    with pytest.raises(UserError, match="found no batch normalisation that runs in Conv2d"):
        recalibrate(nn.Conv2d(3, 4, 1), pictures(1))


def test_one_value_per_channel_is_refused(net: StaticNet) -> None:
    with pytest.raises(UserError, match="holds 1 value per channel; recalibration needs larger batches"):
        recalibrate(net, [torch.zeros(1, 3, 32, 32)])


def test_unknown_variance_is_refused(net: StaticNet) -> None:
    with pytest.raises(UserError, match="variance is 'biased', known: total, mean"):
        recalibrate(net, pictures(1), variance="biased")  # type: ignore[arg-type]
