"""Samplers against each other on live measurements: what a race on a closed table says, confirmed on the device.

    python -m benchmarks.bench_live_race [WEIGHTS] [--target openvino:cpu/bf16] [--samplers topology,random,nsga2]
        [--seeds 3] [--n-trials 80] [--limit 200] [--data D.yaml --data-root R] [--folder runs/live-race]
        [--out benchmarks/results/live_race.json]

Every run is a whole search for the front of latency and accuracy, in a study of its own under `--folder`: a killed
benchmark goes on where it was. Its figure is the hypervolume of the candidates' front after the last candidate, and its
mean over all candidates. The reference point is the same for all: a tenth beyond the latency of the slowest named net,
and the accuracy of the worst one less a tenth of itself, each net by its mean over all runs; every search measures
these nets first, whatever its sampler. All searches are on the scale of the first one's reference. The samplers'
searches of one seed follow each other, then those of the next. The record keeps both figures of every candidate.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.live_search import RESULTS
from scalenas.search import Trial
from scalenas.search.pareto import hypervolume
from scalenas_export.search.data import DataSource
from scalenas_export.search.request import SearchRequest
from scalenas_export.search.run import headlines_of, run_search
from scalenas_export.search.view import LineView
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.targets import EngineConfig, Target


def trials_of(
    arguments: argparse.Namespace, sampler: str, seed: int, headlines: Mapping[str, float]
) -> tuple[list[Trial], dict[str, float]]:
    """Returns the trials of one search, gone on with where an earlier call left it, and the scale of its latencies.

    Args:
        arguments: What is searched.
        sampler: How.
        seed: Of all random choices.
        headlines: The scale of the searches before it, which is to be this one's too.
    """
    folder = arguments.folder / f"{sampler}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    request = SearchRequest(
        weights=arguments.weights,
        configs=(EngineConfig(Target.parse(arguments.target)),),
        folder=folder,
        data=DataSource(description=arguments.data, root=arguments.data_root),
        limit=arguments.limit,
        sampler=sampler,
        seed=seed,
        n_trials=arguments.n_trials,
        finalists=0,
        resume=True,
        headlines=headlines,
    )
    result = run_search(request, view=LineView(print))
    if result.failure is not None:
        raise result.failure
    trials = result.study.trials
    scale = headlines_of(result.study)
    result.study.close()
    return trials, scale


def reference_of(runs: list[list[Trial]]) -> tuple[float, float]:
    """Returns latency and accuracy of the reference point, from the named nets that every search measures first."""
    named = [trial for trials in runs for trial in trials if trial.origin == "enqueued" and "accuracy" in trial.values]
    slowest = max(fmean(values) for values in _by_net(named, "latency"))
    worst = min(fmean(values) for values in _by_net(named, "accuracy"))
    return 1.1 * slowest, 0.9 * worst


def curve(trials: list[Trial], reference: tuple[float, float]) -> list[float]:
    """Returns the hypervolume after every candidate, in milliseconds times accuracy."""
    points: list[tuple[float, float]] = []
    volumes = []
    limit = (reference[0], -reference[1])
    for trial in trials:
        if {"latency", "accuracy"} <= set(trial.values):
            points.append((trial.values["latency"], -trial.values["accuracy"]))
        volumes.append(hypervolume(points, limit) if points else 0.0)
    return volumes


def _by_net(trials: list[Trial], name: str) -> list[list[float]]:
    found: dict[str, list[float]] = {}
    for trial in trials:
        found.setdefault(trial.candidate.digest, []).append(trial.values[name])
    return list(found.values())


def main() -> None:
    """Searches, prints the table, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", default="pose-w16", help="Supernet weights: a file, or a shipped name.")
    parser.add_argument("--target", default="openvino:cpu/bf16")
    parser.add_argument("--samplers", default="topology,random,nsga2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-trials", type=int, default=80)
    parser.add_argument("--limit", type=int, help="Judge candidates on the first so many pictures.")
    parser.add_argument("--data")
    parser.add_argument("--data-root")
    parser.add_argument("--folder", type=Path, default=Path("runs/live-race"))
    parser.add_argument("--out", type=Path, default=RESULTS / "live_race.json")
    arguments = parser.parse_args()
    samplers = arguments.samplers.split(",")
    runs: dict[tuple[str, int], list[Trial]] = {}
    headlines: dict[str, float] = {}
    for seed in range(arguments.seeds):
        for sampler in samplers:
            runs[sampler, seed], own = trials_of(arguments, sampler, seed, headlines)
            headlines = headlines or own
    reference = reference_of(list(runs.values()))
    rows: list[dict[str, Any]] = []
    for (sampler, seed), trials in runs.items():
        volumes = curve(trials, reference)
        points = [[trial.values.get("latency"), trial.values.get("accuracy")] for trial in trials]
        rows.append(
            {"sampler": sampler, "seed": seed, "final": volumes[-1], "anytime": fmean(volumes), "points": points}
        )
    print(f"{'sampler':12} {'final':>24} {'anytime':>24}   hypervolume, mean and every seed")
    for sampler in samplers:
        cells = []
        for measure in ("final", "anytime"):
            values = [row[measure] for row in rows if row["sampler"] == sampler]
            cells.append(f"{np.mean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})")
        print(f"{sampler:12} {cells[0]:>24} {cells[1]:>24}")
    result: dict[str, Json] = {
        "weights": arguments.weights,
        "target": arguments.target,
        "n_trials": arguments.n_trials,
        "limit": arguments.limit,
        "reference": list(reference),
        "rows": rows,
        "machine": fingerprint(),
    }
    write_text(arguments.out, pretty_json(result))


if __name__ == "__main__":
    main()
