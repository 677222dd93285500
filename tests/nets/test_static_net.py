import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from scalenas import StaticNet, Supernet, extract, get_space, static_net
from scalenas.layers import build, register
from scalenas.names import resolve_spec
from scalenas.operators import ConvBN, Shape
from scalenas.space import Settings
from scalenas.spec import SubnetSpec
from scalenas_runtime.errors import UserError
from tests.nets.lively import enliven

SPACE = get_space("scalenas")
SMALL: Settings = {"task": "segmentation", "width": 4, "modules": [1, 1, 1]}


def sample(seed: int = 0) -> SubnetSpec:
    return SPACE.sample(np.random.default_rng(seed), settings=SMALL)


def test_forward_is_a_straight_line_of_the_live_operators() -> None:
    spec = sample()
    net = static_net(spec)
    kinds = [node.op for node in net.graph.nodes]
    assert kinds[0] == "placeholder"
    assert kinds[-1] == "output"
    assert set(kinds[1:-1]) == {"call_module"}
    assert [node.target for node in net.graph.nodes][1:-1] == [node.name for node in SPACE.graph(spec).live()]
    assert " if " not in net.code
    assert net.spec == spec


def test_net_holds_nothing_that_forward_does_not_use() -> None:
    spec = sample()
    net = static_net(spec)
    used = {node.name for node in SPACE.graph(spec).live()}
    for name in net.state_dict():
        assert any(name.startswith(node + ".") for node in used), name
    assert not any(isinstance(module, nn.Identity) for module in net.modules())


def test_dead_block_of_published_scalenet_p1_is_not_built() -> None:
    spec = resolve_spec("scalenet-p1", size=(64, 64))
    with torch.device("meta"):
        net = static_net(spec)
    published = {node.name for node in SPACE.graph(spec)}
    built = {node.target for node in net.graph.nodes if node.op == "call_module"}
    dead = sorted(published - built)
    assert dead
    assert all(name.startswith("stage4.2.") for name in dead)
    assert SPACE.cost(spec).params > sum(parameter.numel() for parameter in net.parameters())


def test_names_are_those_of_the_supernet() -> None:
    supernet = Supernet(SPACE, SMALL, seed=5)
    shared = supernet.state_dict()
    for name, tensor in static_net(sample(), seed=5).state_dict().items():
        assert torch.equal(tensor, shared[name]), name


def test_extracted_tensors_are_copies() -> None:
    supernet = Supernet(SPACE, SMALL).eval()
    enliven(supernet, seed=0)
    net = extract(supernet, sample())
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(picture)
        for tensor in (*supernet.parameters(), *supernet.buffers()):
            tensor.zero_()
        assert torch.equal(net(picture), expected)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_extracted_net_keeps_the_mode(training: bool) -> None:
    net = extract(Supernet(SPACE, SMALL).train(training), sample())
    assert all(module.training is training for module in net.modules())


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_copies_are_whole(copied: Callable[[StaticNet], StaticNet]) -> None:
    net = static_net(sample()).eval()
    enliven(net, seed=0)
    other = copied(net)
    picture = torch.randn(1, 3, 64, 64)
    assert isinstance(other, StaticNet)
    assert other.spec == net.spec
    assert not other.training
    with torch.no_grad():
        assert torch.equal(other(picture), net(picture))
    next(other.parameters()).data.zero_()
    assert not torch.equal(next(other.parameters()), next(net.parameters()))


def test_initial_weights_follow_hrnet_and_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = static_net(sample(), seed=0)
    torch.manual_seed(2)
    second = static_net(sample(), seed=0)
    other = static_net(sample(), seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weight = first.get_parameter("stem.conv2.conv.weight")
    assert not torch.equal(weight, other.get_parameter("stem.conv2.conv.weight"))
    assert float(weight.detach().std()) == pytest.approx(0.001, rel=0.05)
    assert not first.get_parameter("head.mix.bias").any()


def test_initialising_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    static_net(sample())
    assert torch.equal(torch.rand(1), expected)


class Doubling:
    """An operator that no layer computes yet."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def parts(self, *inputs: Shape) -> tuple[()]:
        return ()


def test_families_register_their_own_layers() -> None:
    with pytest.raises(UserError, match="no layer computes Doubling; register one"):
        build(Doubling())

    @register(Doubling)
    class DoublingLayer(nn.Module):
        def __init__(self, operator: Doubling) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    assert torch.equal(build(Doubling())(torch.ones(2)), torch.full((2,), 2.0))
    with pytest.raises(ValueError, match="ConvBN is computed by ConvBN already"):
        register(ConvBN)(DoublingLayer)
