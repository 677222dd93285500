"""`search` from weights to bundles: a tiny supernet on drawn people, timed and judged through a real engine."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from scalenas import get_space, save_weights
from scalenas.search import Study
from scalenas_export.cli.app import run
from tests.export.test_weights_by_name import small_weights

PROGRAM = str(Path(sys.executable).with_name("scalenas-export"))
TARGET = "onnxruntime:cpu/fp32"
# Generous: no test depends on how fast the machine is.
BUDGET = "5000"


@dataclass(frozen=True)
class Searched:
    """A finished search: its words without the folder, what it printed as JSON, and its folder."""

    words: tuple[str, ...]
    result: dict[str, Any]
    folder: Path

    @property
    def digests(self) -> list[str]:
        return [line["digest"] for line in records(self.folder)]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def words(weights: Path, *more: str) -> tuple[str, ...]:
    fixed = ("--target", TARGET, "--threads", "1", "--limit", "6", "--calibration", "8", "--seed", "3")
    return ("search", "--weights", str(weights), *fixed, *more)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, small_weights("pose"))
    return path


@pytest.fixture(scope="module")
def searched(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("search") / "run"
    line = words(weights, "--latency-ms", BUDGET)
    command = [PROGRAM, *line, "--n-trials", "4", "--finalists", "1", "--final-grade", "standard"]
    command += ["--out", str(folder), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Searched(line, json.loads(done.stdout), folder)


@pytest.mark.slow
def test_a_search_measures_and_confirms(searched: Searched) -> None:
    result = searched.result
    assert (result["ended"], result["trials"], result["states"]["complete"]) == ("finished", 4, 4)
    assert result["synthetic"] is True
    assert "finalists at grade standard" in result["meaning"]
    assert f"median of engine_wall on {TARGET}" in result["meaning"]
    found = [each for each in result["finalists"] if not each["member"]]
    members = [each["name"] for each in result["finalists"] if each["member"]]
    assert len(found) == 1
    assert "hrnet-w4" in members
    low, high = found[0]["interval_ms"]
    assert low <= found[0]["median_ms"] <= high <= float(BUDGET)
    assert found[0]["keeps"] is True
    assert result["bundles"] == {}


@pytest.mark.slow
def test_the_files_of_a_search_agree_with_its_study(searched: Searched) -> None:
    study = Study.open(searched.folder / "study.db")
    trials = study.trials
    study.close()
    lines = records(searched.folder)
    assert [line["key"] for line in lines] == [trial.candidate.key for trial in trials]
    with (searched.folder / "trials.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["latency"]) for row in rows] == [trial.values["latency"] for trial in trials]
    assert rows[0]["name"] == "hrnet-w4"
    # The reference is measured against itself.
    assert 0.3 < float(rows[0]["latency.ratio"]) < 3
    for name in ("front.png", "front.html", "finalists/measurements.json", "specs/hrnet-w4.json"):
        assert (searched.folder / name).stat().st_size > 100
    assert "hrnet-w4" in (searched.folder / "front.html").read_text()


@pytest.mark.slow
def test_replay_gives_the_same_sequence_without_measuring(
    searched: Searched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ("--replay", str(searched.folder / "records.jsonl"), "--n-trials", "4", "--out", str(tmp_path / "again"))
    code, out, err = call(capsys, *searched.words, *again, "--json")
    assert code == 0, err
    assert json.loads(out)["finalists"] == []
    # What the figures are about is told of the records too.
    assert json.loads(out)["synthetic"] is True
    assert "all drawn (synthetic" in json.loads(out)["meaning"]
    replayed, recorded = records(tmp_path / "again"), records(searched.folder)
    for key in ("digest", "values", "details", "state", "origin"):
        assert [line[key] for line in replayed] == [line[key] for line in recorded]


@pytest.mark.slow
def test_replayed_figures_do_not_mix_with_measured_ones(
    searched: Searched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ("--replay", str(searched.folder / "records.jsonl"), "--export-best", "1", "--finalists", "1")
    out = ("--out", str(tmp_path / "again"))
    code, _, err = call(capsys, *searched.words, *again, "--n-trials", "3", *out)
    assert code == 0, err
    assert "figures were replayed, so that nothing is measured again or exported" in err
    code, _, err = call(capsys, *searched.words, "--n-trials", "4", *out, "--resume")
    assert (code, "is about something else: figures" in err) == (2, True)
    code, _, err = call(capsys, *searched.words, *again, "--n-trials", "4", *out, "--resume")
    assert code == 0, err
    assert len(records(tmp_path / "again")) == 4


@pytest.mark.slow
def test_a_dry_run_tries_three_candidates_and_stores_nothing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # However little time the search itself may take.
    code, out, err = call(capsys, *words(weights), "--timeout", "1e-9", "--dry-run", "--json")
    assert code == 0, err
    value = json.loads(out)
    assert [each["number"] for each in value["candidates"]] == [0, 1, 2]
    assert all(each["values"]["latency"] > 0 and 0 <= each["values"]["accuracy"] <= 1 for each in value["candidates"])
    assert value["candidates_per_hour"] == pytest.approx(3600 * 3 / value["seconds"], rel=0.01)
    assert not list(tmp_path.rglob("*.db"))


@pytest.mark.slow
def test_two_targets_and_two_sizes_have_a_front_each_and_costs_of_their_own(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [
        PROGRAM,
        *words(weights, "--target", "openvino:cpu/fp32", "--size-gene", "64x64", "--size-gene", "96x64"),
    ]
    command += ["--n-trials", "6", "--finalists", "0", "--out", str(folder), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["fronts"]) == {TARGET, "openvino:cpu/fp32"}
    rows = json.loads((folder / "trials.json").read_text())
    assert {row["size"] for row in rows} == {"64x64", "96x64"}
    costs: dict[str, dict[str, int]] = {}
    for row in rows:
        assert row[f"latency@{TARGET}"] > 0
        assert row["latency@openvino:cpu/fp32"] > 0
        costs.setdefault(row["digest"], {})[row["size"]] = row["macs"]
    both = [each for each in costs.values() if len(each) == 2]
    assert both
    for each in both:
        assert each["96x64"] == pytest.approx(1.5 * each["64x64"], rel=0.01)


@pytest.mark.slow
def test_a_full_disk_at_the_end_keeps_the_reports(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "run"
    shutil.copytree(searched.folder, folder)
    for name in ("trials.csv", "records.jsonl"):
        (folder / name).unlink()
    monkeypatch.setattr("scalenas_export.search.run.confirm_best", full)
    code, _, err = call(capsys, *searched.words, "--n-trials", "4", "--out", str(folder), "--resume")
    last = err.strip().splitlines()[-1]
    assert code == 2
    assert last.startswith("error: the end of the search failed: [Errno 28] No space left on device; --resume")
    assert len(records(folder)) == 4


@pytest.mark.slow
def test_a_study_goes_on_only_as_itself(
    searched: Searched, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = ("--storage", str(searched.folder / "study.db"), "--n-trials", "4", "--finalists", "0")
    code, _, err = call(capsys, *searched.words, *storage, "--out", str(tmp_path / "new"))
    assert (code, "has 4 candidates already; pass --resume" in err) == (2, True)
    other = tmp_path / "other.safetensors"
    supernet = small_weights("pose")
    tensors = {name: tensor + 1 for name, tensor in supernet.tensors.items()}
    save_weights(other, replace(supernet, tensors=tensors))
    changed = words(other, "--latency-ms", BUDGET)
    code, _, err = call(capsys, *changed, *storage, "--resume", "--out", str(tmp_path / "new"))
    last = err.strip().splitlines()[-1]
    assert code == 2
    assert "is about something else: supernet is" in last
    # A complete study has nothing to measure, and is reported as it stands.
    code, out, err = call(capsys, *searched.words, *storage, "--resume", "--out", str(tmp_path / "new"), "--json")
    assert code == 0, err
    assert json.loads(out)["trials"] == 4


@pytest.mark.slow
def test_a_killed_search_goes_on_and_loses_nothing(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = words(weights, "--objective", "latency", "--n-trials", "4", "--finalists", "0", "--out", str(folder))
    command = [PROGRAM, *line]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        seen = 0
        for text in process.stderr:
            seen += ", latency " in text
            if seen == 2:
                os.kill(process.pid, signal.SIGKILL)
                break
    study = Study.open(folder / "study.db")
    before = study.trials
    study.close()
    assert len(before) >= 2
    done = subprocess.run([*command, "--resume"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    study = Study.open(folder / "study.db")
    after = study.trials
    study.close()
    assert [trial.number for trial in after] == list(range(4))
    assert len({trial.candidate.key for trial in after}) == 4
    assert [trial.to_json() for trial in after[: len(before)]] == [trial.to_json() for trial in before]


@pytest.mark.slow
def test_ctrl_c_finishes_the_candidate_and_writes_the_reports(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = words(weights, "--objective", "latency", "--n-trials", "400", "--finalists", "0", "--out", str(folder))
    with subprocess.Popen([PROGRAM, *line], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if ", latency " in text:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "go on with" in out
    assert 1 <= len(records(folder)) < 400


@pytest.mark.slow
def test_a_budget_that_nothing_meets_shows_the_closest(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A storage without tables, such as a kill can leave or a new database is, becomes the study's.
    (tmp_path / "empty.db").touch()
    storage = ("--storage", str(tmp_path / "empty.db"))
    code, _, err = call(
        capsys, *words(weights, "--latency-ms", "0.0001", "--n-trials", "2", "--out", str(tmp_path / "run"), *storage)
    )
    last = err.strip().splitlines()[-1]
    assert code == 3
    assert last.startswith("error: none of 2 candidates meets 0.0001 ms (median of engine_wall); the closest: ")
    assert "hrnet-w4: latency " in last


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--latency-ms", "0"), "the latency budget is 0.0 ms; needed is a number above 0"),
        (("--latency-ms", "nan"), "the latency budget is nan ms; needed is a number above 0"),
        (("--latency-ms", "-3"), "the latency budget is -3.0 ms"),
        (("--timeout", "0"), "the timeout is 0.0 s"),
        (("--export-best", "-1"), "export_best is -1; needed is a whole number from 0"),
        (("--export-best", "4"), "--export-best 4 exports finalists, of which there are 3"),
        (("--objective", "macs", "--latency-ms", "9"), "finalists are chosen by accuracy, and the objectives are macs"),
        (("--objective", "beauty"), "unknown objective 'beauty'; known: latency, accuracy, params, macs"),
        (("--boundary", "moon"), "moon"),
        (("--sampler", "none-such"), "none-such"),
        (("--sampler-option", "x"), "--sampler-option takes KEY=VALUE"),
        (("--enqueue", "none.json"), "there is no spec file none.json"),
        (("--target", "onnxruntime:cuda7/fp32"), "onnxruntime:cuda7/fp32"),
        (("--precision-gene", "int3"), "int3"),
        (("--join",), "--join works on a study that others began"),
        (("--set", "a=1"), "--data-root and --set go with --data"),
        (("--storage", "mysql://me@there/x"), "is of kind 'mysql'"),
        (("--storage", "postgresql://me@127.0.0.1:1/x"), "storage postgresql://me@127.0.0.1:1/x cannot be used"),
        (("--resume",), "there is no run to resume"),
        (("--resume", "--out", "typo"), "typo"),
        (("--persons", "3"), "3 persons are asked for, and the boundary engine_wall has none"),
        (("--export-best", "1", "--objective", "accuracy"), "the objective is accuracy alone"),
        (("--warm-start-study", "old"), "say with --warm-start which storage has it"),
        (("--storage", "postgresql://me@host:abc/db"), "is no URL of a database"),
    ],
)
def test_bad_input_is_one_line(
    more: tuple[str, ...],
    text: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *words(weights, "--n-trials", "2"), *more)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert text in err


def test_weights_of_one_net_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    supernet = small_weights("pose")
    spec = get_space("scalenas").max(supernet.settings)
    save_weights(tmp_path / "net.safetensors", replace(supernet, kind="static", spec=spec))
    code, _, err = call(capsys, *words(tmp_path / "net.safetensors", "--n-trials", "2"))
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "holds the weights of one net; a search needs those of a supernet" in err


def test_persons_are_for_pose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(tmp_path / "street.safetensors", small_weights("segmentation"))
    line = words(tmp_path / "street.safetensors", "--n-trials", "2", "--boundary", "pipeline", "--persons", "3")
    code, _, err = call(capsys, *line)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "3 persons are asked for; a segmentation net takes the whole picture" in err


def test_a_search_needs_an_end(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, *words(weights))
    assert (code, "give --n-trials, --timeout, or both" in err) == (2, True)
