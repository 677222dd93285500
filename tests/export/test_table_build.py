"""Latencies of a table's nets, measured with a real engine and kept line by line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from scalenas import Supernet, Weights, get_space, save_weights
from scalenas.table.build import append_latency, read_latencies
from scalenas.table.nets import members
from scalenas_export.cli import app as application
from scalenas_export.recipes import spec_recipe
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


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--out", "t.json"], "a table's file ends in .json.gz"),
        (["--out", "t.json.gz", "--minutes", "0"], "--minutes is 0"),
        (["--out", "t.json.gz", "--target", "onnxruntime:cuda7/fp32"], "cuda"),
        (["--out", "t.json.gz", "--target", "onnxruntime:cpu/fp32", "--accuracies", "none.jsonl"], "cannot be read"),
    ],
)
def test_bad_builds_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    save_weights(tmp_path / "w.safetensors", small_weights())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=text) as caught:
        application.app.main(["table", "build", "w.safetensors", *arguments], standalone_mode=False)
    assert "\n" not in str(caught.value)
