"""The plan of a run: a step has a fixed cost, which a larger batch does not multiply."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalenas.data.loader import Batch
from scalenas.training import plan as planning
from scalenas.training.ranks import Ranks
from scalenas.training.run import Place, Run
from scalenas_runtime.errors import UserError
from tests.nets.training import toys


@pytest.mark.parametrize(
    ("timed", "pictures", "seconds"),
    [
        pytest.param({8: 0.3}, 8, 0.3, id="the batch itself"),
        pytest.param({4: 0.5, 8: 0.6}, 64, 0.4 + 64 * 0.025, id="fixed and for each picture"),
        pytest.param({4: 0.7, 8: 0.6}, 64, 0.6, id="noise: no picture is free of more"),
        pytest.param({4: 0.1, 8: 0.8}, 64, 6.4, id="noise: no fixed part below nothing"),
    ],
)
def test_seconds_of_a_larger_step(timed: dict[int, float], pictures: int, seconds: float) -> None:
    assert planning.extrapolated(timed, pictures) == pytest.approx(seconds)


def test_two_sizes_are_timed_where_the_batch_is_too_large_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(toys.config(batch=64), toys.pose_supply(), Place(tmp_path, quiet=True))
    asked: list[int] = []

    def timed(_: object, __: object, batch: Batch) -> float:
        asked.append(len(batch.pictures))
        return 1 + 0.01 * len(batch.pictures)

    monkeypatch.setattr(planning, "_seconds", timed)
    monkeypatch.setattr(planning, "_PROBE_MACS", 1)
    made = planning.plan(run)
    assert asked == [2, 1]
    assert made.probe == 2
    assert made.seconds == pytest.approx(1.64)


def test_a_batch_that_the_processes_do_not_divide_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the global batch 5 must be a positive multiple of the 2 processes"):
        Run(toys.config(batch=5), toys.pose_supply(), Place(tmp_path, Ranks(0, 2), quiet=True))
