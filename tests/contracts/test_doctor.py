"""`doctor`: what it says of this machine, and of machines it is told about."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from scalenas_export.cli.app import run
from scalenas_runtime import diagnosis
from scalenas_runtime.backends import get_backend
from scalenas_runtime.diagnosis import diagnose


def test_doctor_shows_engines_devices_and_precisions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "onnxruntime" in output
    assert get_backend("openvino").version() in output
    assert run(["doctor", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert "onnxruntime:cpu/fp32" in plain["targets"]
    assert plain["machine"]["device_key"]


def test_target_that_runs_and_targets_that_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--target", "openvino:cpu/fp32"]) == 0
    assert "openvino:cpu/fp32 can run here" in capsys.readouterr().out
    for target, message in (
        ("onnxruntime:cpu/bf16", "onnxruntime does not run bf16 on"),
        ("openvino:npu7/fp16", "openvino finds no device 'npu7' here; devices: cpu"),
        ("ncnn:cpu/fp32", "unknown backend 'ncnn'; known: onnxruntime, openvino"),
        ("openvino:cpu/fp32@nuc", "this machine is checked; run doctor on nuc"),
    ):
        assert run(["doctor", "--target", target]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""


def test_missing_engine_comes_with_the_pip_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(diagnosis, "package_versions", lambda names: {})
    assert run(["doctor"]) == 0
    output = capsys.readouterr().out
    for extra in ("onnxruntime", "openvino", "export", "search"):
        assert f"pip install 'scalenas-export[{extra}]'" in output
    assert "no engine is installed, so nothing can run" in output


@pytest.mark.parametrize(
    ("installed", "quota", "warning"),
    [
        pytest.param(
            {"onnxruntime": "1", "onnxruntime-gpu": "1"}, None, "overwrite each other; keep one", id="two wheels"
        ),
        pytest.param({"onnxruntime-gpu": "1"}, None, "no NVIDIA GPU was found", id="no gpu"),
        pytest.param({"openvino-telemetry": "1"}, None, "reports each import .*: opt_in_out --opt_out", id="telemetry"),
        pytest.param({}, 0.5, "allows 0.5 of 2 processors: .*; pass --threads 1", id="quota"),
    ],
)
def test_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installed: dict[str, str], quota: float | None, warning: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(diagnosis, "package_versions", lambda names: installed)
    monkeypatch.setattr(diagnosis, "cpu_quota", lambda: quota)
    monkeypatch.setattr(diagnosis, "cpu_affinity", lambda: 2)
    assert any(re.search(warning, text) for text in diagnose().warnings)


def test_refused_telemetry_is_no_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "intel").mkdir()
    (tmp_path / "intel" / "openvino_telemetry").write_text("0")
    assert not any("opt_in_out" in text for text in diagnose().warnings)


def test_engine_that_does_not_start_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("libfoo.so.1: cannot open shared object file")

    monkeypatch.setattr(get_backend("openvino"), "devices", broken)
    result = diagnose()
    assert any("openvino is installed but does not start: libfoo.so.1" in text for text in result.warnings)
    assert "onnxruntime:cpu/fp32" in result.targets
