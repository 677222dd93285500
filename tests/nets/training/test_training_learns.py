"""The method as a whole on tiny tasks: losses fall, metrics beat what no training gives, and results are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scalenas.static import static_net
from scalenas.training.finish import Finished, finish, table
from scalenas.training.journal import read_log
from scalenas.training.run import Place, Run
from scalenas.training.supply import Supply
from scalenas.transferred_statistics import TransferredStatistics
from scalenas.weights import load_into, load_weights
from scalenas_runtime.errors import UserError
from tests.nets.training import toys

# What a net that knows nothing reaches: one class everywhere is below a third, and a dot is 11 pixels wide.
FLOORS = {"pose": 0.25, "segmentation": 0.6}


def _supply(task: str) -> Supply:
    return toys.pose_supply() if task == "pose" else toys.class_supply()


def _trained(folder: Path, task: str, **changes: object) -> tuple[Run, Finished]:
    config = toys.config(
        schedule={"steps": 60, "shape": "one-cycle", "warmup": 0.2},
        optimiser={"lr": 0.02},
        batch=8,
        checkpoint_steps=60,
        log_steps=10,
        **({"loss": {"foreground": 10.0}} if task == "pose" else {}),
        **changes,
    )
    run = Run(config, _supply(task), Place(folder, quiet=True))
    assert run.train() == "finished"
    return run, finish(run, command="scalenas-export train toy.yaml")


@pytest.fixture(scope="module", params=["pose", "segmentation"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Run, Finished]:
    task = str(request.param)
    return task, *_trained(tmp_path_factory.mktemp(task), task, output={"half": True, "licence": "CC0"})


def test_the_loss_falls_and_every_subnet_beats_the_floor(trained: tuple[str, Run, Finished]) -> None:
    task, run, done = trained
    losses = [line["task"] for line in read_log(run.place.folder) if "task" in line]
    assert losses[-1] < 0.7 * losses[0]  # type: ignore[operator]
    assert [row.name for row in done.rows] == ["max", "min"]
    assert min(row.value for row in done.rows) > FLOORS[task]
    assert "95 % interval" in table(done.rows)


def test_the_file_holds_what_was_judged(trained: tuple[str, Run, Finished]) -> None:
    _, run, done = trained
    weights = load_weights(done.weights)
    assert (weights.kind, weights.recipe) == ("supernet", run.supply.recipe)
    assert weights.provenance["licence"] == "CC0"
    assert all(torch.equal(value, value.half().float()) for value in weights.tensors.values())
    net = static_net(run.frame.space.max(run.frame.settings, run.frame.inputs))
    load_into(net, weights)
    TransferredStatistics(weights, run.frame.space, run.judge.recalibrate)(net)
    again = run.judge.judge(net, recalibrated=False)
    assert again.value == done.rows[0].value


def test_card_and_report_tell_where_the_weights_come_from(trained: tuple[str, Run, Finished]) -> None:
    _, run, done = trained
    report = json.loads((run.place.folder / "report.json").read_text())
    assert report["rows"][0]["value"] == done.rows[0].value
    assert report["rows"][0]["figures"]
    assert report["rows"][0]["counts"]["pictures_judged"] == len(run.supply.search)
    assert report["provenance"]["commit"] == ", ".join(run.commits)
    assert report["provenance"]["config"]["optimiser"]["lr"] == 0.02
    card = (run.place.folder / "card.md").read_text()
    for text in (report["digest"], "CC0", "drawn in the test", "scalenas-export train toy.yaml", "| max |", "lr: 0.02"):
        assert text in card


def test_a_student_follows_its_teacher_and_a_subnet_is_trained_on(
    trained: tuple[str, Run, Finished], tmp_path: Path
) -> None:
    task, _, _ = trained
    if task != "pose":
        pytest.skip("one task is enough for the chain of phases")
    teacher = toys.config(phase="teacher", schedule={"steps": 2})
    first = Run(teacher, _supply(task), Place(tmp_path / "teacher", quiet=True))
    first.train()
    weights = str(finish(first, command="x").weights)
    student = toys.config(model={"weights": weights}, distillation={"teacher": weights, "alpha": 2.0})
    second = Run(student, _supply(task), Place(tmp_path / "student", quiet=True))
    second.train()
    line = read_log(tmp_path / "student")[-1]
    assert line["distance"] > 0  # type: ignore[operator]
    assert line["total"] == pytest.approx(line["task"] + 2 * line["distance"])  # type: ignore[operator]
    assert second.parents["teacher"] == second.parents["weights"] == load_weights(Path(weights)).digest
    assert all(weight.grad is None for weight in second.step.teacher.net.parameters())  # type: ignore[union-attr]
    supernet = str(finish(second, command="x").weights)
    tuned = toys.config(phase="finetune", model={"weights": supernet, "spec": "min"}, schedule={"steps": 2})
    third = Run(tuned, _supply(task), Place(tmp_path / "tuned", quiet=True))
    assert third.train() == "finished"
    assert load_weights(finish(third, command="x").weights).spec == third.spec


def test_the_best_weights_can_be_kept_instead_of_the_last(tmp_path: Path) -> None:
    config = toys.config(
        evaluation={"steps": 1, "limit": 4}, output={"choose": "best"}, optimiser={"lr": 0.05}, schedule={"steps": 5}
    )
    run = Run(config, toys.class_supply(), Place(tmp_path, quiet=True))
    run.train()
    assert run.best is not None
    values = {line["step"]: line["miou"] for line in read_log(tmp_path) if "miou" in line}
    assert run.best.value == max(values.values())  # type: ignore[type-var]
    assert values[run.best.step] == run.best.value
    spec = run.frame.space.max(run.frame.settings, run.frame.inputs)
    judged = run.judge.judge(run.subnet(spec, run.chosen()), recalibrated=True, limit=4)
    assert judged.value == run.best.value


def test_bf16_and_channels_last_train_too(tmp_path: Path) -> None:
    config = toys.config(precision="bf16", channels_last=True, schedule={"steps": 3})
    run = Run(config, toys.class_supply(), Place(tmp_path, quiet=True))
    run.train()
    assert run.net.get_parameter("stem.conv2.conv.weight").is_contiguous(memory_format=torch.channels_last)
    assert all(value.dtype in (torch.float32, torch.int64) for value in run.tensors().values())


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="device is cuda, and torch finds no GPU"):
        Run(toys.config(device="cuda"), toys.pose_supply(), Place(tmp_path))
