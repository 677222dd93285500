import copy
import pickle

import numpy as np
import pytest
import torch

from scalenas import Supernet, extract, get_space
from scalenas.space import Settings
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from tests.nets.lively import enliven

SPACE = get_space("scalenas")
BILINEAR: dict[str, Json] = {"mode": "bilinear", "align_corners": True}
CASES: list[tuple[str, int, Settings]] = [
    ("pose-w4", 40, {"task": "pose", "width": 4, "modules": [1, 2, 1]}),
    ("pose-w6-bilinear", 8, {"task": "pose", "width": 6, "modules": [1, 1, 1], "fuse_upsample": BILINEAR}),
    ("pose-w4-published-modules", 4, {"task": "pose", "width": 4, "modules": [1, 4, 3]}),
    ("segmentation-w4", 40, {"task": "segmentation", "width": 4, "modules": [1, 2, 1]}),
    ("segmentation-w8-aligned", 8, {"task": "segmentation", "width": 8, "modules": [1, 2, 1],
                                     "fuse_upsample": BILINEAR, "head_upsample": BILINEAR}),
    ("segmentation-w4-published-modules", 4, {"task": "segmentation", "width": 4, "modules": [1, 4, 3]}),
]  # fmt: skip
SMALL: Settings = {"task": "pose", "width": 4, "modules": [1, 1, 1]}


def supernet(settings: Settings) -> Supernet:
    net = Supernet(SPACE, settings).eval()
    enliven(net, seed=1)
    return net


def draw(count: int, settings: Settings, seed: int = 0) -> list[SubnetSpec]:
    rng = np.random.default_rng(seed)
    groups = [None, *SPACE.groups(settings)]
    return [SPACE.sample(rng, settings=settings, group=groups[index % len(groups)]) for index in range(count)]


@pytest.mark.parametrize(("count", "settings"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_extracted_net_gives_exactly_what_the_supernet_gives(count: int, settings: Settings) -> None:
    net = supernet(settings)
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    distinct = set()
    specs = [*draw(count, settings), SPACE.max(settings), SPACE.min(settings)]
    with torch.no_grad():
        for spec in specs:
            ours, theirs = net(picture, spec), extract(net, spec)(picture)
            assert torch.equal(ours, theirs)
            assert torch.isfinite(ours).all()
            distinct.add(float(ours.double().sum()))
    assert len(distinct) > 0.8 * len(specs), "different subnets should give different outputs"


def test_specs_with_one_live_form_give_the_same_output() -> None:
    net = supernet(SMALL)
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for spec in draw(8, SMALL):
            assert torch.equal(net(picture, spec), net(picture, SPACE.live(spec)))


def test_idle_weights_get_no_gradient_and_kept_ones_do() -> None:
    net = supernet(SMALL).train()
    spec = draw(1, SMALL, seed=3)[0]
    net(torch.randn(2, 3, 64, 64), spec).square().mean().backward()
    kept = {node.name for node in SPACE.graph(spec).live()}
    idle = 0
    for name, parameter in net.named_parameters():
        if any(name.startswith(node + ".") for node in kept):
            assert parameter.grad is not None, name
        else:
            assert parameter.grad is None, name
            idle += 1
    assert idle > 0


def test_train_mode_moves_statistics_of_kept_modules_alone() -> None:
    net = supernet(SMALL).train()
    spec = SPACE.min(SMALL)
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.randn(2, 3, 64, 64), spec)
    moved = {name for name, value in net.named_buffers() if not torch.equal(value, before[name])}
    kept = {node.name for node in SPACE.graph(spec).live()}
    assert moved
    assert all(any(name.startswith(node + ".") for node in kept) for name in moved)


def test_calls_leave_no_state_behind() -> None:
    net = supernet(SMALL)
    picture = torch.randn(1, 3, 64, 64)
    first, second = draw(2, SMALL)
    with torch.no_grad():
        expected = net(picture, first)
        net(picture, second)
        for other in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other(picture, first), expected)


def test_weights_are_shared_by_depth_prefix() -> None:
    settings = {**SMALL, "depths": [2, 5]}
    shallow = {node.name for node in SPACE.graph(SPACE.min(settings)).live() if ".block" in node.name}
    deep = {node.name for node in SPACE.graph(SPACE.max(settings)).live() if ".block" in node.name}
    assert shallow < deep


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"width": 8}, "width is 4 in the supernet, 8 in the spec"),
        ({"joints": 14}, "joints is 17 in the supernet, 14 in the spec"),
        ({"fuse_upsample": BILINEAR}, "fuse_upsample is .*nearest.* in the supernet, .*bilinear.* in the spec"),
        ({"task": "segmentation"}, "classes is absent in the supernet, 19 in the spec"),
    ],
    ids=["width", "joints", "upsampling", "task"],
)
def test_spec_of_other_settings_is_refused(other: Settings, message: str) -> None:
    net = supernet(SMALL)
    spec = SPACE.min({**SMALL, **other})
    with pytest.raises(UserError, match=message):
        net(torch.zeros(1, 3, 64, 64), spec)
    with pytest.raises(UserError, match=message):
        extract(net, spec)


def test_spec_of_another_family_is_refused() -> None:
    spec = SubnetSpec("elsewhere", {}, {"image": (3, 64, 64)}, {})
    with pytest.raises(UserError, match="the supernet is of family scalenas, the spec of elsewhere"):
        supernet(SMALL)(torch.zeros(1, 3, 64, 64), spec)


def test_inputs_are_given_by_name_or_alone() -> None:
    net = supernet(SMALL)
    spec = SPACE.min(SMALL)
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net({"image": picture}, spec), net(picture, spec))
    with pytest.raises(UserError, match="takes the inputs image, got picture"):
        net({"picture": picture}, spec)
