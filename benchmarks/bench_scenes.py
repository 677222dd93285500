"""How many synthetic scenes one core draws in a second.

    python benchmarks/bench_scenes.py [--count 400]

Scenes differ in how much they hold, so the mean time is what a loader pays; the median is printed beside it, and
scenes per second of processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from scalenas_runtime import scenes
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.tasks.sets import LSPET_14

RESULT = Path(__file__).parent / "results" / "scenes.json"

KINDS: dict[str, Callable[[int], object]] = {
    "people 256x192": lambda index: scenes.person_scene(1, index, size=(256, 192)),
    "one person 256x192": lambda index: scenes.person_scene(1, index, size=(256, 192), portrait=True),
    "one person 160x128, LSPET joints": lambda index: scenes.person_scene(
        1, index, size=(160, 128), joints=LSPET_14, portrait=True
    ),
    "street 352x480": lambda index: scenes.street_scene(1, index, size=(352, 480)),
    "street 192x256": lambda index: scenes.street_scene(1, index, size=(192, 256)),
}


def measured(draw: Callable[[int], object], count: int) -> dict[str, float | list[float]]:
    """Returns milliseconds of each scene (raw) and of the processor, and scenes per second, after a warm-up."""
    for index in range(20):
        draw(index)
    times, processor = [], []
    for index in range(count):
        start, busy = time.perf_counter(), time.thread_time()
        draw(index)
        times.append(1e3 * (time.perf_counter() - start))
        processor.append(1e3 * (time.thread_time() - busy))
    return {
        "median_ms": statistics.median(times),
        "mean_ms": statistics.fmean(times),
        "processor_ms": statistics.fmean(processor),
        "per_second": 1e3 / statistics.fmean(times),
        "per_processor_second": 1e3 / statistics.fmean(processor),
        "raw_ms": [round(value, 3) for value in times],
    }


def main() -> None:
    """Prints the table and writes it with the machine's fingerprint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=400)
    count = parser.parse_args().count
    cv2.setNumThreads(1)
    rows = {name: measured(draw, count) for name, draw in KINDS.items()}
    print(f"{'scene':34} {'median ms':>10} {'mean ms':>9} {'scenes/s':>9} {'per CPU s':>10}")
    for name, row in rows.items():
        numbers = (row[key] for key in ("median_ms", "mean_ms", "per_second", "per_processor_second"))
        print("{:34} {:10.2f} {:9.2f} {:9.0f} {:10.0f}".format(name, *numbers))
    result: dict[str, Json] = {
        "schema": "scalenas.benchmark.scenes/1",
        "command": f"python benchmarks/bench_scenes.py --count {count}",
        "threads": 1,
        "fingerprint": fingerprint(),
        "rows": rows,
    }
    write_text(RESULT, pretty_json(result))
    print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
