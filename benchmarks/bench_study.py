"""What a study costs besides measuring: storage, bookkeeping, and choosing the next candidate.

    python benchmarks/bench_study.py [--n-trials 2000] [--sampler topology] [--candidate-seconds 3]
        [--storage URL] [--out benchmarks/results/study.json]

A search over the W16 space whose figures cost nothing, so that the wall time is all overhead: latency and accuracy with
details as large as real ones, the latency predicted as `search` does, and the state of the study shown after every
candidate. The sampler's own time is taken apart from the rest. Shares are of a loop with `--candidate-seconds` of
measuring for every candidate.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scalenas.registry import get_space
from scalenas.search import (
    Candidate,
    Context,
    Measured,
    Objective,
    Proposal,
    Sampler,
    SearchOptions,
    Study,
    get_sampler,
    search,
)
from scalenas.search.candidates import Trial
from scalenas_export.search.progress import Front, Plan
from scalenas_export.search.view import LineView
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

RESULTS = Path(__file__).parent / "results"
SETTINGS: dict[str, Json] = {"width": 16, "modules": [1, 2, 1], "joints": 14}
SPACE = get_space("scalenas")
# As many timed runs as a candidate of 4 ms gets.
SAMPLES = 130


class Timed(Sampler):
    """A sampler, and how long it took."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner
        self.seconds = 0.0
        self.name = inner.name  # type: ignore[misc]

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal:
        """Returns what the inner sampler proposes."""
        start = time.perf_counter()
        try:
            return self._inner.propose(context, rng)
        finally:
            self.seconds += time.perf_counter() - start


def latency(candidate: Candidate) -> Measured:
    """Returns a figure that follows from the net's cost, with details like those of a meter."""
    value = 1.0 + 4.0 * SPACE.cost(candidate.spec).gmacs
    rng = np.random.default_rng(candidate.number)
    samples = [round(float(each), 4) for each in value * (1 + 0.01 * rng.standard_normal(SAMPLES))]
    details: dict[str, Json] = {
        "target": "openvino:cpu/bf16",
        "headline_ms": 5.0,
        "raw_ms": value,
        "ratio": value / 5,
        "interval": [0.99 * value, 1.01 * value],
        "drift": 0.004,
        "samples": SAMPLES,
        "median_ms": value,
        "p90_ms": 1.05 * value,
        "flags": [],
        "milliseconds": samples,
        "prepare_seconds": {"net": 0.02, "graph": 0.2},
    }
    return Measured(value, details)


def accuracy(candidate: Candidate) -> Measured:
    """Returns a figure that has nothing to do with the size, with its details."""
    value = int(candidate.digest[:6], 16) / 16**6
    return Measured(value, {"interval": [value - 0.01, value + 0.01], "metric": "pck", "pictures": 400})


def measured(sampler: Timed, storage: str, n_trials: int) -> tuple[list[float], list[float]]:
    """Returns wall time and sampler's time after every candidate, in seconds from the start, the figures' own left out.

    What the figures take is measured apart and taken off, so that what is left is all overhead.
    """
    start = time.perf_counter()
    walls: list[float] = []
    choosing: list[float] = []
    own = [0.0]
    view = LineView(lambda _: None, every=0.0)

    def taken(measure: Callable[[Candidate], Measured]) -> Callable[[Candidate], Measured]:
        def timed(candidate: Candidate) -> Measured:
            begun = time.perf_counter()
            found = measure(candidate)
            own[0] += time.perf_counter() - begun
            return found

        return timed

    def note(study: Study, trial: Trial) -> None:
        view.trial(study.trials, trial)
        walls.append(time.perf_counter() - start - own[0])
        choosing.append(sampler.seconds)

    goals = [
        Objective("latency", taken(latency), "minimize", "ms"),
        Objective("accuracy", taken(accuracy), "maximize", "%"),
    ]
    view.begin(
        Plan(
            "bench",
            (Front("openvino:cpu/bf16", "latency", "accuracy"),),
            ("latency", "accuracy"),
            units={"latency": "ms", "accuracy": "%"},
            n_trials=n_trials,
        )
    )
    options = SearchOptions(
        settings=SETTINGS, n_trials=n_trials, predict=("latency",), on_trial=note, name=f"bench-{time.time_ns()}"
    )
    search(SPACE, goals, [], sampler, storage, options=options).close()
    return walls, choosing


def main() -> None:
    """Prints the shares and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-trials", type=int, default=2000)
    parser.add_argument("--sampler", default="topology")
    parser.add_argument("--candidate-seconds", type=float, default=3.0)
    parser.add_argument("--storage", help="A database's URL; a file in a temporary folder otherwise.")
    parser.add_argument("--out", type=Path, default=RESULTS / "study.json")
    given = parser.parse_args()
    sampler = Timed(get_sampler(given.sampler))
    with tempfile.TemporaryDirectory() as folder:
        walls, choosing = measured(sampler, given.storage or str(Path(folder) / "study.db"), given.n_trials)
    kept = [wall - chosen for wall, chosen in zip(walls, choosing, strict=True)]
    last = max(1, given.n_trials // 10)
    rows: dict[str, Json] = {}
    print(f"{'milliseconds a candidate':32} {'all':>8} {f'last {last}':>10} {'share of the loop':>18}")
    for name, series in (("storage and bookkeeping", kept), ("choosing (sampler)", choosing)):
        mean = series[-1] / given.n_trials
        late = (series[-1] - series[-1 - last]) / last if len(series) > last else mean
        share = series[-1] / (walls[-1] + given.n_trials * given.candidate_seconds)
        rows[name] = {"mean_ms": round(1e3 * mean, 3), "last_ms": round(1e3 * late, 3), "share": round(share, 6)}
        print(f"{name:32} {1e3 * mean:8.2f} {1e3 * late:10.2f} {100 * share:16.2f} %")
    result: dict[str, Json] = {
        "schema": "scalenas.benchmark.study/1",
        "command": f"python benchmarks/bench_study.py --n-trials {given.n_trials} --sampler {given.sampler} "
        f"--candidate-seconds {given.candidate_seconds:g}",
        "storage": "sqlite" if given.storage is None else given.storage.partition(":")[0],
        "fingerprint": fingerprint(),
        "parts": rows,
    }
    write_text(given.out, pretty_json(result))
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
