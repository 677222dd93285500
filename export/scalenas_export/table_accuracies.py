"""Accuracies of a table's nets on the `search` split: judged one after the other, kept line by line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas.registry import get_space
from scalenas.table.accuracies import Accuracy, append, read
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas.spec import SubnetSpec
    from scalenas.transferred_statistics import Rule
    from scalenas.weights import Weights


@dataclass(frozen=True, slots=True)
class AccuracyPlan:
    """What is judged.

    Attributes:
        weights: The supernet's.
        nets: Nets of its family.
        file: Lines that are kept; it is added to, by several processes if need be.
        data: Description of the data (YAML).
        root: Folder that the description's sources start at.
        calibration: Pictures for BN statistics, which every net gets anew.
        device: torch's name of where nets are judged, in fp32; no engine is needed.
    """

    weights: Weights
    nets: Sequence[SubnetSpec]
    file: Path
    data: str
    root: str | None = None
    calibration: int = 256
    device: str = "cpu"

    @property
    def statistics(self) -> Rule:
        """How the BN statistics of a net come from these pictures."""
        from scalenas.transferred_statistics import rule_for

        return rule_for(self.weights)

    def covers(self, entry: Accuracy) -> bool:
        """Returns whether an entry of the file is one of this plan's, as far as can be said without the pictures."""
        wanted = (self.weights.digest, Path(self.data).name, self.calibration, self.statistics)
        return tuple(entry.run.get(key) for key in ("weights", "data", "calibration", "statistics")) == wanted


def judge_accuracies(
    plan: AccuracyPlan, *, seconds: float | None = None, progress: Callable[[int], object] | None = None
) -> int:
    """Returns how many accuracies are still missing when all are known, or after so many seconds.

    Args:
        plan: What is judged.
        seconds: No net is begun after so long.
        progress: Called before the first net with 0, and with 1 after each.

    Raises:
        UserError: the data cannot be read or do not fit the weights' recipe, or the file holds other lines.
    """
    import torch

    from scalenas.data.dataset import open_dataset
    from scalenas.inheriting import inherit
    from scalenas.table.batched import BatchedJudge
    from scalenas.training.judge import judge_of

    # TF32 would move accuracies by more than two nets of a table differ.
    torch.backends.cudnn.allow_tf32 = False
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    recipe = plan.weights.recipe
    if recipe is None:
        raise UserError("the weights have no recipe, so no picture can be judged")
    dataset = open_dataset(plan.data, root=plan.root)
    weights = plan.weights.to(plan.device)
    judge = judge_of(dataset, recipe, "search", calibration=plan.calibration, device=torch.device(plan.device))
    batched = BatchedJudge(judge, get_space(weights.space), weights, statistics=plan.statistics)
    run: dict[str, int | str] = {
        "weights": plan.weights.digest,
        "data": Path(plan.data).name,
        "pictures": len(judge.data),
        "calibration": plan.calibration,
        "statistics": plan.statistics,
    }
    known = {entry.spec for entry in read(plan.file) if entry.fits(run)} if plan.file.exists() else set()
    missing = [spec for spec in plan.nets if spec.digest not in known]
    if progress is not None:
        progress(0)
    for done, spec in enumerate(missing):
        if time.monotonic() >= deadline:
            return len(missing) - done
        append(plan.file, Accuracy.of(spec, batched.judge(inherit(weights, spec)), run))
        if progress is not None:
            progress(1)
    return 0
