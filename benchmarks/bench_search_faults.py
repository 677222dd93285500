"""One study, killed again and again at random moments, then finished: is anything lost, anything measured twice?

    python -m benchmarks.bench_search_faults [--kills 20] [--n-trials 120] [--table pose-w16] [--live-kills 20]
        [--live-trials 80] [--weights pose-w8-drawn] [--target onnxruntime:cpu/fp32]
        [--out benchmarks/results/search_faults.json]

First on a closed table, whose figures are the same in every run: the finished candidates must equal those of a run that
nobody disturbed, and at most one candidate a kill may be measured again. Then live: `scalenas-export search` is killed
between 1 and 25 seconds after each start, at whatever it is doing, and gone on with by `--resume`; no candidate may be
missing or there twice.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.live_search import RESULTS
from scalenas.search import Candidate, Objective, SearchOptions, Study, get_sampler, search
from scalenas.search.objectives import Measured
from scalenas.search.storage import NoStudy
from scalenas.table.table import load
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[1]
PAUSE = 0.02
CLI = "from scalenas_export.cli import main; main()"
# Seconds from the start of a live search to its end: from its imports to the midst of its sixth candidate or so.
MOMENTS = (1.0, 25.0)


def on_table(table: str, storage: str | None, *, n_trials: int, log: Path | None = None) -> Study:
    """Returns the study after a search on the table; every measuring is a line in the log."""
    opened = load(table)

    def logged(objective: Objective) -> Objective:
        def measure(candidate: Candidate) -> float | Measured:
            if log is not None:
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(f"{candidate.key} {objective.name}\n")
                time.sleep(PAUSE)
            return objective.measure(candidate)

        return replace(objective, measure=measure)

    objectives = [logged(each) for each in opened.objectives(None, seed=0)]
    options = SearchOptions(
        settings=opened.record.settings, inputs=opened.record.inputs, n_trials=n_trials, max_tries=100
    )
    return search(opened.space, objectives, (), get_sampler("topology"), storage, options=options)


def lines(log: Path) -> list[str]:
    """Returns every measuring so far."""
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def disturbed(given: argparse.Namespace, storage: Path, log: Path) -> int:
    """Returns how often a worker was killed before the study on the table was finished."""
    moments = random.Random(0)
    command = [sys.executable, "-m", "benchmarks.bench_search_faults", "--table", given.table]
    command += ["--n-trials", str(given.n_trials), "--worker", str(storage), str(log)]
    done = 0
    while True:
        worker = subprocess.Popen(command, cwd=ROOT)
        if done < given.kills:
            before = len(lines(log))
            wanted = moments.randint(1, max(2, 4 * given.n_trials // (3 * given.kills)))
            while worker.poll() is None and len(lines(log)) < before + wanted:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.1))
            worker.kill()
        code = worker.wait()
        if code == 0:
            return done
        if done == given.kills or code != -signal.SIGKILL:
            raise SystemExit(f"a worker ended by itself with exit code {code} after {done} kills")
        done += 1


def table_part(given: argparse.Namespace) -> dict[str, Json]:
    """Returns what kills did to a study on the table."""
    with tempfile.TemporaryDirectory() as folder:
        storage, log = Path(folder) / "study.db", Path(folder) / "log"
        kills = disturbed(given, storage, log)
        study, plain = Study.open(str(storage)), on_table(given.table, None, n_trials=given.n_trials)
        same = [trial.to_json() | {"seconds": None} for trial in study.trials] == [
            trial.to_json() | {"seconds": None} for trial in plain.trials
        ]
        measured = lines(log)
        study.close()
    again = len(measured) - len(set(measured))
    return {
        "kills": kills,
        "candidates": given.n_trials,
        "same_as_undisturbed": same,
        "measurings": len(measured),
        "measured_again": again,
        "held": same and kills == given.kills and again <= 2 * kills,
    }


def live_part(given: argparse.Namespace) -> dict[str, Json]:
    """Returns what kills did to a search on a real engine."""
    moments = random.Random(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        command = [sys.executable, "-c", CLI, "search", "--weights", given.weights]
        command += ["--target", given.target, "--limit", "40", "--finalists", "0", "--out", str(folder)]
        command += ["--n-trials", str(given.live_trials)]
        found: list[int] = []
        while len(found) < given.live_kills:
            # What was killed before it had made its folder left nothing to go on with.
            worker = start([*command, "--resume"] if folder.exists() else command)
            try:
                code = worker.wait(moments.uniform(*MOMENTS))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
                found.append(count(folder))
            else:
                raise SystemExit(f"the search ended by itself with exit code {code} after {len(found)} kills")
        if code := start([*command, "--resume"]).wait():
            raise SystemExit(f"the last search ended with exit code {code}")
        study = Study.open(str(folder / "study.db"))
        trials = list(study.trials)
        study.close()
    numbers, keys = [trial.number for trial in trials], {trial.candidate.key for trial in trials}
    failed = sum(trial.state == "failed" for trial in trials)
    return {
        "weights": given.weights,
        "target": given.target,
        "kills": given.live_kills,
        "candidates": len(trials),
        "finished_at_each_kill": list(found),
        "distinct": len(keys),
        "failed": failed,
        "held": numbers == list(range(given.live_trials)) and len(keys) == len(trials) and not failed,
    }


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Returns a search that runs and says nothing."""
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def count(folder: Path) -> int:
    """Returns how many candidates of a killed search are finished."""
    try:
        study = Study.open(str(folder / "study.db"))
    except NoStudy:
        return 0
    done = len(study.trials)
    study.close()
    return done


def main() -> None:
    """Prints what was found and writes it; exit code 4 when something was lost or measured twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--n-trials", type=int, default=120)
    parser.add_argument("--table", default="pose-w16")
    parser.add_argument("--live-kills", type=int, default=20)
    parser.add_argument("--live-trials", type=int, default=80)
    parser.add_argument("--weights", default="pose-w8-drawn")
    parser.add_argument("--target", default="onnxruntime:cpu/fp32")
    parser.add_argument("--worker", nargs=2, type=Path, metavar=("STORAGE", "LOG"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "search_faults.json")
    given = parser.parse_args()
    if given.worker is not None:
        storage, log = given.worker
        on_table(given.table, str(storage), n_trials=given.n_trials, log=log).close()
        return
    table = table_part(given)
    print(f"table: {table}", flush=True)
    live = live_part(given)
    print(f"live: {live}")
    record: dict[str, Json] = {"table": {"name": given.table, **table}, "live": live, "machine": fingerprint()}
    write_text(given.out, pretty_json(record))
    print(f"wrote {given.out}")
    sys.exit(0 if table["held"] and live["held"] else 4)


if __name__ == "__main__":
    main()
