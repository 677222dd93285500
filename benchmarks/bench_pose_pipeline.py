"""Times pose from picture to joints against the engine alone, and eight boxes batched against one by one.

    python benchmarks/bench_pose_pipeline.py [--bundle B] [--target openvino:cpu/bf16] [--rounds 200] [--json FILE]

Without --bundle, hrnet-w18 at 256x192 with random weights is exported first, with graphs of batch 1 and 8 (latency
does not depend on the weights). All contenders take turns within one process on the same sessions. Ratios are those of
the medians, with a 95 % bootstrap interval over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scalenas_runtime.bundle import Bundle
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.measure.statistics import paired_ratio
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.scenes import person_scene
from scalenas_runtime.tasks import PoseRecipe

BOXES = 8
WARM_UP = 10


def exported(target: str, folder: Path) -> Path:
    """Returns a new bundle of hrnet-w18 in `folder`, with graphs of batch 1 and 8."""
    from scalenas_export.cli.app import run

    out = folder / "bundle"
    code = run(["export", "hrnet-w18", "--target", target, "--batch", str(BOXES), "--out", str(out)])
    if code != 0:
        raise SystemExit(code)
    return out


def take_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Returns the milliseconds of every call by contender; the first rounds are not kept."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(-WARM_UP, rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if round_ >= 0:
                samples[name].append((time.perf_counter() - start) * 1e3)
    return samples


def measure(bundle: Bundle, target: str, rounds: int) -> dict[str, Json]:
    """Prints both comparisons and returns them as JSON values, raw samples included."""
    recipe = bundle.recipe
    assert isinstance(recipe, PoseRecipe)
    scene = person_scene(0, 0, size=(480, 640), portrait=True)
    box = scene.boxes[:1]
    boxes = np.concatenate([box + step * 5 for step in range(BOXES)]).astype(np.float32)
    crops = np.random.default_rng(0).integers(0, 256, (1, recipe.height, recipe.width, 3), dtype=np.uint8)
    with bundle.load(target, build="auto") as one, bundle.load(target, build="auto", batch=BOXES) as many:
        single, batched = PoseEstimator(one, recipe), PoseEstimator([one, many], recipe)
        latency = take_turns(
            {"engine_wall": lambda: one.run({"image": crops}), "pipeline": lambda: single.estimate(scene.picture, box)},
            rounds,
        )
        eight = take_turns(
            {
                "one by one": lambda: single.estimate(scene.picture, boxes),
                "batched": lambda: batched.estimate(scene.picture, boxes),
            },
            max(rounds // BOXES, 20),
        )
    results: dict[str, Json] = {}
    for title, samples, pair in (
        ("pipeline over engine_wall", latency, ("pipeline", "engine_wall")),
        ("crops/s of eight boxes, batched over one by one", eight, ("one by one", "batched")),
    ):
        value, low, high = paired_ratio(samples[pair[0]], samples[pair[1]], np.random.default_rng(0))
        for name, values in samples.items():
            print(f"  {name:12s} median {statistics.median(values):8.3f} ms  (n = {len(values)})")
        print(f"{title}: {value:.3f}  (95 % interval {low:.3f} to {high:.3f})")
        results[title] = {"ratio": value, "interval": [low, high], "samples_ms": dict(samples)}
    return results


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--target", default="openvino:cpu/bf16")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/pose_pipeline.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.bundle or exported(arguments.target, Path(folder))
        results = measure(Bundle.open(path), arguments.target, arguments.rounds)
    record: dict[str, Json] = {
        "benchmark": "pose_pipeline",
        "target": arguments.target,
        "net": str(arguments.bundle or "hrnet-w18 256x192, random weights"),
        "fingerprint": fingerprint(),
        "results": results,
    }
    write_text(arguments.json, pretty_json(record))


if __name__ == "__main__":
    main()
