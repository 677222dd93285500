"""How accuracy depends on a subnet's BN statistics: measured or transferred, by which rule, from how many pictures.

    python -m benchmarks.bench_recalibration pose-w16 --data configs/data/lspet.yaml --data-root DATA
        [--counts 32,64,128,256] [--batch 32] [--nets max,min,hrnet-w16] [--limit 400]
        [--target openvino:cpu/fp32] [--out FILE.json]

Judges nets of a trained supernet on the `search` part through an engine, BN statistics from the first so many pictures
of the `calibrate` part, in batches: measured, with the total variance or the mean of the batches', or transferred
(`scalenas.transferred_statistics`), from these pictures and from drawn ones. `none` keeps the supernet's own running
statistics. Prints the accuracy of each net and writes JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.evaluate_members import accuracy, recipe_of
from scalenas.data.dataset import Dataset, open_dataset
from scalenas.inheriting import inherit
from scalenas.recalibration import Variance, recalibrate
from scalenas.registry import get_space
from scalenas.shipped import find_weights_file
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet
from scalenas.training.judge import members
from scalenas.training.pictures import normalised
from scalenas.training.start import Frame
from scalenas.training.supply import plain_pictures
from scalenas.transferred_statistics import Rule, statistics_by
from scalenas.weights import Weights, load_weights
from scalenas_export.calibration import SEED
from scalenas_export.search.accuracy import judging_config
from scalenas_export.search.judging import prepare
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.scenes import pictures as scenes
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import Recipe

RESULTS = Path(__file__).parent / "results"
RULES: tuple[Variance, ...] = ("total", "mean")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to set BN statistics; no pictures keep the supernet's."""

    variance: Variance
    pictures: int
    batch: int
    rule: Rule = "measured"
    drawn: bool = False

    @property
    def name(self) -> str:
        """Name of the row."""
        if not self.pictures:
            return "none"
        kind = self.variance if self.rule == "measured" else self.rule
        return f"{kind} {self.pictures}{' drawn' if self.drawn else ''}"


def nets_of(weights: Weights, recipe: Recipe, wanted: str | None) -> dict[str, SubnetSpec]:
    """Returns the nets to judge, by name."""
    inputs = {"image": (3, recipe.height, recipe.width)}
    known = members(Frame(get_space(weights.space), weights.settings, inputs, recipe))
    names = wanted.split(",") if wanted else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"unknown net {unknown[0]!r}; known: {', '.join(known)}")
    return {name: known[name] for name in names}


def calibration(dataset: Dataset, recipe: Recipe, most: int) -> NDArray[np.uint8]:
    """Returns pictures to calibrate on, in an order that takes every count of them from all over the part."""
    pictures = plain_pictures(dataset.samples("calibrate", recipe), most)
    return pictures[np.random.default_rng(0).permutation(len(pictures))]


def batches(pictures: NDArray[np.uint8], way: Way, recipe: Recipe) -> Iterator[torch.Tensor]:
    """Yields the pictures of a way, normalised."""
    for part in torch.split(torch.from_numpy(pictures[: way.pictures]), way.batch):
        yield normalised(part, recipe)


def setter(way: Way, weights: Weights, pictures: NDArray[np.uint8], recipe: Recipe) -> Callable[[StaticNet], int]:
    """Returns what sets the BN statistics of a net in a way."""

    def measure(net: StaticNet) -> int:
        return recalibrate(net, batches(pictures, way, recipe), variance=way.variance) if way.pictures else 0

    return statistics_by(way.rule, weights, get_space(weights.space), measure)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="Supernet weights: a file, or the name of shipped ones.")
    parser.add_argument("--data", required=True, help="Description of the data (YAML).")
    parser.add_argument("--data-root", help="Folder that the description's sources start at.")
    parser.add_argument(
        "--counts", type=lambda text: [int(each) for each in text.split(",")], default=[32, 64, 128, 256]
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--nets", help="Names by commas; the card's nets if left out.")
    parser.add_argument("--limit", type=int, help="Judge the first so many pictures.")
    parser.add_argument("--target", default="onnxruntime:cpu/fp32", help="The engine that judges.")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    try:
        weights = load_weights(find_weights_file(arguments.weights))
        recipe = recipe_of(weights, arguments.weights)
        nets = nets_of(weights, recipe, arguments.nets)
        dataset = open_dataset(arguments.data, root=arguments.data_root)
        pictures = calibration(dataset, recipe, max(arguments.counts))
        data = dataset.labelled("search", size=(recipe.height, recipe.width))
        prepared = prepare(recipe, data, metric=None, limit=arguments.limit)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    config = judging_config(EngineConfig(Target.parse(arguments.target)), recipe)
    counts, batch = arguments.counts, arguments.batch
    ways = [Way("total", 0, 1), *(Way(rule, count, batch) for rule in RULES for count in counts)]
    ways += [Way("total", count, batch, "transferred") for count in counts]
    ways += [Way("total", count, batch, drawn=True) for count in counts[-1:]]
    ways += [Way("total", count, batch, "transferred", drawn=True) for count in counts]
    drawn = scenes(recipe, seed=SEED, count=max(counts))
    setters = {way.name: setter(way, weights, drawn if way.drawn else pictures, recipe) for way in ways}
    values: dict[str, dict[str, float]] = {way.name: {} for way in ways}
    for name, spec in tqdm(nets.items(), unit="net"):
        for way, set_statistics in setters.items():
            net = inherit(weights, spec)
            set_statistics(net)
            values[way][name] = accuracy(net, recipe, prepared, config).value
    print(f"{'statistics':22}" + "".join(f"{name:>18}" for name in nets) + f"{'mean':>8}")
    for row, of in values.items():
        print(
            f"{row:22}"
            + "".join(f"{100 * of[name]:18.2f}" for name in nets)
            + f"{100 * np.mean(list(of.values())):8.2f}"
        )
    record: dict[str, Any] = {
        "weights": weights.digest,
        "data": Path(arguments.data).name,
        "part": "search",
        "limit": arguments.limit,
        "batch": arguments.batch,
        "pictures": prepared.count,
        "target": arguments.target,
        "accuracy": values,
        "machine": fingerprint(),
    }
    out = arguments.out or RESULTS / f"recalibration_{Path(arguments.weights).stem}.json"
    document: Json = record
    write_text(out, pretty_json(document))
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
