"""What a run will cost, before it starts: steps, MACs, memory, and hours from a short timing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scalenas.data.loader import Batch
from scalenas.spec import SubnetSpec
from scalenas.training.run import Run
from scalenas.training.schedules import rate_factor
from scalenas_runtime.canonical import Json
from scalenas_runtime.tasks import PoseRecipe, Recipe

# A probe takes as many pictures as make this many MACs, so that a large net on a small machine answers in seconds.
_PROBE_MACS = 6e9
_WARM, _TIMED = 2, 6


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of a run.

    Attributes:
        phase: What is trained.
        steps, passes, samples: Steps of the optimiser, subnets a step, samples of an epoch.
        params: Weights that are trained.
        macs: MACs of one picture as it is trained on: of the largest and of the smallest net, and the mean over the
            first cycle of steps.
        memory: Estimated bytes: weights, gradients, optimiser and teacher; then what the largest subnet keeps for
            its backward with the whole batch of one process.
        seconds: Seconds of a step of one process's part of the batch, without data: timed as it is where `probe` is all
            of it, else a fixed part and one for each picture, from steps of half the probe and of the whole one.
        probe: Pictures of the largest timed steps.
    """

    phase: str
    steps: int
    passes: int
    samples: int
    batch: int
    params: int
    macs: tuple[int, int, float]
    memory: tuple[int, int]
    seconds: float
    probe: int

    @property
    def epochs(self) -> float:
        """Passes over the samples."""
        return self.steps * self.batch / self.samples

    @property
    def hours(self) -> float:
        """Estimated hours of all steps."""
        return self.steps * self.seconds / 3600

    def to_json(self) -> dict[str, Json]:
        """Returns the plan as JSON values."""
        largest, smallest, mean = self.macs
        state, activations = self.memory
        return {
            "phase": self.phase,
            "steps": self.steps,
            "subnets_per_step": self.passes,
            "samples": self.samples,
            "epochs": self.epochs,
            "batch": self.batch,
            "params": self.params,
            "macs": {"largest": largest, "smallest": smallest, "mean": mean},
            "memory_bytes": {"state": state, "activations": activations},
            "seconds_per_step": self.seconds,
            "timed_pictures": self.probe,
            "hours": self.hours,
        }

    def text(self) -> str:
        """Returns the plan for people."""
        largest, smallest, mean = (value / 2**30 for value in self.macs)
        state, activations = (value / 2**30 for value in self.memory)
        return (
            f"phase       {self.phase}, {self.params / 1e6:.2f} M weights\n"
            f"steps       {self.steps} of {self.batch} pictures, {self.epochs:.1f} epochs of {self.samples}, "
            f"{self.passes} subnet{'s' if self.passes > 1 else ''} a step\n"
            f"MACs        {mean:.3f} G a picture in the mean (largest {largest:.3f}, smallest {smallest:.3f})\n"
            f"memory      {state:.2f} GiB of weights and state, {activations:.2f} GiB for the largest subnet's step\n"
            f"time        {self.seconds:.3f} s a step (timed on up to {self.probe} pictures, no data loading)\n"
            f"hours       {self.hours:.2f}\n"
        )


def plan(run: Run) -> Plan:
    """Returns the cost of a run; a few steps are taken, so the run is of no further use.

    Raises:
        CheckFailed: never; a loss that is not finite in the probe says nothing, since its targets are empty.
    """
    config, frame = run.config, run.frame
    space = frame.space
    largest = run.spec or space.max(frame.settings, frame.inputs)
    smallest = run.spec or space.min(frame.settings, frame.inputs)
    cycle = [run.specs(number) for number in range(min(11, run.steps))]
    workload = {"image": (3, *run.supply.size)}
    macs = [space.cost(spec, workload).macs for specs in cycle for spec in specs]
    of_largest, of_smallest = (space.cost(spec, workload).macs for spec in (largest, smallest))
    own = config.batch // run.place.ranks.world
    probe = min(own, max(2, int(_PROBE_MACS / of_largest)))
    batch = _empty_batch(run.supply.recipe, run.supply.size, probe)
    kept = _kept_bytes(run, largest, batch)
    timed = {probe: _seconds(run, cycle, batch)}
    if probe < own:
        half = probe // 2
        timed[half] = _seconds(run, cycle, _empty_batch(run.supply.recipe, run.supply.size, half))
    weights = sum(weight.numel() for weight in run.net.parameters())
    copies = 2 + (1 if config.optimiser.kind == "sgd" else 2)
    teacher = 0 if run.step.teacher is None else sum(each.numel() for each in run.step.teacher.net.parameters())
    return Plan(
        phase=config.phase,
        steps=run.steps,
        passes=len(cycle[0]),
        samples=len(run.supply.samples),
        batch=config.batch,
        params=weights,
        macs=(of_largest, of_smallest, statistics.fmean(macs)),
        memory=(4 * (copies * weights + teacher), kept * own // probe),
        seconds=extrapolated(timed, own),
        probe=probe,
    )


def extrapolated(timed: Mapping[int, float], pictures: int) -> float:
    """Returns the seconds of a step of so many pictures: a fixed part, and the same for each picture.

    Args:
        timed: Seconds by the number of pictures of a step; of that very number, or of two others.
        pictures: How many.
    """
    if pictures in timed:
        return timed[pictures]
    few, many = min(timed), max(timed)
    # Noise must not make a picture cost less than nothing, nor more than its share of the larger step.
    each = min(max((timed[many] - timed[few]) / (many - few), 0.0), timed[many] / many)
    return timed[many] + each * (pictures - many)


def _empty_batch(recipe: Recipe, size: tuple[int, int], count: int) -> Batch:
    pictures = torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8)
    if isinstance(recipe, PoseRecipe):
        joints = len(recipe.joints)
        return Batch(pictures, torch.zeros(count, joints, *recipe.heatmap_size), torch.ones(count, joints))
    labels = torch.randint(0, len(recipe.classes), (count, *size), dtype=torch.uint8)
    return Batch(pictures, labels, None)


def _kept_bytes(run: Run, spec: SubnetSpec, batch: Batch) -> int:
    """Returns the bytes of all tensors that one step of a subnet keeps for its backward."""
    own = {weight.data_ptr() for weight in run.net.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run.step([spec], batch, 0.0)
    return sum(seen.values())


def _seconds(run: Run, cycle: Sequence[Sequence[SubnetSpec]], batch: Batch) -> float:
    taken = []
    for number in range(_WARM + max(_TIMED, len(cycle))):
        start = time.perf_counter()
        run.step(cycle[number % len(cycle)], batch, rate_factor(run.config.schedule, 0, run.steps))
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.fmean(taken[_WARM:])
