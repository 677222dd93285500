"""Two gloo processes against one with the same global batch: seconds a step, and how far the weights end apart.

    python benchmarks/bench_two_processes.py [--steps 20] [--batch 8] [--width 8] [--out FILE.json]

A small pose supernet on drawn people, fp32, one thread for each process. With two cores the processes share
them with all else that runs. Plain SGD at a small rate: over few pixels BN blows rounding errors up with every
step. How far that goes shows a control: one process on two threads, which sum in another order.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from scalenas_runtime.canonical import pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python")
COMMAND = (str(Path(sys.executable).with_name("scalenas-export")), "train")


def config(folder: Path, arguments: argparse.Namespace) -> Path:
    """Writes the recipe and its data, and returns the recipe's file."""
    data = folder / "people.yaml"
    scenes = {"kind": "synthetic", "seed": 1, "count": 400}
    data.write_text(json.dumps({"task": "pose", "set": "lspet-14", "train": [scenes], "splits": {"search": 0.05}}))
    settings = {"width": arguments.width, "modules": [1, 1, 1], "depths": [1, 2], "stage1_blocks": 1}
    value = {
        "phase": "supernet",
        "name": "two-processes",
        "model": {"size": [128, 96], "settings": settings},
        "data": {"path": data.name, "workers": 0},
        "schedule": {"steps": arguments.steps, "shape": "constant"},
        "optimiser": {"kind": "sgd", "lr": 0.01},
        "batch": arguments.batch,
        "precision": "fp32",
        "device": "cpu",
        "log_steps": 1,
        "checkpoint_steps": arguments.steps,
        "evaluation": {"calibration": 8, "members": False, "limit": 2},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(value))
    return path


def train(recipe: Path, out: Path, launcher: tuple[str, ...] = (), *, threads: int = 1) -> dict[str, Any]:
    """Trains, and returns the median pictures a second and the weights."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [*launcher, *COMMAND, str(recipe), "--out", str(out)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rates = sorted(line["pictures_per_second"] for line in lines if "pictures_per_second" in line)
    return {"rate": rates[len(rates) // 2], "weights": load_file(out / "weights.safetensors")}


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Returns the largest difference of a weight of two trainings."""
    pairs = ((value, other["weights"][key]) for key, value in one["weights"].items())
    return max(float(torch.max(torch.abs(a - b))) for a, b in pairs)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8, help="Pictures of a step over all processes.")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="Trainings of each kind, in turns.")
    parser.add_argument("--out", type=Path, default=RESULTS / "two_processes.json")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"one": [], "two": []}
    differences: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        recipe = config(Path(name), arguments)
        for number in range(arguments.rounds):
            one = train(recipe, Path(name) / f"one{number}")
            two = train(recipe, Path(name) / f"two{number}", TORCHRUN)
            for key, result in (("one", one), ("two", two)):
                seconds[key].append(arguments.batch / result["rate"])
            differences.append(apart(one, two))
        control = apart(one, train(recipe, Path(name) / "control", threads=2))
    medians = {key: sorted(values)[len(values) // 2] for key, values in seconds.items()}
    ratio = medians["two"] / medians["one"]
    print(f"one process {medians['one']:.3f} s a step, two {medians['two']:.3f} s: {ratio:.2f} times")
    print(
        f"largest difference of a weight after {arguments.steps} steps: {max(differences):.1e}; between one process on "
        f"one and on two threads: {control:.1e}"
    )
    record: dict[str, Any] = {
        "steps": arguments.steps,
        "batch": arguments.batch,
        "width": arguments.width,
        "seconds": seconds,
        "ratio": ratio,
        "largest_difference": max(differences),
        "difference_of_threads": control,
        "machine": fingerprint(),
    }
    write_text(arguments.out, pretty_json(record))


if __name__ == "__main__":
    main()
