"""GPU hours of the published recipes, from step times that `bench_training_step.py` measured on a GPU.

    python benchmarks/gpu_hours.py [--results benchmarks/results] [--write docs/gpu-hours.md]

Reads `gpu-step-*.json`. A step of the teacher is that of the largest net alone, a step of the supernet the mean over
the measured slots of the cycle with the teacher's forward, a step of a tuned net the mean over the same nets alone.
Loading, evaluation and communication between GPUs are not in the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalenas.training.config import TrainConfig, read_config
from scalenas.training.schedules import total_steps
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text

ROOT = Path(__file__).resolve().parents[1]
# People with joints in COCO train2017, and finely labelled pictures of Cityscapes train.
SAMPLES = {"coco": 149_813, "cityscapes": 2_975}
TASKS = {"coco": "pose", "cityscapes": "segmentation"}
# Pictures on one GPU, and the size that a step sees; Cityscapes trains on crops.
MEASURED = {"coco": {32: 32, 48: 32}, "cityscapes": {32: 4, 48: 3}}
MODULES, SLOTS = "1,4,3", 11
SIZES = {"coco": "256x192", "cityscapes": "512x1024"}
PHASES = ("teacher", "supernet", "finetune")
START, END = "<!-- table of gpu_hours.py -->", "<!-- end of table -->"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a recipe costs.

    Attributes:
        name: Of the configuration.
        steps: Of the whole recipe.
        gpus: How many GPUs hold its batch at the measured number of pictures on each.
        seconds: Of a step on one GPU.
        device: What the step was measured on.
    """

    name: str
    steps: int
    gpus: float
    seconds: float
    device: str

    @property
    def hours(self) -> float:
        """GPU hours."""
        return self.steps * self.seconds * self.gpus / 3600


def cost_of(name: str, config: TrainConfig, measured: Mapping[str, Any], samples: int) -> Cost:
    """Returns what a recipe costs at measured step times.

    Args:
        name: Of the configuration.
        config: The recipe.
        measured: What `bench_training_step.py --out` wrote.
        samples: People or pictures of an epoch.
    """
    rows: Sequence[Mapping[str, float]] = measured["rows"]
    seconds = {
        "teacher": max(rows, key=lambda row: row["gmacs"])["alone_s"],
        "supernet": statistics.mean(row["sampled_with_teacher_s"] for row in rows),
        "finetune": statistics.mean(row["alone_s"] for row in rows),
    }[config.phase]
    steps = total_steps(config.schedule, samples, config.batch)
    gpus = measured["machine"]["gpus"]
    device = gpus[0]["name"] if gpus else measured["machine"]["cpu"]["model"]
    return Cost(name, steps, config.batch / measured["batch"], seconds, device)


def costs(results: Path) -> list[Cost]:
    """Returns the costs of all recipes that there are step times for.

    Raises:
        UserError: there are several files for one recipe.
    """
    files = [json.loads(path.read_text()) for path in sorted(results.glob("gpu-step-*.json"))]
    found = []
    for data, task in TASKS.items():
        for width in MEASURED[data]:
            fitting = [each for each in files if _shape_of(each) == shape_of(data, width)]
            if len(fitting) > 1:
                raise UserError(
                    f"{results} has {len(fitting)} files of step times for {task} at width {width}; keep one"
                )
            for phase in PHASES if fitting else ():
                path = ROOT / "configs" / "train" / f"{data}-w{width}-{phase}.yaml"
                if path.exists():
                    found.append(cost_of(path.stem, read_config(path), fitting[0], SAMPLES[data]))
    return found


def shape_of(data: str, width: int) -> dict[str, Any]:
    """Returns what step times must be of, to say something about a published recipe."""
    return {
        "task": TASKS[data],
        "width": width,
        "modules": MODULES,
        "size": [int(side) for side in SIZES[data].split("x")],
        "batch": MEASURED[data][width],
        "precision": "bf16",
        "device": "cuda",
        "slots": SLOTS,
    }


def _shape_of(measured: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("task", "width", "modules", "size", "batch", "precision", "device")
    return {**{key: measured.get(key) for key in keys}, "slots": len(measured["rows"])}


def commands() -> str:
    """Returns the commands that measure what the table needs."""
    lines = []
    for data, widths in MEASURED.items():
        for width, batch in widths.items():
            lines.append(
                f"python benchmarks/bench_training_step.py --device cuda --precision bf16 --task {TASKS[data]} "
                f"--width {width} --modules {MODULES} --size {SIZES[data]} --batch {batch} --slots {SLOTS} "
                f"--out benchmarks/results/gpu-step-{data}-w{width}.json"
            )
    return "\n".join(lines)


def table(found: Sequence[Cost]) -> str:
    """Returns the costs as Markdown, or the words that nothing was measured."""
    if not found:
        return "No step times of a GPU are in `benchmarks/results/`, so there are no hours to show."
    lines = [
        "| recipe | steps | s/step (measured) | GPUs | GPU hours (computed) | measured on |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{each.name}` | {each.steps:,} | {each.seconds:.3f} | {each.gpus:g} | {each.hours:,.0f} | {each.device} |"
        for each in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the table, and writes it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--write", type=Path, help="A page whose table is replaced.")
    arguments = parser.parse_args()
    try:
        text = table(costs(arguments.results))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(text)
    print(f"\nStep times come from:\n{commands()}")
    if arguments.write is not None:
        before, _, rest = arguments.write.read_text().partition(START)
        _, sign, after = rest.partition(END)
        if not sign:
            raise SystemExit(f"{arguments.write} has no place for the table: {START} ... {END}")
        write_text(arguments.write, f"{before}{START}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
