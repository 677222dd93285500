"""Learning rate as a function of the step alone, so that resuming needs no state."""

from __future__ import annotations

import math

from scalenas.training.config import ScheduleConfig


def rate_factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """Returns the learning rate of a step as a factor of the largest one.

    Args:
        schedule: The course.
        step: 0-based number of the step.
        steps: All steps of the run.
    """
    warm = round(schedule.warmup * steps)
    if step < warm:
        share = step / warm
        if schedule.shape == "one-cycle":
            share = (1 - math.cos(math.pi * share)) / 2
        return schedule.start + (1 - schedule.start) * share
    # The last step is at the end of the course for cosines, one step before it for poly, which would end at zero.
    rest = steps - warm
    if schedule.shape in ("one-cycle", "cosine"):
        share = (step - warm) / max(rest - 1, 1)
        return schedule.end + (1 - schedule.end) * (1 + math.cos(math.pi * share)) / 2
    if schedule.shape == "poly":
        return math.pow(1 - (step - warm) / rest, schedule.power)
    if schedule.shape == "step":
        return math.pow(schedule.gamma, sum(step >= round(share * steps) for share in schedule.milestones))
    return 1.0


def total_steps(schedule: ScheduleConfig, samples: int, batch: int) -> int:
    """Returns the steps of a run: those asked for, or the epochs' over `samples` with `batch` pictures a step."""
    if schedule.steps is not None:
        return schedule.steps
    assert schedule.epochs is not None
    return max(1, round(schedule.epochs * samples / batch))
