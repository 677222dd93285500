"""Times the fused bilinear upsampling and argmax against OpenCV and NumPy, in turns, on one core.

    python benchmarks/bench_class_map.py [--rounds 30] [--json benchmarks/results/class_map.json]

Contenders, 19 x 256 x 512 logits to 1024 x 2048 labels: the kernel in use here; `cv2.resize` per class with a
running maximum; `cv2.resize` per class into one array, then `numpy.argmax`. Inputs: independent noise, and smooth
planes as a trained net gives. The ratio is that of the medians, its interval a 95 % bootstrap over rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime import kernels
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.decode.segmentation import class_map
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.measure.statistics import paired_ratio

Logits = NDArray[np.float32]
Labels = NDArray[np.uint8]

CLASSES, SOURCE, SIZE = 19, (256, 512), (1024, 2048)


def noise(rng: np.random.Generator) -> Logits:
    """Returns independent normal logits: every neighbourhood mixes classes."""
    return rng.normal(size=(CLASSES, *SOURCE)).astype(np.float32)


def smooth(rng: np.random.Generator) -> Logits:
    """Returns slowly varying logits with a little noise: regions with borders, as in a street scene."""
    coarse = rng.normal(scale=3, size=(CLASSES, 9, 17)).astype(np.float32)
    planes = [cv2.resize(plane, SOURCE[::-1], interpolation=cv2.INTER_CUBIC) for plane in coarse]
    return np.stack(planes) + rng.normal(scale=0.1, size=(CLASSES, *SOURCE)).astype(np.float32)


def fused(logits: Logits) -> Labels:
    """Returns the labels by the kernel under test."""
    return class_map(logits, SIZE)


def running_maximum(logits: Logits) -> Labels:
    """Returns the labels by `cv2.resize` per class and a running maximum."""
    best = cv2.resize(logits[0], SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    labels = np.zeros(SIZE, np.uint8)
    wide = np.empty_like(best)
    for index in range(1, len(logits)):
        cv2.resize(logits[index], SIZE[::-1], dst=wide, interpolation=cv2.INTER_LINEAR)
        better = cv2.compare(wide, best, cv2.CMP_GT)
        labels[better != 0] = index
        cv2.max(best, wide, dst=best)
    return labels


def running_maximum_masked(logits: Logits) -> Labels:
    """Returns the labels as `running_maximum`, the label written by `cv2.copyTo` under the mask."""
    best = cv2.resize(logits[0], SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    labels = np.zeros(SIZE, np.uint8)
    wide, constant = np.empty_like(best), np.empty_like(labels)
    for index in range(1, len(logits)):
        cv2.resize(logits[index], SIZE[::-1], dst=wide, interpolation=cv2.INTER_LINEAR)
        better = cv2.compare(wide, best, cv2.CMP_GT)
        constant.fill(index)
        cv2.copyTo(constant, better, labels)
        cv2.max(best, wide, dst=best)
    return labels


def resize_then_argmax(logits: Logits) -> Labels:
    """Returns the labels by `cv2.resize` per class into one array, then `numpy.argmax`."""
    wide = np.empty((CLASSES, *SIZE), np.float32)
    for source, target in zip(logits, wide, strict=True):
        cv2.resize(source, SIZE[::-1], dst=target, interpolation=cv2.INTER_LINEAR)
    labels: Labels = wide.argmax(0).astype(np.uint8)
    return labels


CONTENDERS: dict[str, Callable[[Logits], Labels]] = {
    "fused": fused,
    "resize + running maximum": running_maximum,
    "resize + running maximum (copyTo)": running_maximum_masked,
    "resize + argmax": resize_then_argmax,
}


def measure(logits: Logits, rounds: int) -> dict[str, list[float]]:
    """Returns the milliseconds of every call by contender; contenders take turns, the first rounds are not kept."""
    samples: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for round_ in range(-2, rounds):
        for name, contender in CONTENDERS.items():
            start = time.perf_counter()
            contender(logits)
            if round_ >= 0:
                samples[name].append((time.perf_counter() - start) * 1e3)
    return samples


def compare(name: str, logits: Logits, rounds: int, rng: np.random.Generator) -> dict[str, Json]:
    """Prints the table of one input and returns it as JSON values, raw samples included."""
    reference = fused(logits)
    samples = measure(logits, rounds)
    rows: dict[str, Json] = {}
    print(f"{name}: {CLASSES} x {SOURCE[0]} x {SOURCE[1]} -> {SIZE[0]} x {SIZE[1]}, {rounds} rounds")
    for contender, function in CONTENDERS.items():
        times = samples[contender]
        middle, low, high = paired_ratio(times, samples["fused"], rng)
        differing = int(np.count_nonzero(function(logits) != reference))
        print(
            f"  {contender:34} median {statistics.median(times):7.2f} ms   min {min(times):7.2f} ms   "
            f"{middle:5.2f} x fused [{low:.2f}, {high:.2f}]   {differing} of {reference.size} labels differ"
        )
        rows[contender] = {
            "median_ms": statistics.median(times),
            "ratio_to_fused": [middle, low, high],
            "differing_labels": differing,
            "samples_ms": times,
        }
    return rows


def main() -> None:
    """Runs the comparison on one core, prints a table and writes the raw samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "class_map.json")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    print(kernels.status().detail)
    inputs = {"noise": noise(rng), "smooth": smooth(rng)}
    tables: dict[str, Json] = {name: compare(name, logits, arguments.rounds, rng) for name, logits in inputs.items()}
    record: Json = {
        "benchmark": "class_map",
        "kernel": kernels.status().detail,
        "unit": "milliseconds of wall time, one core, one thread",
        "inputs": tables,
        "fingerprint": fingerprint(),
    }
    write_text(arguments.json, pretty_json(record))
    print(f"raw samples: {arguments.json}")


if __name__ == "__main__":
    main()
