"""How quickly specs are sampled, varied and counted.

    python benchmarks/bench_space.py [--count 10000]

One thread, torch not imported. Each figure is the mean over all calls of one pass; the median of five passes is
printed, and all passes are kept in the result.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scalenas.cost import LIVE
from scalenas.registry import get_space
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

RESULT = Path(__file__).parent / "results" / "space.json"
PASSES = 5
SPACE = get_space("scalenas")


def microseconds(action: Callable[[SubnetSpec], object], specs: Sequence[SubnetSpec]) -> list[float]:
    """Returns the mean time of one call in each pass over `specs`, in microseconds."""
    action(specs[0])
    passes = []
    for _ in range(PASSES):
        start = time.perf_counter()
        for spec in specs:
            action(spec)
        passes.append(1e6 * (time.perf_counter() - start) / len(specs))
    return passes


def main() -> None:
    """Prints the table and writes it with the machine's fingerprint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    rng = np.random.default_rng(0)
    specs = [SPACE.sample(rng) for _ in range(count)]
    actions: dict[str, tuple[Callable[[SubnetSpec], object], int]] = {
        "sample": (lambda _: SPACE.sample(rng), count),
        "mutate": (lambda spec: SPACE.mutate(spec, rng), count // 10),
        "crossover": (lambda spec: SPACE.crossover(spec, specs[0], rng), count // 10),
        "cost, published": (SPACE.cost, count // 10),
        "cost, live": (lambda spec: SPACE.cost(spec, counting=LIVE), count // 10),
        "live form": (SPACE.live, count // 10),
        # A spec remembers its canonical text, so each call gets one that has none yet.
        "digest of a new spec": (lambda spec: replace(spec).digest, count // 10),
        "graph": (SPACE.graph, count // 10),
    }
    rows = {name: microseconds(action, specs[: max(1, calls)]) for name, (action, calls) in actions.items()}
    print(f"{'step (W32 pose, modules 1/4/3)':32} {'microseconds':>12} {'s for 10,000':>13}")
    for name, passes in rows.items():
        middle = statistics.median(passes)
        print(f"{name:32} {middle:12.0f} {middle / 100:13.2f}")
    result: dict[str, Json] = {
        "schema": "scalenas.benchmark.space/1",
        "command": f"python benchmarks/bench_space.py --count {count}",
        "threads": 1,
        "fingerprint": fingerprint(),
        "microseconds_per_call": {name: [round(value, 2) for value in passes] for name, passes in rows.items()},
    }
    write_text(RESULT, pretty_json(result))
    print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
