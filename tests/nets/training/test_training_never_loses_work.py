"""Kills, full disks, spoiled files and NaN: what is lost is at most what came after the last checkpoint."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scalenas.data.samples import Feed
from scalenas.training import checkpoint as files
from scalenas.training.checkpoint import (
    Best,
    Checkpoint,
    amend_checkpoint,
    newest,
    read_checkpoint,
    write_checkpoint,
)
from scalenas.training.journal import read_log
from scalenas.training.run import Place, Run
from scalenas.training.start import frame_of
from scalenas_runtime.errors import CheckFailed, UserError
from tests.nets.training import killed, toys

ROOT = Path(__file__).resolve().parents[3]


def _checkpoint(step: int, value: float = 1.0, best: Best | None = None) -> Checkpoint:
    net = {"conv.weight": torch.full((3, 2), value), "bn.num_batches_tracked": torch.tensor(step)}
    optimiser = {"conv.weight": {"exp_avg": torch.full((3, 2), step / 7), "step": torch.tensor(float(step))}}
    return Checkpoint(step, net, optimiser, torch.get_rng_state(), {"seed": 0}, best, 1.5)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_reads_back_as_it_was(tmp_path: Path) -> None:
    wrote = _checkpoint(5, best=Best(5, 0.25))
    read = read_checkpoint(write_checkpoint(tmp_path, wrote))
    assert (read.step, read.config, read.best, read.seconds) == (5, {"seed": 0}, Best(5, 0.25), 1.5)
    assert read.net.keys() == wrote.net.keys()
    assert all(torch.equal(read.net[name], wrote.net[name]) for name in wrote.net)
    assert torch.equal(read.optimiser["conv.weight"]["exp_avg"], wrote.optimiser["conv.weight"]["exp_avg"])
    assert torch.equal(read.random, wrote.random)


def test_the_last_two_and_the_best_stay(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        write_checkpoint(tmp_path, _checkpoint(step, best=Best(min(step, 4), 0.5)))
    assert _names(tmp_path) == ["step-00000004", "step-00000008", "step-00000010"]


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_with_a_word(file: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _checkpoint(2, 2.0))
    path = write_checkpoint(tmp_path, _checkpoint(4, 4.0))
    data = (path / file).read_bytes()
    (path / file).write_bytes(data[: len(data) // 2])
    found = newest(tmp_path)
    assert found is not None
    assert found[0].step == 2
    assert "step-00000004 is no checkpoint that can be read" in found[1][0]
    (tmp_path / "step-00000002" / file).unlink()
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
        newest(tmp_path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, _checkpoint(2))
    record = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**record, "schema": "scalenas.checkpoint/9"}))
    with pytest.raises(UserError, match="its schema is not"):
        read_checkpoint(path)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _checkpoint(2))
    with pytest.raises(CheckFailed, match=r"after step 4 conv.weight .* not finite; the last good .*step-00000002"):
        write_checkpoint(tmp_path, _checkpoint(4, float("nan")))
    assert _names(tmp_path) == ["step-00000002"]


@contextmanager
def _full_disk(size: int) -> Iterator[None]:
    # Writing beyond the limit fails as it does on a full disk, with another number.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _checkpoint(2))
    with _full_disk(512), pytest.raises(UserError, match=r"cannot write .*step-00000004.*; the last good .*00000002"):
        write_checkpoint(tmp_path, _checkpoint(4))
    assert _names(tmp_path) == ["step-00000002"]
    assert read_checkpoint(tmp_path / "step-00000002").step == 2


def test_what_a_kill_left_half_written_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-00000002.abc").mkdir(parents=True)
    (tmp_path / ".step-00000002.abc" / "state.safetensors").write_bytes(b"half")
    assert newest(tmp_path) is None
    write_checkpoint(tmp_path, _checkpoint(2))
    assert _names(tmp_path) == ["step-00000002"]


def test_a_readable_checkpoint_of_the_same_step_is_never_replaced(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, _checkpoint(2, 1.0))
    inode = path.stat().st_ino
    write_checkpoint(tmp_path, _checkpoint(2, 2.0))
    assert path.stat().st_ino == inode
    assert float(read_checkpoint(path).net["conv.weight"][0, 0]) == 1
    amend_checkpoint(tmp_path, 2, best=Best(2, 0.5), extra={"judged": 2})
    read = read_checkpoint(path)
    assert (read.best, read.extra, float(read.net["conv.weight"][0, 0])) == (Best(2, 0.5), {"judged": 2}, 1)
    with pytest.raises(UserError, match=r"cannot write the checkpoint .*step-00000004.*the last good .*00000002"):
        amend_checkpoint(tmp_path, 4, best=None, extra={})
    (path / "state.safetensors").write_bytes(b"half")
    write_checkpoint(tmp_path, _checkpoint(2, 3.0))
    assert float(read_checkpoint(path).net["conv.weight"][0, 0]) == 3


def _state(run: Run) -> dict[str, Tensor]:
    moments = {f"{name}/{key}": value for name, each in run.optimiser.state().items() for key, value in each.items()}
    return {**run.tensors(), **moments}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, _state(killed.run(folder, resume=False))


def test_kill_9_and_resume_give_the_weights_of_an_undisturbed_run(
    undisturbed: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    script = [sys.executable, str(ROOT / "tests" / "nets" / "training" / "killed.py"), str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), *[path for path in sys.path if path]])
    process = subprocess.Popen(script, env={**os.environ, "PYTHONPATH": paths})
    wait = random.Random(0).choice([0.0, 0.05])
    deadline = time.monotonic() + 60
    try:
        while newest(tmp_path / "checkpoints") is None and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        time.sleep(wait)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = newest(tmp_path / "checkpoints")
    assert found is not None
    assert 0 < found[0].step < killed.STEPS
    resumed = _state(killed.run(tmp_path, resume=True))
    assert resumed.keys() == undisturbed[1].keys()
    different = [name for name, value in resumed.items() if not torch.equal(value, undisturbed[1][name])]
    assert different == []
    # The log has every step once, as if nothing had happened.
    logs = [[(line["step"], line.get("task")) for line in read_log(folder)] for folder in (undisturbed[0], tmp_path)]
    assert logs[0] == logs[1]


def test_minutes_end_a_run_cleanly_and_it_goes_on(undisturbed: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    config = toys.config(schedule={"steps": killed.STEPS}, evaluation=killed.EVALUATION, minutes=1e-9)
    short = Run(config, toys.pose_supply(), Place(tmp_path, quiet=True))
    assert short.train() == "stopped"
    assert short.done == 1
    resumed = _state(killed.run(tmp_path, resume=True))
    assert all(torch.equal(value, undisturbed[1][name]) for name, value in resumed.items())


def test_resuming_a_finished_run_leaves_its_checkpoint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(toys.config(schedule={"steps": 2}), toys.pose_supply(), Place(tmp_path, quiet=True)).train()
    monkeypatch.setattr("scalenas.training.run.write_checkpoint", _never)
    again = Run(toys.config(schedule={"steps": 2}), toys.pose_supply(), Place(tmp_path, quiet=True))
    again.resume()
    assert again.train() == "finished"


def _never(*_: object) -> None:
    raise AssertionError("a checkpoint was written anew")


@pytest.mark.parametrize("error", [UserError, ValueError])
def test_a_picture_that_cannot_be_read_ends_a_run_with_a_checkpoint(error: type[Exception], tmp_path: Path) -> None:
    config = toys.config(schedule={"steps": 8}, checkpoint_steps=100)
    order = [Feed(config.batch, config.seed).index(place, 8) for place in range(8)]
    torn = replace(toys.pose_supply(), samples=toys.Torn(order[5], error=error), digest="same")
    kind, last = (UserError, "; the last good .*00000002") if error is UserError else (RuntimeError, "")
    with pytest.raises(kind, match=f"dots-{order[5]} is truncated{last}"):
        Run(config, torn, Place(tmp_path, quiet=True)).train()
    assert _names(tmp_path / "checkpoints") == ["step-00000002"]
    # The picture is left out, which is said; the length of the run stays.
    fewer = replace(torn, samples=toys.Torn(-1, count=7))
    run = Run(config, fewer, Place(tmp_path, quiet=True))
    assert run.resume() == ["an epoch had 8 samples and has 7 now, so the rest comes in another order"]
    assert run.train() == "finished"


def test_the_length_of_a_run_does_not_change_with_its_samples(tmp_path: Path) -> None:
    config = toys.config(schedule={"epochs": 2, "steps": None}, minutes=1e-9)
    first = Run(config, toys.pose_supply(), Place(tmp_path, quiet=True))
    first.train()
    fewer = Run(config, replace(toys.pose_supply(), samples=toys.Dots(60)), Place(tmp_path, quiet=True))
    fewer.resume()
    assert fewer.steps == first.steps == 64


def test_an_evaluation_that_fails_loses_no_step_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toys.config(schedule={"steps": 4}, checkpoint_steps=100, evaluation={"steps": 2, "limit": 2})

    def fail(*_: object, **__: object) -> None:
        raise UserError("3.png: it cannot be read")

    run = Run(config, toys.pose_supply(), Place(tmp_path, quiet=True))
    with monkeypatch.context() as patch:
        patch.setattr(run.judge, "judge", fail)
        with pytest.raises(UserError, match=r"3\.png: it cannot be read"):
            run.train()
    assert _names(tmp_path / "checkpoints") == ["step-00000002"]
    again = Run(config, toys.pose_supply(), Place(tmp_path, quiet=True))
    again.resume()
    assert again.train() == "finished"
    judged = {line["step"]: line["pck"] for line in read_log(tmp_path) if "pck" in line}
    assert list(judged) == [2, 4]
    found = newest(tmp_path / "checkpoints")
    assert found is not None
    assert found[0].best is not None
    assert found[0].best.value == max(judged.values())  # type: ignore[type-var]


def test_a_changed_spec_file_does_not_go_on(tmp_path: Path) -> None:
    frame = frame_of(toys.config(), toys.POSE, None)
    file = tmp_path / "spec.json"
    config = toys.config(phase="alone", model={"spec": str(file)}, minutes=1e-9)
    frame.space.max(frame.settings, frame.inputs).write(file)
    Run(config, toys.pose_supply(), Place(tmp_path, quiet=True)).train()
    frame.space.min(frame.settings, frame.inputs).write(file)
    with pytest.raises(UserError, match=r"another configuration: spec: \w+ there, \w+ here"):
        Run(config, toys.pose_supply(), Place(tmp_path, quiet=True)).resume()


def test_another_configuration_does_not_go_on(tmp_path: Path) -> None:
    first = Run(toys.config(minutes=1e-9), toys.pose_supply(), Place(tmp_path, quiet=True))
    first.train()
    other = Run(toys.config(optimiser={"lr": 0.5}, batch=8), toys.pose_supply(), Place(tmp_path, quiet=True))
    with pytest.raises(UserError, match=r"another configuration: batch: 2 -> 8; optimiser.lr: 0.005 -> 0.5"):
        other.resume()


def test_other_data_or_another_start_do_not_go_on(tmp_path: Path) -> None:
    supply = replace(toys.pose_supply(), digest="one")
    first = Run(toys.config(minutes=1e-9), supply, Place(tmp_path, quiet=True))
    first.commits, first.parents = ["older"], {"teacher": "t1"}
    first.train()
    other = Run(toys.config(), replace(supply, digest="two"), Place(tmp_path, quiet=True))
    other.parents = {"teacher": "t2"}
    with pytest.raises(UserError, match=r"data: one there, two here; digest of the teacher: t1 there, t2 here"):
        other.resume()
    same = Run(toys.config(), supply, Place(tmp_path, quiet=True))
    (now,) = same.commits
    same.resume()
    assert same.commits == ["older", now]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_its_own_step_and_moves_nothing(clip: float | None, tmp_path: Path) -> None:
    evaluation = {"steps": 1, "limit": 1}
    config = toys.config(optimiser={"clip": clip}, checkpoint_steps=100, evaluation=evaluation)
    run = Run(config, toys.pose_supply(), Place(tmp_path, quiet=True))
    weight = run.net.get_parameter("stem.conv1.conv.weight")
    calls = iter(range(10))
    weight.register_hook(lambda grad: grad * (float("nan") if next(calls) == 1 else 1.0))  # type: ignore[no-untyped-call]
    text = (
        rf"step 1: the loss is \d\S* and the norm of its gradients nan with subnet {run.specs(1)[0].digest[:16]}; .*01;"
    )
    with pytest.raises(CheckFailed, match=text):
        run.train()
    found = newest(tmp_path / "checkpoints")
    assert found is not None
    assert found[0].step == 1
    assert all(torch.equal(found[0].net[name], value) for name, value in run.net.named_parameters())


def test_nan_stops_with_step_subnet_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = toys.config(optimiser={"lr": 1e30, "kind": "sgd"}, checkpoint_steps=1)
    run = Run(config, toys.pose_supply(), Place(tmp_path, quiet=True))
    with pytest.raises(CheckFailed) as caught:
        run.train()
    text = str(caught.value)
    number = run.done
    assert f"step {number}: the loss is" in text or f"after step {number}" in text
    if "the loss is" in text:
        assert run.specs(number)[0].digest[:16] in text
    kept = _names(tmp_path / "checkpoints") if (tmp_path / "checkpoints").exists() else []
    assert (kept[-1] if kept else "there is no checkpoint yet") in text
    assert all(
        torch.isfinite(value).all()
        for name in kept
        for value in files.read_checkpoint(tmp_path / "checkpoints" / name).net.values()
    )
