"""A tiny training run over the processes of `torchrun`: `together.py FOLDER`; the first one saves the weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from scalenas.training.ranks import Ranks, join
from scalenas.training.run import Place, Run
from scalenas.training.supply import Supply
from scalenas_runtime.errors import CheckFailed
from tests.nets.training import toys


def supply(task: str) -> Supply:
    """Returns the data of a task."""
    return toys.pose_supply() if task == "pose" else toys.class_supply()


def train(folder: Path, ranks: Ranks) -> dict[str, dict[str, Tensor]]:
    """Trains on both tasks over all processes and returns the tensors by task."""
    torch.set_num_threads(1)
    trained = {}
    for task in ("pose", "segmentation"):
        # Weights as small as the initial ones, and BN over few pixels, blow rounding errors up with every step: a small
        # rate keeps the comparison about the processes.
        config = toys.config(
            optimiser={"lr": 0.05 if task == "pose" else 0.002, "kind": "sgd", "weight_decay": 0.01},
            schedule={"steps": 3},
            batch=4,
            checkpoint_steps=3,
            evaluation={"steps": 3, "limit": 2, "calibration": 4, "members": False},
        )
        run = Run(config, supply(task), Place(folder / task, ranks, quiet=True))
        run.train()
        own = torch.cat([value.double().flatten() for value in run.tensors().values()])
        if not torch.equal(ranks.sum(own), own * ranks.world):
            raise CheckFailed("the processes ended with different weights")
        trained[task] = run.tensors()
    return trained


if __name__ == "__main__":
    ranks = join()
    result = train(Path(sys.argv[1]), ranks)
    if ranks.first:
        torch.save(result, Path(sys.argv[1]) / "tensors.pt")
    ranks.close()
