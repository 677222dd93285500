"""When candidate and reference have taken turns enough, with a process whose machine is made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from scalenas_export.search.bracket import LEAST_SLICES, Bracket
from scalenas_export.search.turns import LONG_SECONDS, PATIENCE, SLICE_SAMPLES, SLICE_SECONDS, take_turns
from scalenas_runtime.measure.job import PRECISION, MeasureJob, Opened, Slice, Turn
from scalenas_runtime.measure.warmup import WarmUp
from scalenas_runtime.targets import EngineConfig

RATIO = 1.25
CONFIG = EngineConfig.from_json({"target": "openvino:cpu/fp32"})


@dataclass(slots=True)
class Machine:
    """Gives slices: the reference takes `milliseconds`, the candidate 1.25 times as long, both `wobble` from slice to
    slice, both slower by `slope` with every slice, and with pauses as a camera of `pace` frames leaves them."""

    milliseconds: float
    wobble: float = 0.0
    slope: float = 0.0
    pace: float | None = None
    asked: list[Sequence[Turn]] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))
    taken: int = 0

    def interleave(self, turns: Sequence[Turn], *, timeout: float = 0.0) -> list[Slice]:
        self.asked.append(turns)
        found = []
        for turn in turns:
            self.taken += 1
            own = RATIO if turn.id == "candidate" else 1.0
            each = self.milliseconds * own * (1 + self.slope * self.taken) * (1 + self.wobble * self.rng.normal())
            frame = each if self.pace is None else 1000 / self.pace
            count = max(turn.samples, int(np.ceil(1000 * turn.seconds / frame)))
            found.append(Slice([each] * count, count * frame / 1000, None, {}))
        return found

    def turns(self, job: MeasureJob) -> tuple[list[Slice], Bracket]:
        return take_turns(self.interleave, ("candidate", "reference"), job=job, opened=self.opened, timeout=1.0)

    @property
    def opened(self) -> Opened:
        warm = WarmUp(seconds=0.2, iterations=round(200 / (RATIO * self.milliseconds)), steady=True)
        return Opened(True, 0.1, "", "", {}, warm)


@pytest.mark.parametrize("milliseconds", [0.5, 2.0, 10.0, 200.0])
@pytest.mark.parametrize("stat", ["median", "p95"])
def test_a_quiet_machine_gives_the_grade_and_no_more(milliseconds: float, stat: str) -> None:
    machine = Machine(milliseconds)
    job = MeasureJob(Path("m.onnx"), CONFIG, "search", stat=stat)
    slices, found = machine.turns(job)
    seconds, samples = job.wanted
    assert found.ratio == pytest.approx(RATIO)
    assert sum(part.seconds for part in slices) >= seconds
    assert sum(len(part.milliseconds) for part in slices) >= samples
    without = slices[: len(slices) - 1]
    enough = sum(part.seconds for part in without) >= seconds and sum(map(_count, without)) >= samples
    assert len(slices) == LEAST_SLICES or not enough
    for turns in machine.asked:
        assert [turn.id for turn in turns] == ["reference", *["candidate", "reference"] * (len(turns) // 2)]


@pytest.mark.parametrize("milliseconds", [2.0, 20.0])
def test_engines_that_take_long_take_short_turns(milliseconds: float) -> None:
    machine, long = Machine(milliseconds), milliseconds > 1000 * LONG_SECONDS
    machine.turns(MeasureJob(Path("m.onnx"), CONFIG, "search"))
    assert {turn for turns in machine.asked for turn in turns} == {
        Turn("reference", 0.0 if long else SLICE_SECONDS, 1),
        Turn("candidate", SLICE_SECONDS, SLICE_SAMPLES, settle=not long),
    }


@pytest.mark.parametrize("stat", ["median", "p95"])
def test_pauses_count_as_time(stat: str) -> None:
    machine = Machine(2.0, pace=15.0)
    job = MeasureJob(Path("m.onnx"), CONFIG, "search", "paced@15", stat)
    slices, _ = machine.turns(job)
    assert len(machine.asked) == 1
    assert len(slices) == -(-job.wanted[1] // SLICE_SAMPLES)


def test_a_steady_drift_asks_for_no_more_turns() -> None:
    quiet, drifting = Machine(2.0), Machine(2.0, slope=0.01)
    job = MeasureJob(Path("m.onnx"), CONFIG, "search")
    counts = []
    for machine in (quiet, drifting):
        slices, found = machine.turns(job)
        counts.append(len(slices))
        assert found.ratio == pytest.approx(RATIO, rel=0.01)
    assert counts[1] <= counts[0]


def test_turns_go_on_until_the_ratio_is_known_or_patience_ends() -> None:
    job = MeasureJob(Path("m.onnx"), CONFIG, "search")
    counts, errors = [], []
    for wobble in (0.005, 0.06, 0.5):
        machine = Machine(2.0, wobble=wobble)
        slices, found = machine.turns(job)
        counts.append(len(slices))
        errors.append(found.error / found.ratio)
    assert counts[0] < counts[1] <= counts[2]
    assert errors[0] <= PRECISION
    assert errors[1] <= PRECISION
    assert errors[2] > PRECISION
    first = sum(turn.id == "candidate" for turn in machine.asked[0])
    assert PATIENCE * first <= counts[2] <= PATIENCE * (first + 4)


def _count(part: Slice) -> int:
    return len(part.milliseconds)
