"""Batches for training as tensors: the batch of global step n depends on (seed, n, rank) alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import torch

from scalenas.data.samples import Feed, Samples
from scalenas.data.workers import Arrays, make_batches
from scalenas_runtime.errors import UserError


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of a global step.

    Attributes:
        pictures: uint8 (B, H, W, 3) BGR, not normalised.
        target: Pose: float32 (B, K, h, w) heatmaps. Segmentation: uint8 (B, H, W) labels.
        weight: Pose: float32 (B, K). Segmentation: None.
    """

    pictures: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None


def batches(  # noqa: PLR0913 - what decides a batch, and nothing else
    samples: Samples,
    *,
    batch: int,
    seed: int,
    steps: int,
    first_step: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Generator[Batch, None, None]:
    """Returns an iterator over the batches of `steps` global steps from `first_step` on.

    The run of samples is endless: epoch after epoch in a new order, each sample once an epoch, batches reach over the
    ends. Close the iterator (`contextlib.closing`) to end the workers before it is used up.

    Args:
        samples: Where the samples come from.
        batch: Samples of a global step, over all ranks; each rank takes `batch / world` of them.
        seed: Decides the order and the chance inside the samples.
        steps: How many steps.
        first_step: The first of them, counted over the whole run.
        workers: Processes that make batches ahead; 0 makes each when it is asked for. Changes no batch.
        rank: Which training process this is.
        world: Of how many.

    Raises:
        UserError: no samples, or numbers that do not fit. While iterating: a file that cannot be used, by its name.
        RuntimeError: while iterating: another failure inside a sample, by its name, or a worker's death.
    """
    if len(samples) == 0:
        raise UserError("there are no samples to train on: the split is empty")
    if steps < 0 or first_step < 0 or workers < 0:
        raise UserError(f"steps {steps}, first_step {first_step} and workers {workers} must not be negative")
    feed = Feed(batch, seed, rank, world)
    return _tensors(make_batches(samples, feed, range(first_step, first_step + steps), workers=workers))


def _tensors(made: Generator[Arrays, None, None]) -> Generator[Batch, None, None]:
    with closing(made):
        for arrays in made:
            weight = None if arrays.weight is None else torch.from_numpy(arrays.weight)
            yield Batch(torch.from_numpy(arrays.pictures), torch.from_numpy(arrays.target), weight)
