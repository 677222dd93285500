"""`train` as people call it: plan, run, stop, resume, and a net for joints of one's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from scalenas.training.journal import read_log
from scalenas.weights import load_weights
from scalenas_export.cli.app import run
from scalenas_runtime.canonical import Json
from tests.nets.data.small_data import JOINTS, PEOPLE_YAML, STREETS_YAML, write_people, write_streets, write_yaml

# The mean heatmap scores 17.1 % on the pictures that the smoke recipe is judged on, see docs/training.md.
FLOOR = 0.19
CONFIGS = Path(__file__).resolve().parents[2] / "configs"

CONFIG = """
phase: supernet
name: small
model: {size: [64, 64], settings: {width: 4, modules: [1, 1, 1], depths: [1, 2], stage1_blocks: 1}}
data: {path: data.yaml, workers: 0, augmentation: {rotation: 10}}
schedule: {steps: 4, shape: cosine}
optimiser: {lr: 0.002}
batch: 2
checkpoint_steps: 2
log_steps: 2
evaluation: {calibration: 4, metric: pck, members: false}
device: cpu
"""
DATA = """
task: pose
set: lspet-14
train: [{kind: synthetic, seed: 1, count: 12}]
splits: {calibrate: 0.3, search: 0.2}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and data, where the command is called."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "data.yaml").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Json]:
    assert run(["train", *arguments, "--json"]) == 0
    answer: dict[str, Json] = json.loads(capsys.readouterr().out)
    return answer


def test_a_dry_run_says_what_it_will_cost(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = _answer(capsys, "config.yaml", "--dry-run", "--set", "schedule.epochs=3", "--set", "schedule.steps=null")
    assert (plan["samples"], plan["steps"], plan["subnets_per_step"]) == (6, 9, 1)
    assert plan["epochs"] == 3
    macs, memory = plan["macs"], plan["memory_bytes"]
    assert isinstance(macs, dict)
    assert isinstance(memory, dict)
    assert macs["smallest"] <= macs["mean"] <= macs["largest"]
    # AdamW: weights, gradients and two moments, four bytes each.
    assert memory["state"] == 16 * plan["params"]  # type: ignore[operator]
    assert memory["activations"] > 64 * 64 * 64
    assert plan["hours"] == pytest.approx(plan["steps"] * plan["seconds_per_step"] / 3600)  # type: ignore[operator]
    assert not (place / "runs").exists()


def test_a_dry_run_counts_what_is_trained_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "streets.yaml").write_text(
        "task: segmentation\nset: camvid-11\ntrain: [{kind: synthetic, seed: 1, count: 12}]\n"
        "splits: {calibrate: 0.3, search: 0.2}\n"
    )
    always = ["data.path=streets.yaml", "evaluation.metric=miou", "schedule.epochs=1"]
    large = ["model.size=[128, 192]", "data.augmentation={crop: [64, 96]}"]
    small = ["model.size=[64, 96]", "data.augmentation={}"]
    cropped, whole = (
        _answer(capsys, "config.yaml", "--dry-run", *[text for each in (*always, *given) for text in ("--set", each)])
        for given in (large, small)
    )
    assert (cropped["macs"], cropped["memory_bytes"]) == (whole["macs"], whole["memory_bytes"])


def test_a_run_stops_and_goes_on_where_it_was(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = _answer(capsys, "config.yaml", "--minutes", "1e-6")
    assert (stopped["ended"], stopped["steps"], stopped["folder"]) == ("stopped", 1, "runs/train/1")
    again = ["train", "config.yaml", "--resume", "--minutes", "60", "--json"]
    monkeypatch.setattr(sys, "argv", ["scalenas-export", *again])
    finished = _answer(capsys, "config.yaml", "--resume", "--minutes", "60")
    card = (place / "runs" / "train" / "1" / "card.md").read_text()
    assert "\nscalenas-export train config.yaml --json\n" in card
    assert (finished["ended"], finished["folder"]) == ("finished", "runs/train/1")
    files = {path.name for path in (place / "runs" / "train" / "1").iterdir()}
    assert {"weights.safetensors", "card.md", "report.json", "log.jsonl", "events", "checkpoints"} <= files
    assert {"config.yaml", "command.txt", "env.json"} <= files
    straight = _answer(capsys, "config.yaml", "--out", "other")
    assert straight["digest"] == finished["digest"]
    assert run(["train", "config.yaml", "--out", "other"]) == 2
    assert "go on there with --resume" in capsys.readouterr().err


def test_a_net_for_joints_of_ones_own_is_tuned_in_one_command(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    supernet = _answer(capsys, "config.yaml", "--out", "supernet")
    _own_people(place / "own")
    (place / "own.yaml").write_text(
        "task: pose\nroot: own\ntrain: [{kind: coco, annotations: people.json}]\n"
        "splits: {calibrate: 0.2, search: 0.3}\n"
    )
    changes = [
        "phase=finetune",
        "model.spec=min",
        "data.path=own.yaml",
        "evaluation.metric=null",
        "data.augmentation={}",
    ]
    given = [f"model.weights={supernet['weights']}", *changes]
    changed = [text for each in given for text in ("--set", each)]
    words = ["train", "config.yaml", "--out", "tuned", "--data-root", str(place / "own"), *changed]
    monkeypatch.setattr(sys, "argv", ["scalenas-export", *words])
    assert run(words) == 0
    said = capsys.readouterr().err
    # Nothing is the counterpart of the left wrist, and that is said; so is what was read.
    assert "warning: no joint has a left or right counterpart by its name" in said
    assert "people.json: 10 pictures" in said
    weights = load_weights(place / "tuned" / "weights.safetensors")
    assert weights.spec is not None
    assert weights.spec.settings["joints"] == 3
    assert weights.recipe is not None
    assert weights.recipe.joints == ("tail", "left_wrist", "head_top")  # type: ignore[union-attr]
    card = (place / "tuned" / "card.md").read_text()
    assert "Outputs taken by name: left_wrist, head_top" in card
    assert "--out tuned --data-root DATA --set " in card
    assert str(place) not in card
    assert str(place) not in (place / "tuned" / "report.json").read_text()
    assert str(place) not in (place / "tuned" / "weights.safetensors").read_bytes().decode("latin-1")


@pytest.mark.slow
def test_the_smoke_recipe_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 500 of its 700 steps, and two of its five nets judged.
    changes = ["--set", "schedule.steps=500", "--set", "evaluation.members=false"]
    words = [str(CONFIGS / "train" / "smoke-pose.yaml"), *changes, "--out", str(tmp_path / "run")]
    answer = _answer(capsys, *words)
    losses = [float(str(line["task"])) for line in read_log(tmp_path / "run") if "task" in line]
    assert losses[-1] < 0.9 * losses[0]
    rows = answer["rows"]
    assert isinstance(rows, list)
    assert len(rows) == 2
    assert all(row["value"] > FLOOR for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pose", "seg"])
def test_shipped_weights_are_tuned_for_ones_own_data_by_the_documented_command(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if task == "pose":
        write_people(tmp_path)
        data = write_yaml(tmp_path / "mine.yaml", PEOPLE_YAML)
    else:
        write_streets(tmp_path)
        data = write_yaml(tmp_path / "mine.yaml", STREETS_YAML)
    config = CONFIGS / "train" / f"{task}-w16-finetune.yaml"
    # As docs/training.md has it, but for a few steps in place of 20 epochs.
    given = [str(config), "--set", f"data.path={data}", "--set", "schedule.steps=2", "--out", str(tmp_path / "tuned")]
    answer = _answer(capsys, *given)
    assert answer["ended"] == "finished"
    weights = load_weights(tmp_path / "tuned" / "weights.safetensors")
    assert weights.recipe is not None
    if task == "pose":
        assert weights.recipe.joints == JOINTS  # type: ignore[union-attr]
    else:
        assert weights.recipe.classes == ("road", "sky", "car")  # type: ignore[union-attr]


def test_what_a_user_can_get_wrong_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["nothing.yaml"], "there is no configuration nothing.yaml"),
        (["config.yaml", "--set", "optimizer.lr=3"], "did you mean `optimiser`"),
        (["config.yaml", "--resume"], "there is no run to resume in runs/train"),
        (["config.yaml", "--resume", "--out", "typo"], "there is no run to resume in typo: it is no folder"),
        (["config.yaml", "--minutes", "0"], "0.0 is not in the range x>0"),
        (["config.yaml", "--set", "data.augmentation.rotatoin=3", "--dry-run"], "did you mean `rotation`"),
        (
            ["config.yaml", "--set", "data.recipe.size=[96, 64]", "--dry-run"],
            "data.recipe.size follows from",
        ),
        (["config.yaml", "--set", "evaluation.metric=miou", "--dry-run"], "metric miou is for segmentation"),
        (["config.yaml", "--set", "model.weights=none.safetensors", "--dry-run"], "none.safetensors is not a file"),
    ):
        assert run(["train", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 ..."), "CUDA out of memory"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to "
                "allocate 9000000000000 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "can't allocate memory: you tried to allocate 9000000000000 bytes. Error code 12 (Cannot allocate memory)",
        ),
        (MemoryError("Unable to allocate 2.00 GiB for an array"), "Unable to allocate 2.00 GiB for an array"),
        (MemoryError(), "MemoryError"),
    ],
    ids=["cuda", "cpu", "numpy", "python"],
)
def test_a_step_that_does_not_fit_the_memory_is_one_line(
    error: BaseException,
    reason: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("scalenas.training.step.Step.__call__", full)
    for more in ([], ["--dry-run"]):
        assert run(["train", "config.yaml", *more]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"error: a step of batch 2 does not fit the memory ({reason}); --dry-run says")


def test_what_torch_says_of_cpu_memory_is_known(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalenas.training.step.Step.__call__", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
    assert run(["train", "config.yaml"]) == 2
    assert "a step of batch 2 does not fit the memory (can't allocate memory" in capsys.readouterr().err


def test_a_run_that_was_killed_in_its_set_up_can_be_resumed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data.yaml").rename(place / "later.yaml")
    assert run(["train", "config.yaml", "--out", "new"]) == 2
    (place / "later.yaml").rename(place / "data.yaml")
    assert _answer(capsys, "config.yaml", "--out", "new", "--resume")["ended"] == "finished"


def _own_people(folder: Path) -> None:
    """Writes ten pictures with a person of three joints each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images: list[Json] = []
    people: list[Json] = []
    for number in range(1, 11):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (80, 70, 3)).astype(np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": 80, "width": 70})
        points = rng.integers(10, 60, (3, 2)).tolist()
        joints = [value for x, y in points for value in (x, y, 2)]
        people.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [5, 5, 60, 70],
                "area": 4200,
                "keypoints": joints,
            }
        )
    category = {"id": 1, "name": "person", "keypoints": ["tail", "left_wrist", "head_top"], "skeleton": [[1, 2]]}
    value = {"images": images, "annotations": people, "categories": [category]}
    (folder / "people.json").write_text(json.dumps(value))
