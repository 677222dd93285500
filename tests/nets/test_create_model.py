import subprocess
import sys
from pathlib import Path

import pytest
import torch

import scalenas
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError


def test_named_net_comes_ready_to_run() -> None:
    net = scalenas.create_model("hrnet-w4", size=(64, 64), joints=5)
    assert not net.training
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 16, 16)
    assert net.spec == scalenas.resolve_spec("hrnet-w4", size=(64, 64), joints=5)


def test_weights_file_decides_joints_and_values(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    source = scalenas.create_model("hrnet-w4", size=(64, 64), joints=5, seed=7)
    scalenas.save_weights(path, scalenas.Weights.of(source))
    net = scalenas.create_model("hrnet-w4", size=(64, 64), weights=path)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), source.parameters(), strict=True))
    with pytest.raises(UserError, match="width is 4 in the weights, 6 in the static net"):
        scalenas.create_model("hrnet-w6", weights=path)
    with pytest.raises(UserError, match="joints is 5 in the weights, 17 in the static net"):
        scalenas.create_model("hrnet-w4", joints=17, weights=path)


def test_spec_of_weights_is_enough() -> None:
    aligned: dict[str, Json] = {"mode": "bilinear", "align_corners": True}
    spec = scalenas.get_space("scalenas").min(
        {"task": "segmentation", "width": 4, "modules": [1, 1, 1], "classes": 3, "fuse_upsample": aligned}
    )
    source = scalenas.create_model(spec, size=(64, 96), seed=3)
    weights = scalenas.Weights.of(source)
    assert weights.spec is not None
    net = scalenas.create_model(weights.spec, weights=weights)
    assert net.spec == source.spec
    assert net(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 16, 24)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), source.parameters(), strict=True))


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(UserError, match=r"unknown net 'scalenet-p9'; near: .*scalenet-p1"):
        scalenas.create_model("scalenet-p9")


def test_menu_is_complete_and_needs_no_torch_until_used() -> None:
    code = (
        "import sys, scalenas\n"
        "scalenas.resolve_spec('hrnet-w32'); scalenas.list_models(); scalenas.get_space('scalenas')\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "import scalenas.recalibration\n"
        "for name in scalenas.__all__: assert callable(getattr(scalenas, name)), name\n"
        "assert set(scalenas.__all__) <= set(dir(scalenas))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_of_the_menu_lists_what_is_there() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'create_net'; it has .*create_model"):
        scalenas.create_net  # noqa: B018
