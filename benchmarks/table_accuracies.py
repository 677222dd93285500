"""Accuracies of the nets of a closed table, by several processes or on a GPU; `table build --data` does it in one.

`python benchmarks/table_accuracies.py WEIGHTS --data D.yaml --out TABLE.accuracies.jsonl [--data-root R] [--full 300]`

One line of JSON per net goes to the end of the file as soon as it is known, so a killed run goes on where it was, and
several processes may share one file (`--shard 0/4`, `--shard 1/4`, ...). `scalenas-export table build --accuracies`
reads it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from tqdm import tqdm

from scalenas.shipped import find_weights_file
from scalenas.table.nets import members, others
from scalenas.weights import load_weights
from scalenas_export.table_accuracies import AccuracyPlan, judge_accuracies
from scalenas_runtime.errors import UserError


def main() -> None:
    """Appends what is missing to the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="Supernet weights: a file, or the name of shipped ones.")
    parser.add_argument("--data", required=True, help="Description of the data (YAML).")
    parser.add_argument("--data-root", help="Folder that the description's sources start at.")
    parser.add_argument("--out", type=Path, required=True, help="File of JSON lines; it is added to.")
    parser.add_argument("--full", type=int, default=0, help="Random nets of the whole space besides the table's.")
    parser.add_argument("--calibration", type=int, default=256, help="Pictures for BN statistics.")
    parser.add_argument("--shard", default="0/1", help="Which part of the nets this process judges: 0/4 is the first.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    weights = load_weights(find_weights_file(arguments.weights))
    if weights.recipe is None:
        raise UserError(f"{arguments.weights} has no recipe, so no picture can be judged")
    number, shards = map(int, arguments.shard.split("/"))
    size = (weights.recipe.height, weights.recipe.width)
    nets = [*members(weights.settings, size), *others(weights.settings, size, arguments.full)][number::shards]
    plan = AccuracyPlan(
        weights, nets, arguments.out, arguments.data, arguments.data_root, arguments.calibration, arguments.device
    )
    start = time.perf_counter()
    with tqdm(total=len(nets), unit="net") as bar:
        judge_accuracies(plan, progress=bar.update)
    print(f"{len(nets)} nets on {arguments.device}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
