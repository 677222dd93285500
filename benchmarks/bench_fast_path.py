"""From a candidate's spec to a loaded engine: the fast graph against stock export, simplification and build.

    python benchmarks/bench_fast_path.py [--net hrnet-w18] [--size 256x192] [--rounds 3] [--fast 5] [--blocks 20]
        [--sampled 3] [--target openvino:cpu/bf16 --target onnxruntime:cpu/fp32]
        [--out benchmarks/results/fast_path.json]

Fast: the net takes a supernet's weights, its layers are written as ONNX, the engine is compiled. Stock: the same net,
`torch.onnx.export`, onnxsim, the same compile. Both run in one warm process, in turns, the first round of each not
counted. Then engines of the fast graph and of the graph that bundles ship (full export, simplified) run in alternating
blocks: their latencies' 95 % intervals should overlap. The same is done, in fewer blocks, with nets sampled from the
groups of a small space, for pose and for segmentation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scalenas import resolve_spec
from scalenas.inheriting import inherit
from scalenas.registry import get_space
from scalenas.spec import SubnetSpec
from scalenas.weights import Weights
from scalenas_export.fast_graph import candidate_graph
from scalenas_export.folding import fold
from scalenas_export.io_forms import make_raw, output_name
from scalenas_export.onnx_export import to_onnx
from scalenas_export.recipes import spec_recipe
from scalenas_export.simplify import onnxsim
from scalenas_runtime.backends import get_backend
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.measure.statistics import median_interval, paired_ratio
from scalenas_runtime.session import Session
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import Recipe

RESULTS = Path(__file__).parent / "results"
BLOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Subject:
    """The candidate, and what it takes its weights from."""

    spec: SubnetSpec
    weights: Weights
    recipe: Recipe
    folder: Path

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        return 3, self.recipe.height, self.recipe.width


def subject_of(name: str, size: tuple[int, int], folder: Path) -> Subject:
    """Returns a net of the largest supernet of its width, with random weights."""
    spec = resolve_spec(name)
    space = get_space(spec.space)
    spec = space.adapt(spec, settings={}, size=size)
    settings = space.settings(spec.settings)
    weights = Weights("supernet", space.name, settings, space.supernet(settings).state_dict())
    return Subject(spec, weights, spec_recipe(spec), folder)


def sampled(count: int, folder: Path) -> dict[str, Subject]:
    """Returns so many nets of a small supernet for each task, drawn from groups that lie apart, with random weights."""
    space = get_space("scalenas")
    found = {}
    for task, size in (("pose", (128, 96)), ("segmentation", (192, 256))):
        settings = space.settings({"width": 16, "modules": [1, 2, 1], "task": task})
        weights = Weights("supernet", space.name, settings, space.supernet(settings).state_dict())
        groups = list(space.groups(settings))
        for number in range(count):
            group = groups[number * len(groups) // count]
            rng = np.random.default_rng(number)
            spec = space.sample(rng, settings=settings, inputs={"image": (3, *size)}, group=group)
            found[f"{task} {group}"] = Subject(spec, weights, spec_recipe(spec), folder)
    return found


def fast(subject: Subject, config: EngineConfig) -> tuple[Session, dict[str, float]]:
    """Returns a loaded engine by the fast path, and the seconds of each step."""
    clock = Clock()
    net = inherit(subject.weights, subject.spec)
    clock.lap("net")
    graph = candidate_graph(net, subject.recipe)
    if graph.path != "fast":
        raise UserError(f"the candidate took the full export: {graph.reason}")
    clock.lap("graph")
    path = subject.folder / "fast.onnx"
    path.write_bytes(graph.model.SerializeToString())
    clock.lap("file")
    session = get_backend(config.target.backend).compile(path, config)
    clock.lap("engine")
    return session, clock.seconds


def stock(subject: Subject, config: EngineConfig) -> tuple[Session, dict[str, float]]:
    """Returns a loaded engine by torch's exporter and onnxsim, and the seconds of each step."""
    import onnx
    import onnxsim as package

    clock = Clock()
    net = inherit(subject.weights, subject.spec)
    clock.lap("net")
    path = subject.folder / "stock.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(net, (torch.zeros(1, *subject.shape),), dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto
    clock.lap("export")
    model, agrees = package.simplify(model)
    if not agrees:
        raise UserError("onnxsim found its own result to differ")
    clock.lap("simplify")
    onnx.save(model, path)
    clock.lap("file")
    session = get_backend(config.target.backend).compile(path, config)
    clock.lap("engine")
    return session, clock.seconds


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a step."""
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def timed(subject: Subject, config: EngineConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns seconds from spec to engine by both ways, taken in turns after one run of each for warmth."""
    times: dict[str, list[dict[str, float]]] = {"fast": [], "stock": []}
    ways: dict[str, tuple[Callable[..., tuple[Session, dict[str, float]]], int]] = {
        "fast": (fast, arguments.fast),
        "stock": (stock, 1),
    }
    for number in range(arguments.rounds + 1):
        for name, (way, repeats) in ways.items():
            for _ in range(repeats):
                session, seconds = way(subject, config)
                session.close()
                if number:
                    times[name].append(seconds)
    totals = {name: [sum(each.values()) for each in rows] for name, rows in times.items()}
    medians = {name: statistics.median(values) for name, values in totals.items()}
    steps = {
        name: {step: round(statistics.median(row[step] for row in rows), 4) for step in rows[0]}
        for name, rows in times.items()
    }
    return {"seconds": medians, "ratio": medians["stock"] / medians["fast"], "steps": steps, "totals": totals}


def latency(subject: Subject, config: EngineConfig, blocks: int) -> dict[str, Any]:
    """Returns latencies of the fast and of the shipped graph in milliseconds, measured in alternating blocks."""
    net = inherit(subject.weights, subject.spec)
    model = to_onnx(fold(net), subject.shape, output=output_name(subject.recipe))
    make_raw(model, subject.recipe)
    shipped = subject.folder / "shipped.onnx"
    shipped.write_bytes(onnxsim(model).SerializeToString())
    engine, _ = fast(subject, config)
    samples: dict[str, list[NDArray[np.float64]]] = {"fast": [], "shipped": []}
    with engine, get_backend(config.target.backend).compile(shipped, config) as other:
        for number in range(blocks + 1):
            pair = [("fast", engine), ("shipped", other)]
            for name, session in pair if number % 2 else reversed(pair):
                taken = block(session)
                if number:
                    samples[name].append(taken)
    rng = np.random.default_rng(0)
    bounds = {name: median_interval(parts, rng) for name, parts in samples.items()}
    middles = {name: [float(np.median(part)) for part in parts] for name, parts in samples.items()}
    ratio, low, high = paired_ratio(middles["fast"], middles["shipped"], rng)
    return {
        "median_ms": {name: float(np.median(np.concatenate(parts))) for name, parts in samples.items()},
        "interval_ms": {name: list(each) for name, each in bounds.items()},
        "overlap": bounds["fast"][0] <= bounds["shipped"][1] and bounds["shipped"][0] <= bounds["fast"][1],
        "ratio": [ratio, low, high],
        "block_medians_ms": middles,
    }


def block(session: Session) -> NDArray[np.float64]:
    """Returns latencies in milliseconds of half a second of runs."""
    (given,) = session.inputs
    feed = {given.name: np.random.default_rng(0).integers(0, 256, given.shape, np.uint8)}
    taken: list[float] = []
    until = time.perf_counter() + BLOCK_SECONDS
    while (start := time.perf_counter()) < until:
        session.run(feed)
        taken.append(1000 * (time.perf_counter() - start))
    return np.array(taken)


def targets_here(given: list[str] | None) -> list[str]:
    """Returns the targets asked for; by default ONNX Runtime fp32, and OpenVINO in bf16 where the CPU has it."""
    if given:
        return given
    try:
        get_backend("openvino").check(Target.parse("openvino:cpu/bf16"))
    except UserError:
        return ["openvino:cpu/fp32", "onnxruntime:cpu/fp32"]
    return ["openvino:cpu/bf16", "onnxruntime:cpu/fp32"]


def shown(name: str, found: dict[str, Any]) -> str:
    """Returns the lines for people."""
    seconds, pace = found["seconds"], found["latency"]
    steps = ", ".join(f"{step} {value:.2f}" for step, value in found["steps"]["fast"].items())
    low, high = pace["interval_ms"]["fast"]
    other_low, other_high = pace["interval_ms"]["shipped"]
    return (
        f"{name}: spec to engine {seconds['fast']:.2f} s ({steps}), stock {seconds['stock']:.1f} s: "
        f"{found['ratio']:.1f} times\n  latency fast {low:.2f} .. {high:.2f} ms, shipped {other_low:.2f} .. "
        f"{other_high:.2f} ms: {'overlap' if pace['overlap'] else 'apart'}"
    )


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="hrnet-w18")
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(256, 192))
    parser.add_argument("--rounds", type=int, default=3, help="Stock exports for each target.")
    parser.add_argument("--fast", type=int, default=5, help="Fast runs for each stock export.")
    parser.add_argument("--blocks", type=int, default=20, help="Blocks of half a second for each graph.")
    parser.add_argument("--sampled", type=int, default=3, help="Sampled nets of each task, for latency alone.")
    parser.add_argument("--target", action="append", help="Engines; may be repeated.")
    parser.add_argument("--out", type=Path, default=RESULTS / "fast_path.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        subject = subject_of(arguments.net, arguments.size, Path(folder))
        for text in targets_here(arguments.target):
            config = EngineConfig(Target.parse(text))
            found = timed(subject, config, arguments)
            found["latency"] = latency(subject, config, arguments.blocks)
            print(shown(text, found), flush=True)
            found["sampled"] = {}
            for name, other in sampled(arguments.sampled, Path(folder)).items():
                pace = found["sampled"][name] = latency(other, config, max(2, arguments.blocks // 2))
                ratio, low, high = pace["ratio"]
                kept = "overlap" if pace["overlap"] else "apart"
                print(
                    f"  {name}: fast over shipped {ratio:.3f} ({low:.3f} to {high:.3f}), intervals {kept}", flush=True
                )
            results[text] = found
    record: dict[str, Json] = {
        "net": arguments.net,
        "size": list(arguments.size),
        "threads": torch.get_num_threads(),
        "results": results,
        "machine": fingerprint(),
    }
    write_text(arguments.out, pretty_json(record))
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
