"""Accuracy of typical nets of trained weights on official data, through the engine that would ship.

    python benchmarks/evaluate_members.py weights/pose-w16.safetensors --data configs/data/lspet.yaml --part val \
        --data-root DATA [--target openvino:cpu/bf16] [--nets max,min] [--limit 100] [--out FILE.json]

Of a supernet: the largest and the smallest net, HRNet's pattern, and typical nets of three groups, each with BN
statistics from the `calibrate` part, as `search` sets them; of a net trained alone (`--phase alone`): that net as it
is. The weights are taken as the file holds them, so a float16 file is judged rounded. Prints the card's tables and
writes JSON.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from scalenas.data.dataset import open_dataset
from scalenas.inheriting import inherit
from scalenas.registry import get_space
from scalenas.shipped import find_weights_file
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet
from scalenas.training.judge import judge_of, members
from scalenas.training.start import Frame
from scalenas.transferred_statistics import rule_for, statistics_by
from scalenas.weights import Weights, load_weights
from scalenas_export.fast_graph import candidate_graph
from scalenas_export.search.accuracy import judging_config
from scalenas_export.search.judging import Prepared, prepare
from scalenas_runtime.backends import get_backend
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.evaluate import Evaluation
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import Recipe


@dataclass(frozen=True, slots=True)
class Row:
    """One net and its accuracy."""

    name: str
    spec: SubnetSpec
    params: int
    gmacs: float
    done: Evaluation

    def to_json(self) -> dict[str, Json]:
        """Returns the row as JSON values."""
        return {
            "name": self.name,
            "spec_digest": self.spec.digest,
            "params": self.params,
            "gmacs": self.gmacs,
            **self.done.to_json(),
        }


def recipe_of(weights: Weights, path: str | Path) -> Recipe:
    """Returns the recipe that the weights carry, or ends the program where they have none."""
    if weights.recipe is None:
        raise UserError(f"{path} has no recipe, so no picture can be judged; weights that `train` wrote have one")
    return weights.recipe


def nets_of(weights: Weights, recipe: Recipe, wanted: list[str]) -> dict[str, SubnetSpec]:
    """Returns the nets to judge, by name."""
    if weights.spec is not None:
        return {"alone": weights.spec}
    space = get_space(weights.space)
    inputs = {"image": (3, recipe.height, recipe.width)}
    frame = Frame(space, weights.settings, inputs, recipe)
    known = members(frame)
    return known if not wanted else {name: known.get(name) or frame.spec(name) for name in wanted}


def accuracy(net: StaticNet, recipe: Recipe, prepared: Prepared, config: EngineConfig) -> Evaluation:
    """Returns the accuracy of a net through an engine."""
    graph = candidate_graph(net, recipe)
    if graph.path != "fast":
        print(f"full export: {graph.reason}")
    else:
        for value in (*graph.model.graph.input, *graph.model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph.model.SerializeToString())
        with get_backend(config.target.backend).compile(path, config) as session:
            return prepared.judge(session)


def table(rows: list[Row]) -> str:
    """Returns the accuracies as Markdown, then the same by class, or by joint and size of the person."""
    lines = ["| net | M params | MACs/2^30 (G) | metric | % | interval |", "|---|---|---|---|---|---|"]
    for row in rows:
        bounds = "-" if row.done.interval is None else " .. ".join(f"{100 * each:.1f}" for each in row.done.interval)
        lines.append(
            f"| {row.name} | {row.params / 1e6:.2f} | {row.gmacs:.3f} | {row.done.metric} | "
            f"{100 * row.done.value:.1f} | {bounds} |"
        )
    parts = ["\n".join(lines)]
    parts += [_by_name(rows, key) for key in ("sizes", "joints", "classes") if key in rows[0].done.figures]
    return "\n\n".join(parts) + "\n"


def _by_name(rows: list[Row], key: str) -> str:
    names = list(_values(rows[0], key))
    head = f"| {key} | " + " | ".join(row.name for row in rows) + " |"
    lines = [head, "|---" * (len(rows) + 1) + "|"]
    for name in names:
        shown = (_percent(_values(row, key)[name]) for row in rows)
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _values(row: Row, key: str) -> Mapping[str, Any]:
    value = row.done.figures[key]
    assert isinstance(value, Mapping)
    return value


def _percent(value: Any) -> str:
    number = value["value"] if isinstance(value, Mapping) else value
    return "-" if number is None or number != number else f"{100 * number:.1f}"


def judged(arguments: argparse.Namespace, path: Path, weights: Weights) -> Iterator[Row]:
    """Yields the rows, one net after another."""
    recipe = recipe_of(weights, path)
    dataset = open_dataset(arguments.data, root=arguments.data_root)
    statistics = judge_of(
        dataset, recipe, arguments.part, calibration=arguments.calibration, device=torch.device("cpu")
    )
    prepared = prepare(recipe, statistics.data, metric=arguments.metric, limit=arguments.limit)
    config = judging_config(EngineConfig(Target.parse(arguments.target), threads=arguments.threads), recipe)
    space = get_space(weights.space)
    set_statistics = statistics_by(rule_for(weights, arguments.statistics), weights, space, statistics.recalibrate)
    wanted = arguments.nets.split(",") if arguments.nets else []
    for name, spec in tqdm(nets_of(weights, recipe, wanted).items(), unit="net"):
        net = inherit(weights, spec)
        if weights.spec is None:
            set_statistics(net)
        cost = space.cost(spec)
        yield Row(name, spec, cost.params, cost.gmacs, accuracy(net, recipe, prepared, config))


def main() -> None:
    """Judges, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="A weights file, or the name of shipped ones.")
    parser.add_argument("--data", required=True, help="Description of the data (YAML).")
    parser.add_argument("--data-root", help="Folder that the description's sources start at.")
    parser.add_argument(
        "--part", required=True, choices=("val", "test", "search", "calibrate"), help="What to judge on."
    )
    parser.add_argument("--target", default="onnxruntime:cpu/fp32", help="The engine that judges.")
    parser.add_argument("--threads", type=int, help="Threads of the engine.")
    parser.add_argument("--nets", help="Names or spec files, by commas; the card's nets if left out.")
    parser.add_argument("--metric", choices=("pck", "pckh", "oks", "miou"), help="The task's usual one if left out.")
    parser.add_argument("--calibration", type=int, default=256, help="Pictures for BN statistics.")
    parser.add_argument(
        "--statistics", choices=("transferred", "measured"), help="How BN statistics come about; as `search` has it."
    )
    parser.add_argument("--limit", type=int, help="Judge the first so many pictures.")
    parser.add_argument("--out", type=Path, help="JSON file to write.")
    arguments = parser.parse_args()
    start = time.perf_counter()
    try:
        path = find_weights_file(arguments.weights)
        weights = load_weights(path)
        rows = list(judged(arguments, path, weights))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    seconds = time.perf_counter() - start
    print(table(rows))
    print(f"{len(rows)} nets in {seconds:.0f} s on {arguments.target}, {Path(arguments.data).stem} {arguments.part}")
    if arguments.out is not None:
        record: dict[str, Json] = {
            "weights": weights.digest,
            "data": Path(arguments.data).name,
            "part": arguments.part,
            "limit": arguments.limit,
            "target": arguments.target,
            "calibration": arguments.calibration,
            "statistics": None if weights.spec is not None else rule_for(weights, arguments.statistics),
            "rows": [row.to_json() for row in rows],
            "seconds": round(seconds, 1),
            "machine": fingerprint(),
        }
        write_text(arguments.out, pretty_json(record))


if __name__ == "__main__":
    main()
