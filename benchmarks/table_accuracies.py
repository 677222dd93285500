"""Computes the accuracy of every member of a closed table on the `search` split, and of nets from all of the space.

`python benchmarks/table_accuracies.py WEIGHTS --data D.yaml --out ACCURACIES.jsonl [--data-root R] [--full 300]`

One line of JSON per net goes to the end of the file as soon as it is known, so a killed run goes on where it was, and
several processes may share one file (`--shard 0/4`, `--shard 1/4`, ...). `scalenas-export table build --accuracies`
reads it. Torch in fp32 on a GPU where there is one: no engine is needed.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from scalenas.data.dataset import open_dataset
from scalenas.registry import get_space
from scalenas.shipped import find_weights_file
from scalenas.static import extract
from scalenas.supernet import Supernet
from scalenas.table.accuracies import Accuracy, append, read
from scalenas.table.batched import BatchedJudge
from scalenas.table.nets import members, others
from scalenas.training.config import EvaluationConfig
from scalenas.training.judge import Judge
from scalenas.training.supply import plain_pictures
from scalenas.weights import Weights, load_into, load_weights
from scalenas_runtime.errors import UserError


def judge_of(weights: Weights, arguments: argparse.Namespace) -> Judge:
    """Returns the judge of the data's `search` split for the weights' recipe."""
    recipe = weights.recipe
    if recipe is None:
        raise UserError(f"{arguments.weights} has no recipe, so no picture can be judged")
    dataset = open_dataset(arguments.data, root=arguments.data_root)
    size = (recipe.height, recipe.width)
    config = EvaluationConfig(calibration=arguments.calibration)
    calibration = partial(plain_pictures, dataset.samples("calibrate", recipe), config.calibration)
    data = dataset.labelled("search", size=size)
    return Judge(recipe, data, config, calibration, torch.device(arguments.device))


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
    parser.add_argument("--limit", type=int, help="Judge so many nets and stop.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    # TF32 would move accuracies by more than two nets of the table differ.
    torch.backends.cudnn.allow_tf32 = False
    weights = load_weights(find_weights_file(arguments.weights))
    judge = judge_of(weights, arguments)
    batched = BatchedJudge(judge)
    supernet = Supernet(get_space(weights.space), weights.settings)
    load_into(supernet, weights)
    supernet.to(judge.device).eval()
    number, shards = map(int, arguments.shard.split("/"))
    run: dict[str, int | str] = {
        "weights": weights.digest,
        "data": Path(arguments.data).name,
        "pictures": len(judge.data),
    }
    known = {entry.spec for entry in read(arguments.out) if entry.fits(run)} if arguments.out.exists() else set()
    size = (judge.recipe.height, judge.recipe.width)
    nets = [*members(weights.settings, size), *others(weights.settings, size, arguments.full)]
    missing = [spec for spec in nets[number::shards] if spec.digest not in known][: arguments.limit]
    start = time.perf_counter()
    for spec in tqdm(missing, unit="net"):
        done = batched.judge(extract(supernet, spec))
        append(arguments.out, Accuracy.of(spec, done, run))
    seconds = time.perf_counter() - start
    print(f"{len(missing)} nets in {seconds:.0f} s on {judge.device}; {len(nets)} wanted in all")


if __name__ == "__main__":
    main()
