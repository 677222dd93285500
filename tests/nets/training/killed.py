"""A tiny training run in a process of its own, to be killed: `python killed.py FOLDER [--resume]`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from scalenas.training.run import Place, Run
from tests.nets.training import toys

STEPS = 10
EVALUATION = {"steps": 5, "limit": 2, "calibration": 4, "members": False}


def run(folder: Path, *, resume: bool) -> Run:
    """Trains in `folder` and returns the run."""
    torch.set_num_threads(1)
    config = toys.config(schedule={"steps": STEPS}, evaluation=EVALUATION, checkpoint_steps=2)
    made = Run(config, toys.pose_supply(), Place(folder, quiet=True))
    if resume:
        made.resume()
    made.train()
    return made


if __name__ == "__main__":
    run(Path(sys.argv[1]), resume="--resume" in sys.argv)
