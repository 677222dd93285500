"""Our latency beside that of OpenVINO's benchmark_app on the same model, in alternating processes.

    python benchmarks/bench_against_benchmark_app.py [--model FILE.onnx] [--pairs 12] [--seconds 3]

The median of the pairs' ratios should lie within 5 % of 1. Single pairs differ by more on a shared machine: the two
processes of a pair run one after the other, and the pair's order is swapped every time.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from scalenas_runtime.backends import get_backend
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.measure import MeasureJob, run_job
from scalenas_runtime.targets import EngineConfig, Target

RESULT = Path(__file__).parent / "results" / "against_benchmark_app.json"


def stand_in(path: Path, *, convolutions: int = 28, channels: int = 64) -> Path:
    """Writes a net of the size of HRNet-W18 at 256x192 (3.2 GMACs): residual 3x3 convolutions at stride 4."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    tensors = []

    def conv(source: str, name: str, shape: tuple[int, int, int, int], stride: int) -> str:
        spread = (2 / np.prod(shape[1:])) ** 0.5
        tensors.append(numpy_helper.from_array((rng.standard_normal(shape) * spread).astype(np.float32), f"{name}.w"))
        pads = [shape[2] // 2] * 4
        nodes.append(helper.make_node("Conv", [source, f"{name}.w"], [f"{name}.c"], strides=[stride] * 2, pads=pads))
        nodes.append(helper.make_node("Relu", [f"{name}.c"], [name]))
        return name

    last = conv("planes", "stem1", (channels, 3, 3, 3), 2)
    last = conv(last, "stem2", (channels, channels, 3, 3), 2)
    for index in range(convolutions // 2):
        inner = conv(last, f"block{index}.0", (channels, channels, 3, 3), 1)
        inner = conv(inner, f"block{index}.1", (channels, channels, 3, 3), 1)
        nodes.append(helper.make_node("Add", [inner, last], [f"block{index}"]))
        last = f"block{index}"
    tensors.append(numpy_helper.from_array(rng.standard_normal((17, channels, 1, 1)).astype(np.float32), "head.w"))
    nodes.append(helper.make_node("Conv", [last, "head.w"], ["heatmaps"]))
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 256, 192, 3])],
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, [1, 17, 64, 48])],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def theirs(model: Path, config: EngineConfig, seconds: float) -> float:
    """Returns benchmark_app's median in milliseconds."""
    command = get_backend("openvino").equivalent_command(model, config, seconds)
    assert command is not None
    words = shlex.split(command)
    words[0] = str(Path(sys.executable).parent / words[0])
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Median:\s+([\d.]+) ms", output)
    if found is None:
        raise RuntimeError(f"benchmark_app printed no median:\n{output}")
    return float(found.group(1))


def ours(model: Path, config: EngineConfig, seconds: float) -> float:
    """Returns our median in milliseconds."""
    return run_job(MeasureJob(model, config, seconds=seconds)).statistics.median


def compare(model: Path, config: EngineConfig, pairs: int, seconds: float) -> dict[str, Json]:
    """Returns the medians of every pair, and the median of the pairs' ratios ours / theirs."""
    mine: list[float] = []
    other: list[float] = []
    for number in range(pairs):
        steps = [(mine, ours), (other, theirs)]
        for values, measure in steps if number % 2 == 0 else reversed(steps):
            values.append(measure(model, config, seconds))
        print(f"{config.target}  pair {number + 1:2}: {mine[-1]:8.3f} {other[-1]:8.3f}  {mine[-1] / other[-1]:.3f}")
    ratios = [one / two for one, two in zip(mine, other, strict=True)]
    ratio = statistics.median(ratios)
    print(f"{config.target}  median of ratios {ratio:.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    return {"target": str(config.target), "ours_ms": [*mine], "theirs_ms": [*other], "ratio": ratio}


def main() -> None:
    """Prints a line a pair and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--target", action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or stand_in(Path(folder) / "stand-in.onnx")
        configs = [
            EngineConfig(Target.parse(text)) for text in options.target or ["openvino:cpu/fp32", "openvino:cpu/bf16"]
        ]
        rows: list[Json] = [compare(model, config, options.pairs, options.seconds) for config in configs]
    machine = json.loads(json.dumps(fingerprint()))
    write_text(RESULT, pretty_json({"comparisons": rows, "seconds": options.seconds, "fingerprint": machine}))


if __name__ == "__main__":
    main()
