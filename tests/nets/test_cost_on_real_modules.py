"""The analytic cost against an independent count: hooks on the convolutions of the real module."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scalenas import Supernet, get_space, static_net
from scalenas.cost import LIVE, Cost
from scalenas.names import resolve_spec
from scalenas.space import Settings

SPACE = get_space("scalenas")
CASES: list[tuple[str, int, list[int], int]] = [
    (task, width, modules, 17)
    for task in ("pose", "segmentation")
    for width in (4, 10, 18)
    for modules in ([1, 1, 1], [1, 2, 1])
] + [("pose", 6, [1, 4, 3], 3), ("segmentation", 6, [1, 4, 3], 3)]


def counted(net: nn.Module, picture: Tensor) -> Cost:
    macs = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, nn.Conv2d)
        macs += output.numel() * module.weight[0].numel()

    for module in net.modules():
        assert not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv3d | nn.ConvTranspose2d)
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(picture)
    return Cost(sum(parameter.numel() for parameter in net.parameters()), macs)


@pytest.mark.parametrize(
    ("task", "width", "modules", "count"),
    CASES,
    ids=[f"{task}-w{width}-{modules}" for task, width, modules, _ in CASES],
)
def test_table_equals_count_on_the_real_module(task: str, width: int, modules: list[int], count: int) -> None:
    assert sum(case[-1] for case in CASES) >= 200
    settings: Settings = {"task": task, "width": width, "modules": modules}
    rng = np.random.default_rng(7)
    groups = [None, *SPACE.groups(settings)]
    for index in range(count):
        spec = SPACE.sample(rng, settings=settings, inputs={"image": (3, 64, 32)}, group=groups[index % len(groups)])
        net = static_net(spec).eval()
        assert counted(net, torch.zeros(1, 3, 64, 32)) == SPACE.cost(spec, counting=LIVE)


@pytest.mark.parametrize("task", ["pose", "segmentation"])
def test_published_count_equals_the_modules_that_a_spec_names(task: str) -> None:
    settings: Settings = {"task": task, "width": 6}
    supernet = Supernet(SPACE, settings)
    rng = np.random.default_rng(3)
    for _ in range(10):
        spec = SPACE.sample(rng, settings=settings)
        named = [supernet.get_submodule(node.name) for node in SPACE.graph(spec)]
        assert SPACE.cost(spec).params == sum(p.numel() for module in named for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "size", "params", "gmacs"),
    [("hrnet-w32", (256, 192), 28.536, 7.120), ("hrnet-w18-seg", (1024, 2048), 9.64, 137.3)],
    ids=["pose", "segmentation"],
)
def test_published_figures_hold_on_the_real_module(
    name: str, size: tuple[int, int], params: float, gmacs: float
) -> None:
    with torch.device("meta"):
        cost = counted(static_net(resolve_spec(name)).eval(), torch.empty(1, 3, *size))
    assert cost.mparams == pytest.approx(params, abs=0.006)
    assert cost.gmacs == pytest.approx(gmacs, rel=5e-4)


def test_whole_supernet_has_the_published_size() -> None:
    for task, params in (("pose", 47.610), ("segmentation", 47.850)):
        with torch.device("meta"):
            net = Supernet(SPACE, {"task": task, "width": 32})
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(params, abs=0.0006)
