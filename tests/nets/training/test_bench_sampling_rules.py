"""The comparison of sampling rules: equal passes, the same subnets for all, runs that are not repeated, honest sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import bench_sampling_rules as bench
from scalenas.registry import get_space
from scalenas.training.start import Frame
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks.sets import LSPET_14, pose_recipe

TINY = ["--passes", "8", "--per-level", "1", "--set", "model.settings.width=4", "--set", "model.settings.depths=[1,2]"]
TINY += ["--set", "batch=2", "--set", "evaluation.limit=4", "--set", "evaluation.calibration=8"]


def _record(rule: str, seed: int, values: tuple[float, float, float]) -> dict[str, Any]:
    rows = [{"level": level, "value": value} for level, value in zip(bench.LEVELS, values, strict=True)]
    return {"rule": rule, "seed": seed, "rows": rows}


def test_runs_are_made_once_and_collected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    common = [*TINY, "--folder", str(tmp_path / "runs"), "--json", str(out)]
    bench.main([*common, "--only", "sandwich:0", "--only", "uniform:0"])
    assert not out.exists()
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/record.json")}
    bench.main([*common, "--only", "uniform:0"])
    assert {path: path.stat().st_mtime_ns for path in first} == first
    bench.main([*common, "--collect"])
    document = json.loads(out.read_text())
    runs = {run["rule"]: run for run in document["runs"]}
    # A kept file names nothing of the machine that made it.
    assert {run["config"]["data"]["path"] for run in runs.values()} == {"configs/data/synthetic-pose.yaml"}
    assert [run["subnet_passes"] for run in runs.values()] == [8, 8]
    assert (runs["sandwich"]["steps"], runs["uniform"]["steps"]) == (2, 8)
    # All rules are judged by the same subnets, and cost rises from level to level.
    judged = [[(row["level"], row["spec"]) for row in run["rows"]] for run in runs.values()]
    assert judged[0] == judged[1]
    macs = [row["macs"] for row in runs["uniform"]["rows"]]
    assert macs == sorted(macs)
    assert len(set(macs)) == 3
    assert "minus uniform" in capsys.readouterr().out
    bench.main([*common, "--only", "groups:1", "--set", "batch=4"])
    with pytest.raises(UserError, match="holds runs of 2 configurations; give each its own --folder"):
        bench.main([*common, "--collect"])
    with pytest.raises(UserError, match="is of another configuration; name another --folder"):
        bench.main([*common, "--only", "uniform:0", "--set", "optimiser.lr=0.5"])


def test_differences_are_taken_within_a_seed() -> None:
    a = {seed: (0.1 * seed, 0.2 * seed, 0.3) for seed in (1, 2, 3)}
    gaps = {1: 0.02, 2: 0.03, 3: 0.01}
    records = [_record("uniform", seed, values) for seed, values in a.items()]
    records += [_record("groups", seed, tuple(value + gaps[seed] for value in a[seed])) for seed in a]  # type: ignore[arg-type]
    rows = {(row["rule"], row["level"]): row for row in bench.compare(records)}
    row = rows["groups", "low"]
    assert row["mean"] == pytest.approx(np.mean([0.12, 0.23, 0.31]))
    assert row["minus_uniform"] == pytest.approx(0.02)
    low, _ = stats.t.interval(0.95, 2, loc=0.02, scale=stats.sem([0.02, 0.03, 0.01]))
    assert row["difference_half_width"] == pytest.approx(0.02 - low)
    assert "minus_uniform" not in rows["uniform", "low"]
    assert rows["uniform", "all"]["mean"] == pytest.approx(np.mean([(0.1 + 0.2) * s / 3 + 0.1 for s in (1, 2, 3)]))


def test_one_seed_has_no_interval() -> None:
    rows = bench.compare([_record("uniform", 0, (0.1, 0.2, 0.3)), _record("cycle", 0, (0.2, 0.2, 0.2))])
    assert all(row["half_width"] is None for row in rows)
    assert "±" not in bench.table(rows)


def test_the_subnets_lie_at_their_levels() -> None:
    space = get_space("scalenas")
    settings = space.settings({"task": "pose", "width": 8, "modules": [1, 1, 1], "joints": 14})
    frame = Frame(space, settings, space.inputs(settings, {"image": (3, 96, 64)}), pose_recipe(LSPET_14, size=(96, 64)))
    chosen = bench.choose(frame, per_level=3)
    assert chosen == bench.choose(frame, per_level=3)
    assert len({each.spec.digest for each in chosen}) == 9
    spread = {level: [each.macs for each in chosen if each.level == level] for level in bench.LEVELS}
    assert max(spread["low"]) < min(spread["mid"]) <= max(spread["mid"]) < min(spread["high"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--only", "best:0"], "--only takes RULE:SEED with a rule of .*, got 'best:0'"),
        (["--only", "groups"], "got 'groups'"),
        (["--passes", "10", "--only", "sandwich:0"], "--passes 10 is no multiple of 4"),
        (["--collect"], "there is no record in"),
    ],
    ids=["unknown rule", "no seed", "odd passes", "nothing to collect"],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, words: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        bench.main(["--folder", str(tmp_path), *words])
