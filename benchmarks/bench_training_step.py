"""Times a training step of sampled subnets against the same subnets trained alone, with and without a teacher.

`python benchmarks/bench_training_step.py [--task segmentation] [--size 128x96] [--batch 32] [--width 16]
[--modules 1,2,1] [--precision bf16] [--device cuda] [--out FILE.json]`
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from scalenas.data.loader import Batch
from scalenas.data.samples import Sample
from scalenas.static import static_net
from scalenas.supernet import Supernet
from scalenas.training.config import TrainConfig
from scalenas.training.loss import TaskLoss
from scalenas.training.optimisers import Optimiser
from scalenas.training.ranks import Ranks
from scalenas.training.run import Place, Run, place_net
from scalenas.training.step import Step, Teacher
from scalenas.training.supply import Supply
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.readers import KeypointData
from scalenas_runtime.records import read_record
from scalenas_runtime.tasks import PoseRecipe, Recipe
from scalenas_runtime.tasks.sets import CITYSCAPES_19, COCO_17, pose_recipe, segmentation_recipe

ROUNDS, WARM = 7, 2


class Nothing:
    """Samples that are never asked for."""

    def __len__(self) -> int:
        return 1000

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Is never called."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Returns the number."""
        return str(index)


def config_of(arguments: argparse.Namespace) -> TrainConfig:
    """Returns the configuration of a supernet."""
    modules = list(map(int, arguments.modules.split(",")))
    value = {
        "phase": "supernet",
        "model": {"size": arguments.size, "settings": {"width": arguments.width, "modules": modules}},
        "data": {"path": "none"},
        "schedule": {"steps": 100},
        "optimiser": {"lr": 0.001},
        "batch": arguments.batch,
        "precision": arguments.precision,
        "device": arguments.device,
    }
    return read_record(TrainConfig, value, what="benchmark")


def seconds(*actions: Callable[[], object]) -> list[float]:
    """Returns the median seconds of each action; they take turns, so that drift meets all alike."""
    taken: list[list[float]] = [[] for _ in actions]
    for number in range(WARM + ROUNDS):
        for action, times in zip(actions, taken, strict=True):
            start = time.perf_counter()
            action()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= WARM:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def batch_of(recipe: Recipe, count: int) -> Batch:
    """Returns noise with random targets."""
    pictures = torch.randint(0, 256, (count, recipe.height, recipe.width, 3), dtype=torch.uint8)
    if isinstance(recipe, PoseRecipe):
        joints = len(recipe.joints)
        return Batch(pictures, torch.rand(count, joints, *recipe.heatmap_size), torch.ones(count, joints))
    labels = torch.randint(0, len(recipe.classes), (count, recipe.height, recipe.width), dtype=torch.uint8)
    return Batch(pictures, labels, None)


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(128, 96))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--modules", default="1,2,1")
    parser.add_argument("--task", choices=("pose", "segmentation"), default="pose")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--slots", type=int, default=4, help="How many of the cycle's 11 slots, spread over it.")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = config_of(arguments)
    pose = arguments.task == "pose"
    recipe: Recipe = pose_recipe(COCO_17, size=arguments.size)
    if not pose:
        recipe = segmentation_recipe(CITYSCAPES_19, size=arguments.size)
    search = KeypointData("nothing", COCO_17.joints, (), 0, {}, lambda: iter(()))
    supply = Supply(recipe, Nothing(), lambda: np.zeros((1, *arguments.size, 3), np.uint8), search, [], arguments.size)
    run = Run(config, supply, Place(Path(tempfile.gettempdir()), Ranks(), quiet=True))
    assert isinstance(run.net, Supernet)
    batch = batch_of(recipe, arguments.batch)
    teacher = static_net(run.frame.space.max(run.frame.settings, run.frame.inputs)).eval()
    place_net(teacher, run.device, config)
    rows = []
    for slot in np.linspace(0, 10, arguments.slots).round().astype(int).tolist():
        (spec,) = run.specs(slot)
        alone = static_net(spec)
        place_net(alone, run.device, config)

        def step(net: torch.nn.Module, with_teacher: Teacher | None) -> Step:
            optimiser = Optimiser(config.optimiser, net.named_parameters())
            loss = TaskLoss(config.loss, recipe, run.device)
            return Step(net, loss, optimiser, config, recipe, Ranks(), with_teacher, run.device)

        of_supernet, of_alone = step(run.net, Teacher(teacher, 1.0)), step(alone, None)
        x = torch.randn(arguments.batch, 3, *arguments.size, device=run.device)
        x = x.contiguous(memory_format=torch.channels_last)

        def forward(x: torch.Tensor = x) -> None:
            with torch.no_grad(), torch.autocast(run.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                teacher(x)

        sampled, single, looked = seconds(
            lambda s=of_supernet, p=spec: s([p], batch, 1.0),  # type: ignore[misc]
            lambda s=of_alone, p=spec: s([p], batch, 1.0),  # type: ignore[misc]
            forward,
        )
        row = {
            "slot": run.sampling.groups[slot].name,
            "gmacs": run.frame.space.cost(spec).gmacs,
            "sampled_with_teacher_s": sampled,
            "alone_s": single,
            "teacher_forward_s": looked,
            "ratio": sampled / (single + looked),
        }
        rows.append(row)
        print(
            f"{row['slot']:18} {row['gmacs']:6.3f} x 2^30 MACs  sampled + teacher {sampled:6.3f} s  "
            f"alone {single:6.3f} s  teacher {looked:6.3f} s  ratio {row['ratio']:5.3f}"
        )
    if arguments.out is not None:
        shape = {
            key: getattr(arguments, key) for key in ("task", "width", "modules", "size", "batch", "precision", "device")
        }
        document = {"rows": rows, **shape, "threads": torch.get_num_threads(), "machine": fingerprint()}
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
