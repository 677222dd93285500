"""How well latencies of a search repeat: candidates near HRNet's member, measured twice with other work between.

    python -m benchmarks.bench_repeatability [--weights random-16] [--size 256x192] [--target openvino:cpu/bf16]
        [--nets 20] [--between 60] [--promises 20] [--out benchmarks/results/repeatability.json]

Nets within +-20 % of the member are drawn until there are enough, then measured in two passes at grade `search`, each
pass in a measuring process of its own and in an order of its own; in between this process multiplies matrices on all
cores. Printed: the median absolute difference of the two passes, drift-corrected and raw; Kendall's tau of the two
orders beside its ceiling (what two passes would agree on whose only difference is noise of the size that was seen); and
how many of the budgets that a measurement at grade `report` promised (upper end of the 95 % interval) are kept by the
median of a second one, net by net, and how the second compares with the first in the median: below 1 the machine has
become faster, which keeps promises by itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.live_search import RESULTS, Subject, add_subject, instruments, subject_of, write_record
from scalenas.search import Measured, MeasureFailed, Trial
from scalenas.spec import SubnetSpec
from scalenas_export.search.finalists import Entry, confirm
from scalenas_export.search.meter import LatencyQuestion
from scalenas_export.search.request import Finalist
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.metrics.ranks import kendall_tau
from scalenas_runtime.targets import EngineConfig, Target

NEAR = 0.2
# So many draws for each net that is wanted; a space where fewer come near has none to compare.
DRAWS = 40


def near_nets(subject: Subject, config: EngineConfig, count: int) -> tuple[list[SubnetSpec], dict[str, float]]:
    """Returns nets within `NEAR` of the member's latency, and the reference's headline for later passes."""
    rng = np.random.default_rng(0)
    found: list[SubnetSpec] = []
    with instruments(subject, config) as (evaluator, meter, _):
        meter.open(config)
        measure = evaluator.latency(config)
        for _ in range(DRAWS * count):
            if len(found) == count:
                return found, meter.headlines
            spec = subject.space.sample(rng, settings=subject.weights.settings, inputs=subject.reference.inputs)
            try:
                ratio = _measured(measure(subject.candidate(spec))).details["ratio"]
            except MeasureFailed:
                continue
            if isinstance(ratio, float) and abs(ratio - 1) <= NEAR:
                found.append(spec)
                print(f"net {len(found)} of {count}: {ratio:.3f} of the member's latency", flush=True)
    raise UserError(f"only {len(found)} of {DRAWS * count} nets are within {NEAR:.0%} of the member; take fewer --nets")


def one_pass(
    subject: Subject, config: EngineConfig, nets: Sequence[SubnetSpec], seed: int, headlines: dict[str, float]
) -> list[Measured]:
    """Returns the latencies of all nets, in their order, measured in an order drawn from `seed`."""
    found: dict[int, Measured] = {}
    with instruments(subject, config, headlines=headlines) as (evaluator, _, _):
        measure = evaluator.latency(config)
        for place in np.random.default_rng(seed).permutation(len(nets)).tolist():
            found[place] = _measured(measure(subject.candidate(nets[place])))
    return [found[place] for place in range(len(nets))]


def other_work(seconds: float) -> None:
    """Keeps all cores and caches busy for a while."""
    until = time.monotonic() + seconds
    matrix = np.random.default_rng(0).standard_normal((1500, 1500))
    while time.monotonic() < until:
        matrix = matrix @ matrix
        matrix /= np.abs(matrix).max()


def agreement(first: Sequence[Measured], second: Sequence[Measured]) -> dict[str, Json]:
    """Returns differences of two passes, and Kendall's tau beside its ceiling."""
    one, two = (np.array([each.value for each in found]) for found in (first, second))
    raw_one, raw_two = (np.array([each.details["raw_ms"] for each in found], float) for found in (first, second))
    return {
        "first_ms": one.tolist(),
        "second_ms": two.tolist(),
        "median_difference": float(np.median(_differences(one, two))),
        "median_difference_raw": float(np.median(_differences(raw_one, raw_two))),
        "kendall_tau": kendall_tau(one, two),
        "kendall_tau_ceiling": ceiling(one, two),
    }


def ceiling(one: NDArray[np.float64], two: NDArray[np.float64], *, rounds: int = 500) -> float:
    """Returns the mean tau of two passes that differ by noise alone, of the size that the differences show."""
    middle = (one + two) / 2
    # The difference of two passes has twice the variance of one; the median absolute deviation keeps outliers out.
    spread = 1.4826 * float(np.median(_differences(one, two))) / np.sqrt(2)
    # The middle holds noise too, which would make nets look further apart than they are.
    seen = float(np.var(middle / middle.mean()))
    middle = middle.mean() + (middle - middle.mean()) * np.sqrt(max(0.0, 1 - spread**2 / 2 / seen) if seen else 0.0)
    rng = np.random.default_rng(0)
    noisy = (middle * (1 + spread * rng.standard_normal((2, len(middle)))) for _ in range(rounds))
    return float(np.mean([kendall_tau(a, b) for a, b in noisy]))


def promises(
    subject: Subject, config: EngineConfig, nets: Sequence[SubnetSpec], *, between: float, grade: str
) -> dict[str, Json]:
    """Returns budgets that were promised, and the medians of a second measurement in other processes."""
    with TemporaryDirectory(prefix="scalenas-bench-") as place:
        entries = []
        with instruments(subject, config) as (evaluator, _, _):
            for number, spec in enumerate(nets):
                path = Path(place) / f"net-{number}.onnx"
                recipe = evaluator.write_graph(spec, {}, path)
                trial = Trial(subject.candidate(spec), "complete", {}, {}, "benchmark", {})
                entries.append(Entry(f"net {number}", trial, config, path, recipe))
        first, second = list[Finalist](), list[Finalist]()
        lost: list[str] = []
        for entry in entries:
            # Net by net, so that a machine that changes its pace once does not decide over all of them.
            one = confirm([entry], LatencyQuestion(), budget=None, grade=grade, lost=lost)
            other_work(between / len(entries))
            two = confirm([entry], LatencyQuestion(), budget=None, grade=grade, lost=lost)
            if one and two:
                first += one
                second += two
    if not first:
        raise UserError(f"no net could be measured twice: {'; '.join(lost)}")
    kept = [two.value <= one.interval[1] for one, two in zip(first, second, strict=True)]
    return {
        "promised_ms": [each.interval[1] for each in first],
        "again_ms": [each.value for each in second],
        "again_over_first": float(np.median([two.value / one.value for one, two in zip(first, second, strict=True)])),
        "kept": sum(kept),
        "of": len(kept),
        "lost": [*lost],
        "grade": grade,
        "flags": sorted({flag for each in (*first, *second) for flag in each.measurement.flags}),
    }


def _differences(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(one - two) / ((one + two) / 2)


def _measured(found: Measured | float) -> Measured:
    assert isinstance(found, Measured)
    return found


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_subject(parser, weights="random-16")
    parser.add_argument("--nets", type=int, default=20)
    parser.add_argument("--between", type=float, default=60.0, help="Seconds of other work.")
    parser.add_argument("--promises", type=int, default=20, help="Nets that are also measured at --grade, twice.")
    parser.add_argument("--grade", choices=("standard", "report"), default="report")
    parser.add_argument("--out", type=Path, default=RESULTS / "repeatability.json")
    arguments = parser.parse_args()
    try:
        subject = subject_of(arguments.weights, arguments.size)
        config = EngineConfig(Target.parse(arguments.target))
        nets, headlines = near_nets(subject, config, arguments.nets)
        first = one_pass(subject, config, nets, 1, headlines)
        other_work(arguments.between)
        found = agreement(first, one_pass(subject, config, nets, 2, headlines))
        kept = promises(subject, config, nets[: arguments.promises], between=arguments.between, grade=arguments.grade)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(
        f"median difference {found['median_difference']:.2%} (raw {found['median_difference_raw']:.2%}), tau "
        f"{found['kendall_tau']:.3f} (ceiling {found['kendall_tau_ceiling']:.3f}), {kept['kept']} of {kept['of']} "
        f"promises kept, again over first {kept['again_over_first']:.3f}"
    )
    write_record(arguments, subject, {"passes": found, "promises": kept})


if __name__ == "__main__":
    main()
