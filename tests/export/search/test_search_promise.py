"""What is said about a budget, and what becomes of finalists that cannot be measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scalenas_export.demo import _missed
from scalenas_export.search import finalists as finalists_module
from scalenas_export.search.data import DataSource
from scalenas_export.search.ending import failure_of
from scalenas_export.search.finalists import Entry, check_promise, confirm
from scalenas_export.search.meter import LatencyQuestion
from scalenas_export.search.request import Finalist, SearchRequest, SearchResult
from scalenas_export.search.wording import promise
from scalenas_runtime.errors import CheckFailed, NothingMeetsBudget
from scalenas_runtime.measure import MeasureJob, MeasuringFailed
from scalenas_runtime.targets import EngineConfig, Target
from tests.export.search.made_trials import made

ONE, TWO = "openvino:cpu/fp32", "onnxruntime:cpu/fp32"


def request(*targets: str) -> SearchRequest:
    configs = tuple(EngineConfig(Target.parse(text)) for text in targets)
    return SearchRequest(
        weights="w", configs=configs, folder=Path("out"), latency_ms=6.0, n_trials=1, data=DataSource()
    )


def finalist(label: str, target: str, upper: float, *, member: bool = False) -> Finalist:
    config = EngineConfig(Target.parse(target))
    measurement = cast(Any, None)
    figures = (upper - 0.2, (upper - 0.4, upper), None, upper <= 6.0)
    return Finalist(label, made(1, upper, 0.5), config, measurement, *figures, target, member)


def result(*found: Finalist, failure: Exception | None = None) -> SearchResult:
    study = SimpleNamespace(trials=[made(1, 5.0, 0.5)], closest=lambda _: [])
    return SearchResult(cast(Any, study), cast(Any, None), "finished", found, {}, None, "hrnet-w4", cast(Any, failure))


def test_every_target_has_its_own_promise() -> None:
    asked = request(ONE, TWO)
    both = (finalist("trial 1", ONE, 5.5), finalist("trial 1", TWO, 7.0), finalist("hrnet-w4", TWO, 8.0, member=True))
    first, second = promise(asked, both).splitlines()
    assert first == (
        f"Budget, median of engine_wall at most 6 ms on {ONE}: kept by trial 1 (upper end of the 95 % interval)."
    )
    assert f"on {TWO}: the upper end of no finalist's 95 % interval keeps it" in second
    with pytest.raises(
        NothingMeetsBudget, match=rf"meets 6 ms .* on {TWO}; the closest: trial 1 .*; hrnet-w4"
    ) as error:
        check_promise(asked, result(*both))
    assert ONE not in str(error.value)
    check_promise(asked, result(both[0], finalist("trial 1", TWO, 6.0)))


def test_without_a_second_measurement_nothing_is_promised() -> None:
    assert promise(request(ONE, TWO), ()) == (
        f"Budget, median of engine_wall at most 6 ms on {ONE}, {TWO}: nothing was measured again, so nothing is "
        "promised."
    )
    assert promise(replace(request(ONE), promise=False), ()) == ""


def test_a_member_that_alone_keeps_the_budget_is_named_and_accepted() -> None:
    asked = request(ONE)
    shown = (finalist("trial 1", ONE, 6.1), finalist("min", ONE, 3.0, member=True))
    assert "only the named min keeps it" in promise(asked, shown)
    check_promise(asked, result(*shown))


def test_a_search_that_was_stopped_promises_nothing_yet() -> None:
    stopped = replace(result(), ended="stopped", study=cast(Any, SimpleNamespace(trials=[], closest=lambda _: [])))
    check_promise(request(ONE), stopped)
    with pytest.raises(NothingMeetsBudget, match="none of 0 candidates meets 6 ms"):
        check_promise(request(ONE), replace(stopped, ended="finished"))


def test_a_stopped_demo_missed_nothing_but_says_what_failed() -> None:
    asked = replace(request(ONE), promise=False)
    ended = replace(result(finalist("hrnet-w4", ONE, 5.0, member=True)), ended="finished")
    assert "no found net took at most" in _missed(asked, ended)
    assert _missed(asked, replace(ended, ended="stopped")) == ""
    with pytest.raises(CheckFailed, match="bundle"):
        _missed(asked, replace(ended, ended="stopped", failure=CheckFailed("bundle")))


def test_a_failure_at_the_end_is_raised_after_the_reports() -> None:
    with pytest.raises(CheckFailed, match="bundle"):
        check_promise(request(ONE), result(finalist("trial 1", ONE, 5.0), failure=CheckFailed("bundle")))


def test_finalists_whose_process_dies_are_measured_alone_and_the_bad_one_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[list[str]] = []

    def run_jobs(jobs: list[MeasureJob], _: object) -> list[Any]:
        names = [job.model.stem for job in jobs]
        measured.append(names)
        if "bad" in names:
            raise MeasuringFailed("it hung")
        statistics = SimpleNamespace(median=5.0, interval=(4.9, 5.1))
        return [SimpleNamespace(statistics=statistics) for _ in jobs]

    monkeypatch.setattr(finalists_module, "run_jobs", run_jobs)
    config, told = EngineConfig(Target.parse(ONE)), cast("list[str]", [])
    entries = [
        Entry(name, made(1, 5.0, 0.5), config, Path(f"{name}.onnx"), cast(Any, None), reference=name == "good")
        for name in ("good", "bad", "other")
    ]
    found = confirm(entries, LatencyQuestion(), budget=6.0, lost=told)
    assert measured == [["good", "bad", "other"]] * 2 + [["good"], ["bad"], ["other"]]
    assert [(each.label, each.value, each.keeps, each.ratio) for each in found] == [
        ("good", 5.0, True, None),
        ("other", 5.0, True, None),
    ]
    assert told == [f"bad on {ONE} could not be measured again: it hung"]
    failure = failure_of(told)
    assert isinstance(failure, MeasuringFailed)
    with pytest.raises(MeasuringFailed, match=r"bad on .* could not be measured again: it hung. All else is written"):
        check_promise(request(ONE), result(*found, failure=failure))
    assert failure_of([]) is None
