"""How long slices of candidate and reference may be before a shared machine's changes of pace spoil their ratio.

    python -m benchmarks.bench_slices [--weights pose-w16] [--size 256x192] [--target openvino:cpu/bf16] [--nets 5]
        [--opens 5] [--pairs 40] [--out benchmarks/results/slices.json]

Each net is opened several times, and each time measured in `--pairs` slices of 30 ms or three inferences, in turns with
the reference. From the same samples the ratio is then taken as if slices had been 1, 2, 3, 5 times as long, with the
references in their midst left out, over 0.3, 0.5 and 1.0 seconds of the candidate's time; and as if a slice counted
only where the references before and after it differ by less than 2 or 5 % (`steady`). What is compared are all pairs of
times that one net was opened: how far apart the two ratios are. `turns` is how many slices a rule took, those that did
not count among them.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.live_search import RESULTS, Subject, add_subject, subject_of, write_record
from scalenas_export.search.deployment import Deployed
from scalenas_export.search.evaluator import write_reference
from scalenas_export.search.meter import LatencyQuestion
from scalenas_export.search.turns import SLICE_SECONDS
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.measure import MeasuringProcess, device_locks
from scalenas_runtime.measure.job import Turn
from scalenas_runtime.measure.statistics import Samples
from scalenas_runtime.targets import EngineConfig, Target

SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """How a ratio is taken from a trace.

    Attributes:
        longer: How many slices make one.
        seconds: How much of the candidate's time is taken.
        steady: How far apart, relative to them, the references around a slice may lie for it to count.
    """

    longer: int
    seconds: float
    steady: float = float("inf")

    def __str__(self) -> str:
        steady = "" if self.steady == float("inf") else f" where the reference moved by less than {self.steady:.0%}"
        return f"slices of {1000 * self.longer * SLICE_SECONDS:.0f} ms{steady}, {self.seconds} s in all"


RULES = (
    *(Rule(longer, seconds) for longer in (1, 2, 3, 5) for seconds in (0.3, 0.5, 1.0)),
    *(Rule(1, 0.5, steady) for steady in (0.02, 0.05)),
)
# What the rules may take of one trace.
LEAST_PAIRS = 40


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
    with (
        TemporaryDirectory(prefix="scalenas-bench-") as place,
        device_locks({config.target.device}),
        MeasuringProcess() as process,
    ):
        files = [Path(place) / f"net-{number}.onnx" for number in range(nets)]
        for spec, file in zip([subject.reference, *drawn], files, strict=True):
            write_reference(subject.weights, subject.space, Deployed(spec, subject.recipe), file)
        reference, _ = process.open(question.job(files[0], config, subject.recipe))
        for turn, net in itertools.product(range(opens), range(nets)):
            name, _ = process.open(question.job(files[net], config, subject.recipe))
            names = [reference, *[name, reference] * pairs]
            taken = process.interleave([Turn(each, SLICE_SECONDS, SAMPLES) for each in names])
            process.close(name)
            times = [np.array(item.milliseconds) for item in taken]
            found.append(Trace(net, times[1::2], times[::2]))
            print(f"turn {turn + 1} of {opens}, net {net}: {np.median(np.concatenate(times[1::2])):.3f} ms", flush=True)
    return found


def ratio(trace: Trace, rule: Rule) -> tuple[float, int]:
    """Returns the ratio by a rule, and how many slices that took; all of them where they are too few."""
    scaled: list[Samples] = []
    total, taken = 0.0, 0
    for start in range(0, len(trace.slices) - rule.longer + 1, rule.longer):
        taken += rule.longer
        before, after = (float(np.median(trace.references[at])) for at in (start, start + rule.longer))
        if abs(before - after) >= rule.steady * (before + after) / 2:
            continue
        own = np.concatenate(trace.slices[start : start + rule.longer])
        around = np.concatenate([trace.references[start], trace.references[start + rule.longer]])
        scaled.append(own / np.median(around))
        total += own.sum() / 1000
        if total >= rule.seconds:
            break
    return (float(np.median(np.concatenate(scaled))) if scaled else float("nan")), taken


def judged(found: Sequence[Trace], rule: Rule) -> dict[str, Json]:
    """Returns the relative differences of all pairs of traces of one net, by a rule."""
    taken = [ratio(trace, rule) for trace in found]
    pairs = itertools.combinations(zip(found, taken, strict=True), 2)
    apart = [
        abs(one[0] - two[0]) / ((one[0] + two[0]) / 2)
        for (first, one), (second, two) in pairs
        if first.net == second.net
    ]
    return {
        "slice_seconds": rule.longer * SLICE_SECONDS,
        "candidate_seconds": rule.seconds,
        "steady": None if rule.steady == float("inf") else rule.steady,
        "turns": float(np.mean([count for _, count in taken])),
        "median_difference": float(np.nanmedian(apart)),
        "p90_difference": float(np.nanpercentile(apart, 90)),
    }


def _medians(parts: Sequence[Samples]) -> list[Json]:
    return [round(float(np.median(part)), 4) for part in parts]


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_subject(parser, weights="pose-w16")
    parser.add_argument("--nets", type=int, default=5)
    parser.add_argument("--opens", type=int, default=5, help="How often each net is opened.")
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS, help="Slices of a net each time.")
    parser.add_argument("--out", type=Path, default=RESULTS / "slices.json")
    arguments = parser.parse_args()
    if arguments.opens < 2 or arguments.nets < 1 or arguments.pairs < LEAST_PAIRS:
        raise SystemExit(f"error: needed are --opens from 2, --nets from 1 and --pairs from {LEAST_PAIRS}")
    try:
        subject = subject_of(arguments.weights, arguments.size)
        config = EngineConfig(Target.parse(arguments.target))
        found = traces(subject, config, nets=arguments.nets, opens=arguments.opens, pairs=arguments.pairs)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    rows = [judged(found, rule) for rule in RULES]
    for rule, row in zip(RULES, rows, strict=True):
        print(
            f"{rule}: {row['turns']:.1f} turns, median {row['median_difference']:.2%}, "
            f"90 % below {row['p90_difference']:.2%}"
        )
    record: dict[str, Json] = {
        "nets": arguments.nets,
        "opens": arguments.opens,
        "rules": list(rows),
        "traces": [
            {"net": trace.net, "slices_ms": _medians(trace.slices), "references_ms": _medians(trace.references)}
            for trace in found
        ],
    }
    write_record(arguments, subject, record)


if __name__ == "__main__":
    main()
