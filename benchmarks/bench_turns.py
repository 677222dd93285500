"""How many inferences candidate and reference should take in their turns, where one takes over 10 ms.

    python -m benchmarks.bench_turns [--weights random-18] [--size 256x192] [--target openvino:cpu/bf16] [--rounds 30]
        [--seconds 0.5] [--out benchmarks/results/turns.json]

A drawn net and HRNet's pattern are opened once. Each round takes their ratio by every pattern (inferences of the net to
inferences of the reference; `1 +` is one that does not count, as the turn before cooled the caches), one pattern after
the other, over the same seconds of the net's time. Compared are all pairs of rounds: how far apart the two ratios of a
pattern are.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.live_search import RESULTS, Subject, add_subject, subject_of, write_record
from scalenas_export.search.bracket import LEAST_SLICES, bracket
from scalenas_export.search.deployment import Deployed
from scalenas_export.search.evaluator import write_reference
from scalenas_export.search.meter import LatencyQuestion
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.measure import MeasuringProcess, device_locks
from scalenas_runtime.measure.job import Turn
from scalenas_runtime.targets import EngineConfig, Target


@dataclass(frozen=True, slots=True)
class Pattern:
    """How many inferences a turn of the net and one of the reference take; `settle`: the net's begins with another."""

    samples: int
    reference_samples: int
    settle: bool = True

    def __str__(self) -> str:
        return f"{'1 + ' if self.settle else ''}{self.samples} to 1 + {self.reference_samples}"


PATTERNS = (
    *(Pattern(own, other) for own, other in ((5, 3), (4, 2), (4, 1), (3, 1))),
    *(Pattern(own, 1, settle=False) for own in (5, 4, 3, 2)),
)


@dataclass(slots=True)
class Taken:
    """What every round gave by one pattern: the ratio, its standard error relative to it, and the wall time."""

    ratios: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def row(self, pattern: Pattern) -> dict[str, Json]:
        """Returns the pattern with its figures."""
        pairs = itertools.combinations(self.ratios, 2)
        apart = [abs(one - two) / ((one + two) / 2) for one, two in pairs]
        return {
            "pattern": str(pattern),
            "wall_seconds": float(np.median(self.seconds)),
            "ratio": float(np.median(self.ratios)),
            "median_difference": float(np.median(apart)),
            "p90_difference": float(np.percentile(apart, 90)),
            "median_error": float(np.median(self.errors)),
            "p90_error": float(np.percentile(self.errors, 90)),
            "ratios": [round(value, 5) for value in self.ratios],
        }


def measured(subject: Subject, config: EngineConfig, *, rounds: int, seconds: float) -> Sequence[dict[str, Json]]:
    """Returns a row for each pattern."""
    settings, inputs = subject.weights.settings, subject.reference.inputs
    drawn = subject.space.sample(np.random.default_rng(3), settings=settings, inputs=inputs)
    question, taken = LatencyQuestion(), {pattern: Taken() for pattern in PATTERNS}
    with (
        TemporaryDirectory(prefix="scalenas-bench-") as place,
        device_locks({config.target.device}),
        MeasuringProcess() as process,
    ):
        names = []
        for number, spec in enumerate((subject.reference, drawn)):
            file = Path(place) / f"net-{number}.onnx"
            write_reference(subject.weights, subject.space, Deployed(spec, subject.recipe), file)
            name, opened = process.open(question.job(file, config, subject.recipe))
            names.append(name)
        each = opened.warm_up.seconds / opened.warm_up.iterations
        for number in range(rounds):
            for pattern, found in taken.items():
                count = max(LEAST_SLICES, math.ceil(seconds / (pattern.samples * each)))
                own = Turn(names[1], 0.0, pattern.samples, pattern.settle)
                reference = Turn(names[0], 0.0, pattern.reference_samples)
                started = time.perf_counter()
                parts = process.interleave([reference, *[own, reference] * count])
                found.seconds.append(time.perf_counter() - started)
                times = [np.array(part.milliseconds) for part in parts]
                result = bracket(times[1::2], times[::2], None, np.random.default_rng(0))
                found.ratios.append(result.ratio)
                found.errors.append(result.error / result.ratio)
            print(f"round {number + 1} of {rounds}", flush=True)
    return [found.row(pattern) for pattern, found in taken.items()]


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_subject(parser, weights="random-18")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.5, help="Of the net's time, each round.")
    parser.add_argument("--out", type=Path, default=RESULTS / "turns.json")
    arguments = parser.parse_args()
    if arguments.rounds < 2 or not arguments.seconds > 0:
        raise SystemExit("error: needed are --rounds from 2 and --seconds over 0")
    try:
        subject = subject_of(arguments.weights, arguments.size)
        config = EngineConfig(Target.parse(arguments.target))
        rows = measured(subject, config, rounds=arguments.rounds, seconds=arguments.seconds)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    for row in rows:
        print(
            f"{row['pattern']}: {row['wall_seconds']:.2f} s, ratio {row['ratio']:.4f}, "
            f"median {row['median_difference']:.2%}, 90 % below {row['p90_difference']:.2%}"
        )
    write_record(arguments, subject, {"seconds": arguments.seconds, "patterns": list(rows)})


if __name__ == "__main__":
    main()
