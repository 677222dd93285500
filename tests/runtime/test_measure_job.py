"""Measure jobs, locks and the measuring process's misfortunes."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenas_runtime.errors import UserError
from scalenas_runtime.measure import MeasureJob, MeasuringFailed, MeasuringProcess
from scalenas_runtime.measure.lock import device_locks
from scalenas_runtime.measure.server import serve
from scalenas_runtime.measure.subject import PacedSubject, StreamSubject, noise
from scalenas_runtime.measure.watch import Watch
from scalenas_runtime.session import Array, Feeds, Session, TensorSpec
from scalenas_runtime.targets import EngineConfig, Target

CONFIG = EngineConfig(Target.parse("openvino:cpu/bf16"), threads=2)
JOB = MeasureJob(Path("model.onnx"), CONFIG)


def test_job_survives_json() -> None:
    job = MeasureJob(Path("a b.onnx"), CONFIG, "report", "paced@7.5", "p95", 2.5, seed=9)
    assert MeasureJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    assert job.pace == 7.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"schema": "scalenas.measure-job/2"}, "measure-job/2", id="schema"),
        pytest.param({"sample": 3}, r"unknown field `sample`.*did you mean `\w+`|unknown field `sample`", id="surplus"),
        pytest.param({"model": 3}, "Expected `str`, got `int`", id="type"),
        pytest.param({"config": {"target": "nonsense"}}, "target 'nonsense' is not of the form", id="target"),
        pytest.param({"config": {"target": "openvino:cpu/fp32", "thread": 2}}, "unknown key 'thread'", id="config key"),
        pytest.param({"config": {"target": "openvino:cpu/fp32", "threads": "2"}}, "threads", id="config type"),
        pytest.param({"config": {}}, "an engine config is an object with at least a target", id="no target"),
        pytest.param({"grade": "fine"}, "unknown grade 'fine'; known: search, standard, report", id="grade"),
        pytest.param({"stat": "p50"}, "unknown stat 'p50'; known: median, p90, p95, p99", id="stat"),
        pytest.param({"boundary": "wall"}, "unknown boundary 'wall'; known: engine_wall", id="boundary"),
        pytest.param({"boundary": "paced@0"}, "unknown boundary 'paced@0'", id="pace of zero"),
        pytest.param({"seconds": 0}, "seconds must be a positive number, got 0", id="seconds"),
        pytest.param({"persons": 0}, "persons must be at least 1, got 0", id="persons"),
        pytest.param(
            {"persons": 3}, "3 persons are asked for, and the boundary engine_wall has none", id="persons of an engine"
        ),
        pytest.param(
            {"config": {"target": "openvino:cpu/fp32@nuc"}},
            "only this machine is measured; run the command on nuc",
            id="host",
        ),
    ],
)
def test_malformed_job(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MeasureJob.from_json({**JOB.to_json(), **changes})


@pytest.mark.parametrize(
    ("grade", "stat", "seconds", "wanted"),
    [
        ("search", "median", None, (0.5, 30)),
        ("search", "p95", None, (0.5, 130)),
        ("standard", "p95", None, (3.0, 662)),
        ("report", "p99", None, (10.0, 2010)),
        ("report", "median", 1.5, (1.5, 1)),
    ],
)
def test_what_a_grade_asks_for(grade: str, stat: str, seconds: float | None, wanted: tuple[float, int]) -> None:
    assert MeasureJob(Path("m.onnx"), CONFIG, grade, stat=stat, seconds=seconds).wanted == wanted


def test_noise_is_never_constant_and_covers_the_range() -> None:
    specs = [
        TensorSpec("image", "uint8", (1, 32, 32, 3)),
        TensorSpec("x", "float32", (64,)),
        TensorSpec("b", "bool", (64,)),
    ]
    feeds = noise(specs, seed=0)
    assert len(feeds) == 8
    assert {feed["image"].dtype.name for feed in feeds} == {"uint8"}
    assert (min(feed["image"].min() for feed in feeds), max(feed["image"].max() for feed in feeds)) == (0, 255)
    assert all(feed["x"].std() > 0.5 and 0 < feed["b"].mean() < 1 for feed in feeds)
    assert len({feed["image"].tobytes() for feed in feeds}) == 8
    np.testing.assert_array_equal(noise(specs, seed=0)[3]["x"], feeds[3]["x"])


def test_lock_names_its_holder(tmp_path: Path) -> None:
    said: list[str] = []
    with device_locks({"cpu", "gpu0"}, folder=tmp_path):
        with (
            pytest.raises(
                UserError, match=r"device cpu is being measured by process \d+ \(.*\) since .*; waited 0.1 s"
            ),
            device_locks({"cpu"}, timeout=0.1, folder=tmp_path, tell=said.append),
        ):
            pass
        with device_locks({"npu"}, timeout=0.1, folder=tmp_path):
            pass
    with device_locks({"cpu"}, timeout=0.1, folder=tmp_path, tell=said.append):
        pass
    assert len(said) == 1
    assert said[0].startswith("waiting: device cpu is being measured by process")


def test_watch_tells_own_work_from_others() -> None:
    watch = Watch()
    assert watch.read() is None  # too short to tell
    total = sum(value * value for value in range(4_000_000))
    shares = watch.read()
    assert total
    assert shares is None or (0 <= shares.others <= 1 and 0 <= shares.stolen <= 1)


def _process(code: str) -> MeasuringProcess:
    return MeasuringProcess([sys.executable, "-c", f"import os, sys, time\n{code}"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param("time.sleep(60)", r"gave no answer to 'open model.onnx' within \d+ s and was ended", id="hangs"),
        pytest.param(
            "import subprocess; subprocess.Popen(['sleep', '600']); time.sleep(60)",
            r"gave no answer to 'open model.onnx' within \d+ s and was ended",
            id="hangs with a helper",
        ),
        pytest.param("sys.stdin.readline(); os.abort()", r"died at 'open model.onnx' \(signal 6\)", id="crashes"),
        pytest.param(
            "sys.stdin.readline(); sys.exit('out of memory')", r"died at .* \(exit code 1\): out of memory", id="exits"
        ),
        pytest.param("sys.stdin.readline(); print('hello')", r"answered 'open model.onnx' with 'hello'", id="nonsense"),
    ],
)
def test_process_that_fails_is_reported_and_gone(code: str, message: str) -> None:
    with _process(code) as process:
        with pytest.raises(MeasuringFailed, match=message):
            process.open(JOB, timeout=5 if "sleep" not in code else 0.5)
        with pytest.raises(MeasuringFailed, match="died at"):
            process.open(JOB, timeout=5)


def test_server_goes_on_after_a_mistake() -> None:
    answers = io.StringIO()
    requests: list[Any] = [
        {"do": "dance"},
        {"do": "sample", "id": "1", "seconds": 1, "samples": 1},
        {"do": "open", "id": "1", "job": {"model": "x"}, "rebuild": False},
        {"do": "interleave", "turns": [{"id": "1", "seconds": 1, "samples": 1}]},
        {"do": "interleave", "turns": [1]},
        {"do": "interleave", "turns": [{"id": ["1"], "seconds": 1, "samples": 1}]},
    ]
    serve([json.dumps(request) for request in requests], answers)
    texts = [json.loads(line)["error"] for line in answers.getvalue().splitlines()]
    assert texts[0].startswith('unknown request {"do": "dance"}')
    assert texts[1] == "'1' is not open; open: none"
    assert texts[2].startswith("measure job: Object missing required field")
    assert texts[3] == "'1' is not open; open: none"
    assert texts[4].startswith("turn: Expected `object`, got `int`")
    assert texts[5].startswith("turn: Expected `str`, got `array`")


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    (tmp_path / "scalenas-measure-cpu.lock").symlink_to(precious)
    with pytest.raises(OSError, match=r"scalenas-measure-cpu\.lock"), device_locks({"cpu"}, folder=tmp_path):
        pass
    assert precious.read_text() == "mine"


class Sleeping(Session):
    """A session that computes nothing, for a set time."""

    def __init__(self, seconds: float, parallel: int) -> None:
        spec = TensorSpec("x", "float32", (1,))
        super().__init__([spec], [TensorSpec("y", "float32", (1,))], parallel=parallel)
        self.seconds, self.runs = seconds, 0

    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        self.runs += 1
        time.sleep(self.seconds)

    def _close(self) -> None:
        pass


def test_throughput_counts_every_request_that_its_time_holds() -> None:
    session = Sleeping(0.05, parallel=8)
    subject = StreamSubject(session, noise(session.inputs, seed=0))
    taken = subject.sample(0.12, 1)
    subject.close()
    assert len(taken.milliseconds) == session.runs - 8  # one untimed in each stream came before
    assert len(taken.milliseconds) / taken.seconds == pytest.approx(8 / 0.05, rel=0.2)
    assert min(taken.milliseconds) >= 49


def test_frames_that_come_too_fast_are_late_and_flagged() -> None:
    for seconds, late in ((0.0, False), (0.03, True)):
        session = Sleeping(seconds, parallel=1)
        subject = PacedSubject(session, noise(session.inputs, seed=0), 50.0)
        taken = subject.sample(0.2, 5)
        subject.close()
        assert (taken.late > 0.5 * len(taken.milliseconds)) == late
    # A frame that is late puts the next ones off: they do not chase a schedule that is gone.
    assert taken.seconds < 0.2 + 3 * seconds
