"""Counts memory and threads over 10,000 frames through each wrapper, on each engine, with the smallest nets that work.

    python benchmarks/bench_memory.py [--frames 10000] [--target onnxruntime:cpu/fp32 ...] [--json FILE]

The frames are drawn scenes of several sizes with none to five persons each. Growth is that of the resident set between
the end of a warm-up and the last frame. Threads are counted by the kernel, so that an engine's own count too: before a
wrapper is opened (engines were opened and closed once already, since pools shared by a process stay) and after it is
closed.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scalenas_runtime.backends import get_backend
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.scenes import person_scene, street_scene
from scalenas_runtime.scenes.scene import Scene
from scalenas_runtime.segmentation import Segmenter
from scalenas_runtime.session import Session
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe

SIZE, CHANNELS, BATCH = (64, 32), 3, 4
WARM_UP = 1000
LIMIT_MIB = 5.0
SCENES = 24


@dataclass(frozen=True, slots=True)
class Figures:
    """What the frames did to the process: MiB of the resident set, kernel threads, seconds for all frames."""

    wrapper: str
    target: str
    frames: int
    before_mib: float
    growth_mib: float
    threads_left: int
    seconds: float


def tiny_net(path: Path, output: str, batch: int) -> Path:
    """Writes a net of one convolution, uint8 (B, 64, 32, 3) to float32 (B, 3, 16, 8), and returns its path."""
    weights = np.random.default_rng(0).normal(size=(CHANNELS, 3, 5, 5)).astype(np.float32) / 4000
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], [output], strides=[4, 4], pads=[2, 2, 2, 2]),
    ]
    height, width = SIZE
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, CHANNELS, height // 4, width // 4])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def session(model: Path, target: str, batch: int) -> Session:
    """Returns a session of a tiny net on one thread."""
    parsed = Target.parse(target)
    return get_backend(parsed.backend).compile(model, EngineConfig(parsed, threads=1, batch=batch))


def pose(folder: Path, target: str) -> PoseEstimator:
    """Returns an estimator with engines of batch 1 and 4."""
    height, width = SIZE
    recipe = PoseRecipe(height=height, width=width, joints=("a", "b", "c"), decode="dark", blur=5, flip_test=True)
    models = [(tiny_net(folder / f"pose{batch}.onnx", "heatmaps", batch), batch) for batch in (1, BATCH)]
    return PoseEstimator([session(model, target, batch) for model, batch in models], recipe)


def segmenter(folder: Path, target: str) -> Segmenter:
    """Returns a segmenter with sliding windows."""
    height, width = SIZE
    palette = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    recipe = SegmentationRecipe(height=height, width=width, classes=("a", "b", "c"), palette=palette, fit="sliding")
    return Segmenter(session(tiny_net(folder / "seg.onnx", "logits", BATCH), target, BATCH), recipe)


def resident_mib() -> float:
    """Returns the resident set of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def threads() -> int:
    """Returns the number of threads of this process, engines' own included."""
    return len(list(Path("/proc/self/task").iterdir()))


def drive(wrapper: PoseEstimator | Segmenter, scenes: list[Scene], frames: int) -> None:
    """Puts `frames` frames through a wrapper, with none to five persons each."""
    for index in range(frames):
        scene = scenes[index % len(scenes)]
        if isinstance(wrapper, PoseEstimator):
            wrapper.estimate(scene.picture, scene.boxes[: index % 6])
        else:
            wrapper.segment(scene.picture)


def watched(make: Callable[[], PoseEstimator | Segmenter], target: str, scenes: list[Scene], frames: int) -> Figures:
    """Returns the figures of one wrapper on one target, warm-up not counted."""
    make().close()
    threads_before = threads()
    with make() as wrapper:
        drive(wrapper, scenes, WARM_UP)
        gc.collect()
        before, start = resident_mib(), time.perf_counter()
        drive(wrapper, scenes, frames)
        seconds = time.perf_counter() - start
        gc.collect()
        growth = resident_mib() - before
    name = type(wrapper).__name__
    return Figures(name, target, frames, before, growth, threads() - threads_before, seconds)


def measure(targets: list[str], frames: int) -> list[Figures]:
    """Prints a line for each wrapper on each target and returns the figures."""
    persons = [person_scene(0, index, size=(96 + 4 * index, 128)) for index in range(SCENES)]
    streets = [street_scene(0, index, size=(96 + 2 * index, 128)) for index in range(SCENES)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for target in targets:
            makers: tuple[tuple[Callable[[], PoseEstimator | Segmenter], list[Scene]], ...] = (
                (partial(pose, folder, target), persons),
                (partial(segmenter, folder, target), streets),
            )
            for make, scenes in makers:
                row = watched(make, target, scenes, frames)
                print(
                    f"{row.wrapper:14s} {target:22s} {row.growth_mib:+6.2f} MiB on {row.before_mib:.0f}, "
                    f"{row.threads_left} threads left, {frames} frames in {row.seconds:.0f} s"
                )
                rows.append(row)
    return rows


def main() -> None:
    """Runs the benchmark from the command line; the exit code is 1 where memory grows by 5 MiB or a thread is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--target", action="append")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/memory.json"))
    arguments = parser.parse_args()
    rows = measure(arguments.target or ["onnxruntime:cpu/fp32", "openvino:cpu/fp32"], arguments.frames)
    record: dict[str, Json] = {
        "benchmark": "memory",
        "fingerprint": fingerprint(),
        "results": [asdict(row) for row in rows],
    }
    write_text(arguments.json, pretty_json(record))
    kept = all(row.growth_mib < LIMIT_MIB and row.threads_left == 0 for row in rows)
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
