"""GPU hours are computed from measured steps, and there are none without."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_hours
from scalenas.training.config import read_config
from scalenas_runtime.errors import UserError

PAGE = gpu_hours.ROOT / "docs" / "gpu-hours.md"


def _measured(batch: int) -> dict[str, Any]:
    rows = [
        {"gmacs": 3.0, "sampled_with_teacher_s": 0.2, "alone_s": 0.1},
        {"gmacs": 9.0, "sampled_with_teacher_s": 0.4, "alone_s": 0.3},
    ]
    machine = {"gpus": [{"name": "A Card"}], "cpu": {"model": "none"}}
    shape = {**gpu_hours.shape_of("coco", 32), "batch": batch}
    del shape["slots"]
    return {"rows": rows, "machine": machine, **shape}


def _full() -> dict[str, Any]:
    measured = _measured(batch=32)
    return {**measured, "rows": measured["rows"][:1] * gpu_hours.SLOTS}


@pytest.mark.parametrize(
    ("phase", "epochs", "seconds"), [("teacher", 210, 0.3), ("supernet", 210, 0.3), ("finetune", 20, 0.2)]
)
def test_hours_are_steps_times_seconds_times_gpus(phase: str, epochs: int, seconds: float) -> None:
    config = read_config(gpu_hours.ROOT / "configs" / "train" / f"coco-w32-{phase}.yaml")
    cost = gpu_hours.cost_of("x", config, _measured(batch=32), 256_000)
    assert (cost.steps, cost.gpus, cost.device) == (epochs * 1000, 8, "A Card")
    assert cost.seconds == pytest.approx(seconds)
    assert cost.hours == pytest.approx(epochs * 1000 * seconds * 8 / 3600)


def test_only_what_was_measured_is_shown(tmp_path: Path) -> None:
    assert gpu_hours.costs(tmp_path) == []
    assert "no hours to show" in gpu_hours.table([])
    full = _full()
    (tmp_path / "gpu-step-coco-w32.json").write_text(json.dumps(full))
    found = gpu_hours.costs(tmp_path)
    assert [each.name for each in found] == ["coco-w32-teacher", "coco-w32-supernet", "coco-w32-finetune"]
    assert gpu_hours.table(found).count("A Card") == 3
    (tmp_path / "gpu-step-again.json").write_text(json.dumps(full))
    with pytest.raises(UserError, match="has 2 files of step times for pose at width 32"):
        gpu_hours.costs(tmp_path)


@pytest.mark.parametrize(
    "change", [{"device": "cpu"}, {"size": [128, 96]}, {"modules": "1,2,1"}, {"batch": 16}, {"precision": "fp32"}]
)
def test_step_times_of_something_else_say_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    measured = {**_full(), **change}
    (tmp_path / "gpu-step-coco-w32.json").write_text(json.dumps(measured))
    assert gpu_hours.costs(tmp_path) == []


def test_the_page_shows_the_commands_and_the_table_of_the_kept_results() -> None:
    page = PAGE.read_text()
    shown = " ".join(page.replace("\\\n", " ").split())
    for line in gpu_hours.commands().splitlines():
        assert " ".join(shlex.split(line)) in shown
    table = page.partition(gpu_hours.START)[2].partition(gpu_hours.END)[0].strip()
    assert table == gpu_hours.table(gpu_hours.costs(gpu_hours.ROOT / "benchmarks" / "results"))
