"""One study, killed again and again at random moments, then finished: is anything lost, anything measured twice?

    python benchmarks/bench_search_faults.py [--kills 20] [--n-trials 120] [--out benchmarks/results/search_faults.json]

Figures follow from the genes, so the finished candidates must equal those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scalenas.search import SearchOptions, Study
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.nets.search.search_worker import SETTINGS, run  # noqa: E402

RESULTS = Path(__file__).parent / "results"


def start(storage: Path, log: Path, n_trials: int) -> subprocess.Popen[bytes]:
    """Returns a worker at work on the study."""
    options = {"n_trials": n_trials, "max_tries": 100}
    given = {"sampler": "topology", "options": options, "log": str(log), "pause": 0.02}
    command = [sys.executable, "-m", "tests.nets.search.search_worker", str(storage), json.dumps(given)]
    return subprocess.Popen(command, cwd=ROOT)


def measured(log: Path) -> list[str]:
    """Returns the key of every measuring so far."""
    return [line.split()[1] for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def disturbed(storage: Path, log: Path, *, kills: int, n_trials: int) -> int:
    """Returns how often a worker was killed before the study was finished."""
    moments = random.Random(0)
    done = 0
    while True:
        worker = start(storage, log, n_trials)
        if done < kills:
            before, wanted = len(measured(log)), moments.randint(1, max(2, 2 * n_trials // (3 * kills)))
            while worker.poll() is None and len(measured(log)) < before + wanted:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.1))
            worker.kill()
        if worker.wait() == 0:
            return done
        done += 1


def main() -> None:
    """Prints what was found and writes it; exit code 4 when something was lost or measured twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--n-trials", type=int, default=120)
    parser.add_argument("--out", type=Path, default=RESULTS / "search_faults.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storage, log = Path(folder) / "study.db", Path(folder) / "log"
        kills = disturbed(storage, log, kills=given.kills, n_trials=given.n_trials)
        study = Study.open(storage)
        plain = run(None, options=SearchOptions(settings=SETTINGS, n_trials=given.n_trials))
        same = [trial.to_json() | {"seconds": None} for trial in study.trials] == [
            trial.to_json() | {"seconds": None} for trial in plain.trials
        ]
        keys = measured(log)
        study.close()
    again = len(keys) - len(set(keys))
    print(f"{kills} kills over {given.n_trials} candidates; finished candidates equal those undisturbed: {same}")
    print(f"measured again because the kill came before its result was kept: {again}, at most one for a kill")
    result: dict[str, Json] = {
        "schema": "scalenas.benchmark.search_faults/1",
        "command": f"python benchmarks/bench_search_faults.py --kills {given.kills} --n-trials {given.n_trials}",
        "fingerprint": fingerprint(),
        "kills": kills,
        "candidates": given.n_trials,
        "same_as_undisturbed": same,
        "measured_again": again,
    }
    write_text(given.out, pretty_json(result))
    print(f"wrote {given.out}")
    sys.exit(0 if same and again <= kills else 4)


if __name__ == "__main__":
    main()
