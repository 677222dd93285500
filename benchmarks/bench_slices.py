"""How long slices of candidate and reference may be before a shared machine's changes of pace spoil their ratio.

    python -m benchmarks.bench_slices [--weights pose-w16] [--size 256x192] [--target openvino:cpu/bf16] [--nets 5]
        [--opens 5] [--pairs 40] [--out benchmarks/results/slices.json]

Each net is opened several times, and each time measured in `--pairs` slices of 30 ms or three inferences, in turns with
the reference. From the same samples the ratio is then taken as if slices had been 1, 2, 3, 5 times as long, with the
references in their midst left out, over 0.3, 0.5 and 1.0 seconds of the candidate's time. What is compared are all
pairs of times that one net was opened: how far apart the two ratios are.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.live_search import RESULTS, Subject, subject_of
from scalenas_export.search.deployment import Deployed, parse_size
from scalenas_export.search.evaluator import write_reference
from scalenas_export.search.meter import LatencyQuestion
from scalenas_export.search.turns import SLICE_SECONDS
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.measure import MeasuringProcess
from scalenas_runtime.targets import EngineConfig, Target

Samples = NDArray[np.float64]
LEAST = 3
LONGER = (1, 2, 3, 5)
SECONDS = (0.3, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Trace:
    """One time that a net was opened: its slices, and the reference's before, between and after them."""

    net: int
    slices: Sequence[Samples]
    references: Sequence[Samples]


def traces(subject: Subject, config: EngineConfig, *, nets: int, opens: int, pairs: int) -> list[Trace]:
    """Returns `opens` traces of each net, the reference first, the others drawn."""
    rng = np.random.default_rng(0)
    settings, inputs = subject.weights.settings, subject.reference.inputs
    drawn = [subject.space.sample(rng, settings=settings, inputs=inputs) for _ in range(nets - 1)]
    question, found = LatencyQuestion(), []
    with TemporaryDirectory(prefix="scalenas-bench-") as place, MeasuringProcess() as process:
        files = [Path(place) / f"net-{number}.onnx" for number in range(nets)]
        for spec, file in zip([subject.reference, *drawn], files, strict=True):
            write_reference(subject.weights, subject.space, Deployed(spec, subject.recipe), file)
        reference, _ = process.open(question.job(files[0], config, subject.recipe))
        for turn, net in itertools.product(range(opens), range(nets)):
            name, _ = process.open(question.job(files[net], config, subject.recipe))
            names = [reference, *[name, reference] * pairs]
            taken = process.interleave([(each, SLICE_SECONDS, LEAST) for each in names])
            process.close(name)
            times = [np.array(item.milliseconds) for item in taken]
            found.append(Trace(net, times[1::2], times[::2]))
            print(f"turn {turn + 1} of {opens}, net {net}: {np.median(np.concatenate(times[1::2])):.3f} ms", flush=True)
    return found


def ratio(trace: Trace, longer: int, seconds: float) -> float:
    """Returns the ratio over so many seconds of the candidate, in slices `longer` times as long."""
    scaled, total = [], 0.0
    for start in range(0, len(trace.slices) - longer + 1, longer):
        own = np.concatenate(trace.slices[start : start + longer])
        around = np.concatenate([trace.references[start], trace.references[start + longer]])
        scaled.append(own / np.median(around))
        total += own.sum() / 1000
        if total >= seconds:
            break
    return float(np.median(np.concatenate(scaled)))


def differences(found: Sequence[Trace], longer: int, seconds: float) -> Samples:
    """Returns the relative differences of all pairs of traces of one net."""
    pairs = [(one, two) for one, two in itertools.combinations(found, 2) if one.net == two.net]
    ratios = [[ratio(trace, longer, seconds) for trace in pair] for pair in pairs]
    return np.array([abs(one - two) / ((one + two) / 2) for one, two in ratios])


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="pose-w16", help="A weights file, a shipped name, or random-WIDTH.")
    parser.add_argument("--size", type=parse_size, default=(256, 192), help="Input of a random supernet.")
    parser.add_argument("--target", default="openvino:cpu/bf16")
    parser.add_argument("--nets", type=int, default=5)
    parser.add_argument("--opens", type=int, default=5, help="How often each net is opened.")
    parser.add_argument("--pairs", type=int, default=40, help="Slices of a net each time.")
    parser.add_argument("--out", type=Path, default=RESULTS / "slices.json")
    arguments = parser.parse_args()
    try:
        subject = subject_of(arguments.weights, arguments.size)
        config = EngineConfig(Target.parse(arguments.target))
        found = traces(subject, config, nets=arguments.nets, opens=arguments.opens, pairs=arguments.pairs)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    rows: list[Json] = []
    for longer, seconds in itertools.product(LONGER, SECONDS):
        apart = differences(found, longer, seconds)
        row = {"median_difference": float(np.median(apart)), "p90_difference": float(np.percentile(apart, 90))}
        rows.append({"slice_seconds": longer * SLICE_SECONDS, "candidate_seconds": seconds, **row})
        print(
            f"slices of {1000 * longer * SLICE_SECONDS:.0f} ms, {seconds} s in all: "
            f"median {row['median_difference']:.2%}, 90 % below {row['p90_difference']:.2%}"
        )
    pace = [float(np.median(part)) for trace in found for part in trace.references]
    record: dict[str, Json] = {
        "weights": arguments.weights,
        "size": [subject.recipe.height, subject.recipe.width],
        "target": arguments.target,
        "nets": arguments.nets,
        "opens": arguments.opens,
        "rules": rows,
        "reference_ms_percentiles": {str(q): round(float(np.percentile(pace, q)), 4) for q in (5, 25, 50, 75, 95)},
        "machine": fingerprint(),
    }
    write_text(arguments.out, pretty_json(record))
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
