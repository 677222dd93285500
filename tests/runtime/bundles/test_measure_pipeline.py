"""Bundles measured: the engine alone, and the way from a decoded picture to its result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalenas_export.cli.app import run
from scalenas_runtime.bundle import BundleContents, write_bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.measure import MeasureJob
from scalenas_runtime.measure.subject import open_subject
from scalenas_runtime.targets import EngineConfig, Target

CONFIG = EngineConfig(Target.parse("onnxruntime:cpu/fp32"))


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize(("batch", "persons"), [(1, 1), (1, 4), (3, 4)])
def test_pose_pipeline_has_three_parts(
    tmp_path: Path, batched_contents: BundleContents, batch: int, persons: int, rebuild: bool
) -> None:
    bundle = write_bundle(tmp_path / "net", batched_contents)
    config = EngineConfig(CONFIG.target, batch=batch)
    job = MeasureJob(bundle, config, "search", "pipeline", persons=persons)
    subject, opened = open_subject(job, rebuild=rebuild)
    taken = subject.sample(0.05, 12)
    subject.close()
    assert opened.compiled is rebuild
    assert sorted(taken.parts) == ["infer", "post", "pre"]
    for values in taken.parts.values():
        assert len(values) == len(taken.milliseconds) >= 12
    for total, *parts in zip(taken.milliseconds, *taken.parts.values(), strict=True):
        assert 0 < sum(parts) <= total


def test_segmentation_pipeline(tmp_path: Path, segmentation_contents: BundleContents) -> None:
    bundle = write_bundle(tmp_path / "net", segmentation_contents)
    subject, _ = open_subject(MeasureJob(bundle, CONFIG, "search", "pipeline"), rebuild=True)
    taken = subject.sample(0.02, 8)
    subject.close()
    assert len(taken.parts["infer"]) == len(taken.milliseconds) >= 8


def test_batch_that_the_bundle_lacks(tmp_path: Path, contents: BundleContents) -> None:
    bundle = write_bundle(tmp_path / "net", contents)
    with pytest.raises(UserError, match="holds no graph of batch 5 and io raw; it holds batch 1 io raw"):
        open_subject(MeasureJob(bundle, EngineConfig(CONFIG.target, batch=5)), rebuild=True)


def test_bench_of_a_bundle(
    tmp_path: Path, contents: BundleContents, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "net", contents)
    monkeypatch.chdir(tmp_path)
    options = ["--target", str(CONFIG.target), "--boundary", "pipeline", "--seconds", "0.05", "--json"]
    assert run(["bench", str(bundle), *options]) == 0
    (record,) = json.loads(capsys.readouterr().out)["measurements"]
    assert record["job"]["boundary"] == "pipeline"
    assert sorted(record["parts"]) == ["infer", "post", "pre"]
    assert record["pictures_per_second"] == pytest.approx(1000 / record["statistics"]["median"])
