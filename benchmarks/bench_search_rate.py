"""Candidates an hour of a whole search for latency, against one that exports each candidate the stock way.

    python -m benchmarks.bench_search_rate [--weights random-18] [--size 256x192] [--target openvino:cpu/bf16]
        [--rounds 4] [--fast 8] [--out benchmarks/results/search_rate.json]

Both are the same search: random sampler, same seed, study in SQLite, candidates timed at grade `search` by the same
measuring process. They differ in how a candidate becomes an ONNX file: fast graph, or `torch.onnx.export` and onnxsim.
They take turns, several fast candidates for one stock candidate; the first round of each is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path

import torch

from benchmarks.live_search import RESULTS, Subject, add_subject, instruments, subject_of, write_record
from scalenas.inheriting import inherit
from scalenas.search import Candidate, Measured, Objective, SearchOptions, Study, Trial, search
from scalenas.search.objectives import Measure
from scalenas_export.search.meter import LatencyMeter
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.targets import EngineConfig, Target


def stock(subject: Subject, config: EngineConfig, meter: LatencyMeter, folder: Path) -> Measure:
    """Returns what measures a candidate that torch's exporter and onnxsim wrote."""
    import onnx
    import onnxsim

    shape = (1, 3, subject.recipe.height, subject.recipe.width)

    def measure(candidate: Candidate) -> Measured:
        net = inherit(subject.weights, candidate.spec)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(net, (torch.zeros(shape),), dynamo=True, verbose=False)
        assert program is not None
        model, agrees = onnxsim.simplify(program.model_proto)
        if not agrees:
            raise UserError("onnxsim found its own result to differ")
        path = folder / "stock.onnx"
        onnx.save(model, path)
        return meter.measure(path, config)

    return measure


def seconds_of(subject: Subject, measure: Measure, storage: Path, *, trials: int) -> float:
    """Returns the wall time in which the study in `storage` grew to `trials` candidates."""
    started = time.perf_counter()
    options = SearchOptions(
        settings=subject.weights.settings, inputs=subject.reference.inputs, n_trials=trials, predict=("latency",)
    )
    study = search(
        subject.space, [Objective("latency", measure, "minimize", "ms")], [], "random", storage, options=options
    )
    failed = [trial.failure for trial in study.trials if trial.state != "complete"]
    study.close()
    if failed:
        raise UserError(f"a candidate was not measured: {failed[0]}")
    return time.perf_counter() - started


def steps_of(storage: Path) -> dict[str, Json]:
    """Returns the medians, over all candidates of a study, of the seconds that their steps took."""
    study = Study.open(str(storage))
    parts = [_parts(trial) for trial in study.trials]
    study.close()
    return {step: round(statistics.median(each[step] for each in parts), 3) for step in parts[0]}


def _parts(trial: Trial) -> dict[str, float]:
    details = trial.details["latency"]
    opening, warming, all_of_it = (_number(details[key]) for key in ("open_seconds", "warm_up_seconds", "seconds"))
    prepared = details.get("prepare_seconds", {})
    assert isinstance(prepared, dict)
    return {
        "graph": sum(_number(value) for value in prepared.values()),
        "engine": opening,
        "warm_up": warming,
        "turns_and_rest": all_of_it - opening - warming,
    }


def _number(value: Json) -> float:
    assert isinstance(value, int | float)
    return float(value)


def measured(subject: Subject, config: EngineConfig, *, rounds: int, fast: int) -> dict[str, Json]:
    """Returns seconds a candidate by both ways, round by round, and candidates an hour."""
    taken: dict[str, list[float]] = {"fast": [], "stock": []}
    with instruments(subject, config) as (evaluator, meter, folder):
        meter.open(config)
        ways = {
            "fast": (evaluator.latency(config), fast),
            "stock": (stock(subject, config, meter, folder), 1),
        }
        for number in range(rounds + 1):
            for name, (measure, each) in ways.items():
                storage = folder / f"{name}.db"
                seconds = seconds_of(subject, measure, storage, trials=(number + 1) * each) / each
                print(f"round {number}, {name}: {seconds:.2f} s a candidate", flush=True)
                if number:
                    taken[name].append(seconds)
        steps = steps_of(folder / "fast.db")
    middles = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "seconds_a_candidate": dict(taken),
        "seconds_of_fast_steps": steps,
        "candidates_per_hour": {name: round(3600 / value, 1) for name, value in middles.items()},
        "ratio": round(middles["stock"] / middles["fast"], 2),
    }


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_subject(parser, weights="random-18")
    parser.add_argument("--rounds", type=int, default=4, help="Counted rounds.")
    parser.add_argument("--fast", type=int, default=8, help="Fast candidates for each stock one.")
    parser.add_argument("--out", type=Path, default=RESULTS / "search_rate.json")
    arguments = parser.parse_args()
    try:
        subject = subject_of(arguments.weights, arguments.size)
        config = EngineConfig(Target.parse(arguments.target))
        found = measured(subject, config, rounds=arguments.rounds, fast=arguments.fast)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"candidates an hour: {found['candidates_per_hour']}; {found['ratio']} times as many")
    print(f"medians of a fast candidate's steps: {found['seconds_of_fast_steps']} s")
    write_record(arguments, subject, found)


if __name__ == "__main__":
    main()
