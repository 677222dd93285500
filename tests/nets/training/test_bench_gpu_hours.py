"""GPU hours are computed from measured steps, and there are none without."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_hours
from scalenas.training.config import read_config

PAGE = gpu_hours.ROOT / "docs" / "gpu-hours.md"


def _measured(batch: int) -> dict[str, Any]:
    rows = [
        {"gmacs": 3.0, "sampled_with_teacher_s": 0.2, "alone_s": 0.1},
        {"gmacs": 9.0, "sampled_with_teacher_s": 0.4, "alone_s": 0.3},
    ]
    machine = {"gpus": [{"name": "A Card"}], "cpu": {"model": "none"}}
    return {"rows": rows, "batch": batch, "machine": machine, "task": "pose", "width": 32}


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
    (tmp_path / "gpu-step-coco-w32.json").write_text(json.dumps(_measured(batch=32)))
    found = gpu_hours.costs(tmp_path)
    assert [each.name for each in found] == ["coco-w32-teacher", "coco-w32-supernet", "coco-w32-finetune"]
    assert gpu_hours.table(found).count("A Card") == 3


def test_the_page_shows_the_commands_and_the_table_of_the_kept_results() -> None:
    page = PAGE.read_text()
    shown = " ".join(page.replace("\\\n", " ").split())
    for line in gpu_hours.commands().splitlines():
        assert " ".join(shlex.split(line)) in shown
    table = page.partition(gpu_hours.START)[2].partition(gpu_hours.END)[0].strip()
    assert table == gpu_hours.table(gpu_hours.costs(gpu_hours.ROOT / "benchmarks" / "results"))
