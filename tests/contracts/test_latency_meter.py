"""`LatencyMeter` on real engines: figures, and devices that refuse, die or hang in mid-measurement."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from scalenas.search import MeasureFailed
from scalenas_export.search.meter import LatencyMeter, LatencyQuestion
from scalenas_runtime.errors import UserError
from scalenas_runtime.targets import EngineConfig, Target
from tests.child_processes import children_with
from tests.contracts.conftest import TinyModels

CONFIG = EngineConfig(Target.parse("onnxruntime:cpu/fp32"), threads=1)
# Far more than an answer takes on a busy machine: only a process that is stopped needs longer.
PATIENCE = 20.0


@contextmanager
def opened(models: TinyModels, folder: Path, *, timeout: float = 120.0) -> Iterator[LatencyMeter]:
    with LatencyMeter([CONFIG], reference=models.path("one"), folder=folder, timeout=timeout) as meter:
        yield meter


def measuring_processes() -> list[psutil.Process]:
    return children_with("--serve")


def signalled(number: signal.Signals) -> int:
    """Sends a signal to all measuring processes of this one and returns how many there are."""
    processes = measuring_processes()
    for process in processes:
        process.send_signal(number)
    return len(processes)


def test_a_figure_is_the_ratio_times_the_headline(tiny_models: TinyModels, tmp_path: Path) -> None:
    with opened(tiny_models, tmp_path) as meter:
        headline = meter.open(CONFIG)
        found = meter.measure(tiny_models.path("one"), CONFIG)
    details = found.details
    samples = details["milliseconds"]
    assert isinstance(samples, list)
    assert len(samples) >= 30
    assert details["samples"] == len(samples)
    ratio, low, high = (float(str(value)) for value in (details["ratio"], *_pair(details["ratio_interval"])))
    assert low <= ratio <= high
    assert found.value == ratio * headline
    assert details["interval"] == [low * headline, high * headline]
    assert details["headline_ms"] == headline
    assert headline > 0
    assert measuring_processes() == []


def test_the_headline_of_an_earlier_part_is_kept(tiny_models: TinyModels, tmp_path: Path) -> None:
    given = {str(CONFIG.target): 7.5}
    reference = tiny_models.path("one")
    with LatencyMeter([CONFIG], reference=reference, folder=tmp_path, headlines=given) as meter:
        assert meter.open(CONFIG) == 7.5
        found = meter.measure(reference, CONFIG)
    assert found.value == float(str(found.details["ratio"])) * 7.5


def test_a_devices_engines_are_on_one_scale(tiny_models: TinyModels, tmp_path: Path) -> None:
    other = EngineConfig(Target.parse("openvino:cpu/fp32"), threads=1)
    given = {str(CONFIG.target): 1e6}
    reference = tiny_models.path("one")
    with LatencyMeter([CONFIG, other], reference=reference, folder=tmp_path, headlines=given) as meter:
        headline = meter.open(other)
        found = meter.measure(reference, other)
    # Measured by itself, a tiny net takes a fraction of a millisecond.
    assert headline > 1e4
    assert found.value == float(str(found.details["ratio"])) * headline


def test_a_process_that_died_is_replaced(tiny_models: TinyModels, tmp_path: Path) -> None:
    with opened(tiny_models, tmp_path) as meter:
        meter.open(CONFIG)
        assert signalled(signal.SIGKILL) == 1
        found = meter.measure(tiny_models.path("one"), CONFIG)
        again = meter.measure(tiny_models.path("one"), CONFIG)
    assert found.value > 0
    assert "measuring process" in str(found.details["retried"])
    assert "retried" not in again.details


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_and_replaced(tiny_models: TinyModels, tmp_path: Path) -> None:
    with opened(tiny_models, tmp_path, timeout=PATIENCE) as meter:
        meter.open(CONFIG)
        hanging = measuring_processes()
        assert signalled(signal.SIGSTOP) == 1
        assert meter.measure(tiny_models.path("one"), CONFIG).value > 0
        assert not hanging[0].is_running()


def test_a_device_that_dies_twice_fails_the_candidate_and_not_the_next(tiny_models: TinyModels, tmp_path: Path) -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            signalled(signal.SIGKILL)
            time.sleep(0.02)

    with opened(tiny_models, tmp_path) as meter:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(MeasureFailed, match=r"onnxruntime:cpu/fp32: failed twice, in two processes: "):
                meter.measure(tiny_models.path("one"), CONFIG)
        finally:
            over.set()
            killer.join()
        assert meter.measure(tiny_models.path("one"), CONFIG).value > 0


def test_a_model_that_the_engine_refuses_fails_alone(tiny_models: TinyModels, tmp_path: Path) -> None:
    with opened(tiny_models, tmp_path) as meter:
        with pytest.raises(MeasureFailed):
            meter.measure(tiny_models.path("text"), CONFIG)
        assert meter.measure(tiny_models.path("one"), CONFIG).value > 0


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ({"boundary": "moon"}, "unknown boundary 'moon'"),
        ({"stat": "mean"}, "unknown stat 'mean'"),
        ({"persons": 0}, "persons must be at least 1, got 0"),
    ],
)
def test_questions_without_an_answer(question: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        LatencyQuestion(**question)  # type: ignore[arg-type]


def test_a_question_says_all_of_itself() -> None:
    assert str(LatencyQuestion("pipeline", "p95", 3)) == "p95 of pipeline, 3 persons"


def _pair(value: object) -> list[object]:
    assert isinstance(value, list)
    return value
