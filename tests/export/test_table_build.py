"""Latencies of a table's nets, measured with a real engine and kept line by line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from scalenas import Supernet, Weights, get_space, save_weights
from scalenas.data.dataset import open_dataset
from scalenas.inheriting import inherit
from scalenas.table.accuracies import Accuracy, append
from scalenas.table.accuracies import read as read_accuracies
from scalenas.table.build import append_latency, read_latencies
from scalenas.table.nets import members
from scalenas.training.config import EvaluationConfig
from scalenas.training.judge import Judge
from scalenas.training.supply import plain_pictures
from scalenas_export.cli import app as application
from scalenas_export.recipes import spec_recipe
from scalenas_export.table_accuracies import AccuracyPlan, judge_accuracies
from scalenas_export.table_latencies import LatencyPlan, measure_latencies
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.targets import EngineConfig, Target

SIZE = (64, 64)


def small_weights() -> Weights:
    space = get_space("scalenas")
    given: dict[str, Json] = {"width": 4, "modules": [1, 1, 1], "depths": [2, 3], "stage1_blocks": 1, "joints": 14}
    settings = space.settings(given)
    recipe = spec_recipe(space.max(settings, {"image": (3, *SIZE)}), names="lspet-14")
    return Weights("supernet", space.name, settings, Supernet(space, settings).state_dict(), None, recipe)


def interrupt(_: str) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_every_net_is_measured_once_and_some_again_across_interruptions(tmp_path: Path) -> None:
    weights = small_weights()
    nets = members(weights.settings, SIZE)[:3]
    config = EngineConfig(Target.parse("onnxruntime:cpu/fp32"))
    plan = LatencyPlan(weights, nets, [config], repeated=1, repeats=2, file=tmp_path / "t.jsonl")
    # Stopped before the first one, then finished.
    assert measure_latencies(plan, seconds=1e-9) == 4
    with pytest.raises(KeyboardInterrupt):
        measure_latencies(plan, progress=interrupt)
    assert measure_latencies(plan) == 0
    found = read_latencies(plan.file)
    assert [(entry.spec, entry.repeat) for entry in found] == [
        *((spec.digest, 0) for spec in nets),
        (nets[0].digest, 1),
    ]
    assert all(entry.milliseconds > 0 and entry.target == "onnxruntime:cpu/fp32" for entry in found)
    # One scale, though two processes measured.
    assert len({entry.headline for entry in found}) == 1
    assert measure_latencies(plan) == 0
    assert read_latencies(plan.file) == found
    moved = msgspec.structs.replace(found[0], run={**found[0].run, "device": "elsewhere"})
    elsewhere = replace(plan, file=tmp_path / "elsewhere.jsonl")
    append_latency(elsewhere.file, moved)
    with pytest.raises(UserError, match=r"measurements of something else \(device 'elsewhere' there"):
        measure_latencies(elsewhere)
    # Complete, and all the same of something else.
    other = replace(plan, file=tmp_path / "other.jsonl")
    for entry in found:
        append_latency(other.file, msgspec.structs.replace(entry, run={**entry.run, "weights": "others"}))
    assert other.missing() == []
    with pytest.raises(UserError, match=r"measurements of something else \(weights 'others' there"):
        measure_latencies(other)


@pytest.mark.slow
def test_accuracies_are_those_of_the_nets_judged_one_by_one_across_interruptions(tmp_path: Path) -> None:
    description = tmp_path / "drawn.yaml"
    description.write_text(
        "task: pose\nset: lspet-14\ntrain: [{kind: synthetic, seed: 1, count: 20}]\n"
        "splits: {calibrate: 0.3, search: 0.3}\n"
    )
    weights = small_weights()
    nets = members(weights.settings, SIZE)[:2]
    plan = AccuracyPlan(weights, nets, tmp_path / "a.jsonl", str(description), calibration=4)
    assert judge_accuracies(plan, seconds=1e-9) == 2
    assert judge_accuracies(replace(plan, nets=nets[:1])) == 0
    seen: list[int] = []
    assert judge_accuracies(plan, progress=seen.append) == 0
    assert seen == [0, 1]
    found = read_accuracies(plan.file)
    dataset = open_dataset(str(description))
    assert weights.recipe is not None
    calibration = plain_pictures(dataset.samples("calibrate", weights.recipe), 4)
    judge = Judge(
        weights.recipe,
        dataset.labelled("search", size=SIZE),
        EvaluationConfig(calibration=4),
        lambda: calibration,
        torch.device("cpu"),
    )
    wanted = [judge.judge(inherit(weights, spec), recalibrated=True).value for spec in nets]
    assert all(plan.covers(entry) for entry in found)
    assert not replace(plan, calibration=5).covers(found[0])
    assert [entry.spec for entry in found] == [spec.digest for spec in nets]
    assert [entry.value for entry in found] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--out", "t.json"], "a table's file ends in .json.gz"),
        (["--out", "t.json.gz", "--minutes", "0"], "--minutes is 0"),
        (["--out", "t.json.gz", "--full", "5"], "--full is 5; a surrogate needs at least 10 nets of the whole space"),
        (
            ["--out", "t.json.gz", "--target", "onnxruntime:cpu/fp32", "--data-root", "x"],
            "--data-root goes with --data",
        ),
        (["--out", "t.json.gz", "--target", "onnxruntime:cpu/fp32", "--data", "none.yaml"], "none.yaml"),
        (["--out", "t.json.gz", "--target", "onnxruntime:cuda7/fp32"], "cuda"),
        (["--out", "t.json.gz", "--target", "onnxruntime:cpu/fp32", "--accuracies", "none.jsonl"], "cannot be read"),
        (
            ["--out", "t.json.gz", "--target", "onnxruntime:cpu/fp32", "--accuracies", "a.jsonl"],
            "a.jsonl has no accuracy of the weights w.safetensors",
        ),
    ],
)
def test_bad_builds_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    save_weights(tmp_path / "w.safetensors", small_weights())
    judged = Accuracy(spec="x", metric="pck", value=0.5, interval=None, run={"weights": "of others"})
    append(tmp_path / "a.jsonl", judged)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=text) as caught:
        application.app.main(["table", "build", "w.safetensors", *arguments], standalone_mode=False)
    assert "\n" not in str(caught.value)
