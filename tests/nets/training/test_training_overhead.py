"""What a step leaves out because it changes nothing: the results are the same to the bit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from scalenas.registry import get_space
from scalenas.static import static_net
from scalenas.supernet import Supernet
from scalenas.training.checkpoint import read_checkpoint
from scalenas.training.finish import finish
from scalenas.training.run import Place, Run, round_convolutions
from tests.nets.lively import enliven
from tests.nets.training import toys

SPACE = get_space("scalenas")


@pytest.mark.parametrize("task", SPACE.tasks)
def test_a_frozen_net_in_bf16_gives_the_same_under_autocast(task: str) -> None:
    net = static_net(SPACE.max({"task": task, "width": 4, "modules": [1, 1, 1]})).eval()
    enliven(net, seed=1)
    picture = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = net(picture)
        round_convolutions(net)
        after = net(picture)
    assert torch.isfinite(before).all()
    assert torch.equal(before, after)
    assert {module.weight.dtype for module in net.modules() if isinstance(module, nn.Conv2d)} == {torch.bfloat16}


def test_the_teacher_of_a_bf16_run_is_rounded_and_of_an_fp32_run_is_not(tmp_path: Path) -> None:
    first = Run(toys.config(phase="teacher", schedule={"steps": 1}), toys.pose_supply(), Place(tmp_path, quiet=True))
    first.train()
    weights = str(finish(first, command="x").weights)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        config = toys.config(precision=precision, distillation={"teacher": weights})
        teacher = Run(config, toys.pose_supply(), Place(tmp_path / precision, quiet=True)).step.teacher
        assert teacher is not None
        assert {each.weight.dtype for each in teacher.net.modules() if isinstance(each, nn.Conv2d)} == {dtype}


def test_a_module_that_is_replaced_is_the_one_that_runs() -> None:
    net = Supernet(SPACE, {"task": "pose", "width": 4, "modules": [1, 1, 1]}).eval()
    spec = SPACE.min(net.settings)
    picture = torch.randn(1, 3, 64, 64)
    twin = copy.deepcopy(net)
    net.add_module("head", nn.Hardtanh(-2, -1))
    with torch.no_grad():
        assert net(picture, spec).max() <= -1
        # The copy has modules of its own.
        assert twin(picture, spec).shape[1] == 17
    assert twin.get_submodule("head") is not net.get_submodule("head")


def test_training_nets_have_no_counters_and_checkpoints_with_counters_are_read(tmp_path: Path) -> None:
    run = Run(toys.config(schedule={"steps": 2}), toys.pose_supply(), Place(tmp_path, quiet=True))
    assert not any("num_batches_tracked" in name for name in run.net.state_dict())
    run.train()
    path = run.checkpoints / "step-00000002"
    checkpoint = read_checkpoint(path)
    older = {**checkpoint.net, "stem.conv1.bn.num_batches_tracked": torch.tensor(7)}
    run._load(older)
    assert all(torch.equal(value, checkpoint.net[name]) for name, value in run.tensors().items())
