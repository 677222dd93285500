"""Real engines measured in real processes, quickly: what a record says, not how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenas_export.cli.app import run
from scalenas_runtime.errors import UserError
from scalenas_runtime.measure import MeasureJob, Measurement, MeasuringProcess, Plan, job, run_job, run_jobs
from scalenas_runtime.measure.job import Turn
from scalenas_runtime.measure.output import export_times, save
from scalenas_runtime.measure.statistics import Statistics
from scalenas_runtime.measure.subject import open_subject
from scalenas_runtime.measure.watch import Sharing
from scalenas_runtime.records import read_record, to_plain
from scalenas_runtime.targets import EngineConfig, Target

RUNTIME, VINO = EngineConfig(Target.parse("onnxruntime:cpu/fp32")), EngineConfig(Target.parse("openvino:cpu/fp32"))


@pytest.fixture(scope="module")
def records(tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Measurement]:
    jobs = [MeasureJob(tiny_models.path("one"), config, "search", seconds=0.1) for config in (RUNTIME, VINO)]
    return run_jobs(jobs, Plan(reference=jobs[0], lock_folder=tmp_path_factory.mktemp("locks")))


def test_record_holds_what_is_needed_to_believe_it(records: list[Measurement]) -> None:
    for config, record in zip((RUNTIME, VINO), records, strict=True):
        (process,) = record.processes
        assert record.config_digest == config.digest
        assert record.statistics.samples == len(process.milliseconds) >= 6
        assert record.statistics.median == process.median == np.median(process.milliseconds)
        assert sum(process.milliseconds) >= 100
        low, high = record.statistics.interval
        assert low <= record.statistics.median <= high
        assert record.pictures_per_second == pytest.approx(1000 / record.statistics.median)
        assert process.engine.compiled
        assert process.engine.warm_up.iterations >= 10
        assert process.engine.properties
        assert record.drift is not None
        assert record.drift.ratio > 0
        assert record.fingerprint["device_key"]


def test_record_survives_json(records: list[Measurement]) -> None:
    assert read_record(Measurement, json.loads(json.dumps(to_plain(records[0]))), what="record") == records[0]


def test_every_sample_is_kept(records: list[Measurement], tmp_path: Path) -> None:
    save(tmp_path, records)
    with np.load(tmp_path / "samples.npz") as samples:
        assert sorted(samples) == ["0.0", "1.0"]
        np.testing.assert_array_equal(samples["1.0"], records[1].processes[0].milliseconds)
    plain = json.loads((tmp_path / "measurements.json").read_text())
    assert "milliseconds" not in plain[0]["processes"][0]
    export_times(tmp_path / "times.csv", records)
    lines = (tmp_path / "times.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(record.statistics.samples for record in records)
    export_times(tmp_path / "times.json", records)
    assert json.loads((tmp_path / "times.json").read_text())[0]["milliseconds"] == [
        records[0].processes[0].milliseconds
    ]
    with pytest.raises(UserError, match=r"times are exported as .json or .csv, got .*times.txt"):
        export_times(tmp_path / "times.txt", records)


def test_report_takes_five_processes_and_rebuilds_in_two(
    tiny_models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    original: Callable[..., Any] = MeasuringProcess.open

    def spy(self: MeasuringProcess, job: MeasureJob, *, rebuild: bool, timeout: float) -> Any:
        asked.append(rebuild)
        return original(self, job, rebuild=rebuild, timeout=timeout)

    monkeypatch.setattr(MeasuringProcess, "open", spy)
    record = run_job(MeasureJob(tiny_models.path("one"), RUNTIME, "report", seconds=0.002), Plan(lock_folder=tmp_path))
    assert len(record.processes) == 5
    assert asked == [False, False, False, True, True]
    assert record.statistics.samples == sum(len(process.milliseconds) for process in record.processes)
    assert "few_samples" in record.flags


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        pytest.param({"boundary": "paced@100"}, VINO, id="paced"),
        pytest.param({}, replace(VINO, hint="throughput", streams=2), id="throughput"),
        pytest.param({}, replace(RUNTIME, threads=1), id="one thread"),
    ],
)
def test_ways_of_running(tiny_models: Any, changes: dict[str, Any], config: EngineConfig) -> None:
    subject, opened = open_subject(MeasureJob(tiny_models.path("one"), config, "search", **changes), rebuild=False)
    taken = subject.sample(0.2, 10)
    subject.close()
    assert opened.compiled
    assert len(taken.milliseconds) >= 10
    assert all(value > 0 for value in taken.milliseconds)
    if "boundary" in changes:
        assert len(taken.milliseconds) <= 0.2 * 100 + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"boundary": "pipeline"}, "boundary pipeline needs a bundle", id="pipeline of an ONNX file"),
        pytest.param({"boundary": "engine_wall_io"}, "works in host memory, so engine_wall_io is engine_wall", id="io"),
        pytest.param(
            {"boundary": "paced@9", "config": replace(VINO, hint="throughput")},
            "boundary paced@9 is measured with hint latency, got throughput",
            id="paced throughput",
        ),
        pytest.param({"config": replace(VINO, batch=3)}, "its batch is 1, not 3", id="batch"),
    ],
)
def test_job_that_cannot_be_done_here(tiny_models: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_subject(replace(MeasureJob(tiny_models.path("one"), VINO), **changes), rebuild=False)


def test_one_process_serves_many_engines(tiny_models: Any) -> None:
    with MeasuringProcess() as process:
        first, _ = process.open(MeasureJob(tiny_models.path("one"), VINO, "search"))
        for config in (VINO, RUNTIME):
            name, opened = process.open(MeasureJob(tiny_models.path("one"), config, "search"))
            assert opened.model_sha256
            assert len(process.sample(name, 0.01, 5).milliseconds) >= 5
            process.close(name)
        assert len(process.sample(first, 0.01, 5).milliseconds) >= 5
        with pytest.raises(UserError, match="is not a file; an ONNX model is needed"):
            process.open(MeasureJob(tiny_models.path("absent"), VINO, "search"))
        process.close(first)


def test_engines_take_turns_in_one_process(tiny_models: Any) -> None:
    with MeasuringProcess() as process:
        names = [process.open(MeasureJob(tiny_models.path("one"), config, "search"))[0] for config in (VINO, RUNTIME)]
        turns = [Turn(names[0], 0.0, 3), Turn(names[1], 0.0, 4, settle=False), Turn(names[0], 0.1, 1)]
        taken = process.interleave(turns)
        assert [len(part.milliseconds) for part in taken][:2] == [3, 4]
        assert sum(taken[2].milliseconds) >= 100
        # Who else was busy is known of all turns together.
        assert len({(part.sharing.others, part.sharing.stolen) for part in taken if part.sharing is not None}) == 1
        assert process.interleave([]) == []
        with pytest.raises(UserError, match="'9' is not open; open: "):
            process.interleave([Turn(names[0], 0.0, 1), Turn("9", 0.0, 1)])


def test_module_measures_a_job_from_stdin(tiny_models: Any, tmp_path: Path) -> None:
    plain = MeasureJob(tiny_models.path("one"), RUNTIME, "search", seconds=0.02).to_json()
    command = [sys.executable, "-m", "scalenas_runtime", "measure"]
    done = subprocess.run(command, input=json.dumps(plain), capture_output=True, text=True, check=True)
    record = read_record(Measurement, json.loads(done.stdout), what="record")
    assert record.job == plain
    for text, message in (("{", "error: the measure job is not JSON"), ("{}", "error: measure job: Object missing")):
        failed = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert failed.stderr.startswith(message)


def test_flags(records: list[Measurement]) -> None:
    record = records[0]
    figures = record.statistics
    loud = Sharing(others=0.5, stolen=0.2)
    process = record.processes[0]
    shaky = read_record(
        job.ProcessRun,
        {
            **to_plain(process),
            "sharing": to_plain(loud),
            "late": 30,
            "engine": {**to_plain(process.engine), "warm_up": {"seconds": 5.0, "iterations": 9, "steady": False}},
        },
        what="process",
    )
    drift = job.Drift(before=1.0, after=1.1, change=0.095, ratio=3.0, error=0.07)
    cpu = {"quota": 0.5, "affinity": 2, "governor": "powersave"}
    asked = MeasureJob(Path("m.onnx"), VINO, "report")
    wild = read_record(Statistics, {**to_plain(figures), "cov": 0.5, "samples": 2009}, what="statistics")
    assert job.flags_of(asked, wild, [shaky], drift, cpu) == tuple(job.FLAGS)
    calm = read_record(Statistics, {**to_plain(figures), "cov": 0.01, "samples": 2010}, what="statistics")
    still = read_record(
        job.ProcessRun,
        {
            **to_plain(process),
            "sharing": None,
            "engine": {**to_plain(process.engine), "warm_up": {"seconds": 0.2, "iterations": 9, "steady": True}},
        },
        what="process",
    )
    assert job.flags_of(asked, calm, [still], None, {"quota": None, "affinity": 2, "governor": None}) == ()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bench_prints_a_table_and_keeps_the_run(
    tiny_models: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny_models.path("one"))
    options = ["--target", "onnxruntime:cpu/fp32", "--seconds", "0.05", "--per-layer", "--export-times", "t.csv"]
    assert run(["bench", model, *options]) == 0
    output = capsys.readouterr().out
    assert "onnxruntime:cpu/fp32" in output
    assert "slowest layers" in output
    assert {path.name for path in (folder / "runs/bench/1").iterdir()} >= {
        "config.yaml",
        "command.txt",
        "env.json",
        "measurements.json",
        "samples.npz",
    }
    assert (folder / "t.csv").read_text().startswith("target,process,sample,milliseconds")
    assert run(["bench", model, "--target", "openvino:cpu/fp32", "--seconds", "0.05", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["measurements"][0]["schema"] == "scalenas.measurement/1"
    assert plain["folder"] == "runs/bench/2"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--target", "openvino:cpu/fp32"], "-infer_precision f32 -t 10 -hint latency -api sync"),
        (["--target", "openvino:cpu/fp32", "--threads", "2"], "-hint none -nstreams 1 -nthreads 2 -api sync"),
        (["--target", "openvino:cpu/fp32", "--hint", "throughput"], "-hint throughput -api async"),
    ],
)
def test_bench_prints_the_equivalent_command(
    tiny_models: Any, capsys: pytest.CaptureFixture[str], options: list[str], line: str
) -> None:
    assert run(["bench", str(tiny_models.path("one")), "--print-equivalent", *options]) == 0
    assert capsys.readouterr().out.strip().endswith(line)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--target", "openvino:cpu"], "target 'openvino:cpu' is not of the form", id="target"),
        pytest.param(["--target", "onnxruntime:cpu/bf16"], "onnxruntime does not run bf16 on", id="precision"),
        pytest.param(["--seconds", "-1"], "seconds must be a positive number, got -1.0", id="seconds"),
        pytest.param(["--timeout", "-1"], "--timeout is a positive number of seconds", id="timeout"),
        pytest.param(
            ["--timeout", "nan"], "--timeout is a positive number of seconds, at most 1e+07, got nan", id="nan"
        ),
        pytest.param(["--timeout", "inf"], "--timeout is a positive number of seconds", id="endless"),
        pytest.param(
            ["--target", "onnxruntime:cpu/fp32", "--persons", "50"],
            "50 persons are asked for, and the boundary engine_wall has none",
            id="persons",
        ),
        pytest.param(["--boundary", "wall"], "unknown boundary 'wall'", id="boundary"),
        pytest.param(["--export-times", "t.txt"], "times are exported as .json or .csv", id="times"),
        pytest.param(
            ["--target", "onnxruntime:cpu/fp32", "--print-equivalent"], "no tool measures the same", id="tool"
        ),
    ],
)
def test_bench_mistakes(
    tiny_models: Any, folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(["bench", str(tiny_models.path("one")), *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_bench_of_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "absent.onnx"]) == 2
    assert "absent.onnx does not exist; name a bundle or an ONNX file" in capsys.readouterr().err


def test_a_measuring_process_ends_in_mid_measurement_when_its_caller_dies(tiny_models: Any) -> None:
    job = MeasureJob(tiny_models.path("one"), RUNTIME, "search")
    ask = [
        {"do": "open", "id": "1", "job": job.to_json(), "rebuild": False},
        {"do": "sample", "id": "1", "seconds": 600.0, "samples": 1},
    ]
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "scalenas_runtime", "measure", "--serve"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{json.dumps(request)}\n" for request in ask))
        process.stdin.flush()
        assert "ok" in json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(60) == 1
