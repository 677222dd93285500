"""Which nets are measured again and exported, with several targets and with searched precisions; when to give up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scalenas.search.candidates import Trial, make_candidate
from scalenas_export.search import ending
from scalenas_export.search.progress import Front
from scalenas_export.search.request import Finalist
from scalenas_export.search.setup import Frame, enqueued
from scalenas_export.search.view import LineView
from scalenas_export.search.watch import FAILURES, HOPELESS, Watch
from scalenas_runtime.targets import EngineConfig, Target
from tests.export.search.made_trials import SETTINGS, SPACE, made, plan

ONE, TWO = "openvino:cpu/fp32", "onnxruntime:cpu/fp32"
MEMBERS = {"hrnet-w4": SPACE.pattern(SETTINGS)[1], "min": SPACE.min(SETTINGS)}  # type: ignore[index]


def frame(**choices: tuple[str, ...]) -> Frame:
    return Frame(cast(Any, None), SPACE, cast(Any, None), MEMBERS, choices, "measured")


def trial(number: int, name: str, choices: dict[str, str], **changed: Any) -> Trial:
    candidate = make_candidate(SPACE, number, MEMBERS[name], choices, identity="made")
    return replace(made(number, 5.0, 0.5), candidate=candidate, **changed)


def smallest(number: int, precision: str, interval: tuple[float, float]) -> Trial:
    details = {"latency": {"interval": list(interval)}}
    return trial(number, "min", {"precision": precision}, state="infeasible", values={"latency": 12.5}, details=details)


def named_plan() -> Any:
    members = {SPACE.live(spec).digest: name for name, spec in MEMBERS.items()}
    return plan([made(0, 1.0, 0.5)], members=members)


def test_reference_and_smallest_net_are_tried_at_every_precision() -> None:
    asked = enqueued(cast(Any, SimpleNamespace(enqueue=())), _frame_with_recipe(precision=("fp32", "bf16")))
    names = {spec.digest: name for name, spec in MEMBERS.items()}
    assert [(names[each.spec.digest], dict(each.choices)) for each in asked] == [
        ("hrnet-w4", {}),
        ("min", {}),
        ("hrnet-w4", {"precision": "bf16"}),
        ("min", {"precision": "bf16"}),
    ]


def test_other_sizes_than_the_trainings_are_named() -> None:
    assert "trained at 64x64: at 96x64, 32x32 it" in _frame_with_recipe(size=("96x64", "64x64", "32x32")).other_sizes
    assert _frame_with_recipe(size=("64x64",)).other_sizes == ""
    assert _frame_with_recipe().other_sizes == ""


def test_a_budget_is_out_of_reach_when_the_smallest_net_breaks_it_at_every_precision() -> None:
    said: list[str] = []
    watch = Watch(frame(precision=("fp32", "bf16")), LineView(said.append), lambda: False)
    begun = [made(number, 13.0, None, state="infeasible") for number in range(1, HOPELESS)]
    trials = [*begun, smallest(HOPELESS, "fp32", (12.1, 12.9))]
    watch.view.begin(named_plan())
    study = cast(Any, SimpleNamespace(trials=trials, limits={"latency": 12.0}))
    watch.on_trial(study, trials[-1])
    assert not watch.stop()
    # Over the budget, but its interval is not.
    trials.append(smallest(HOPELESS + 1, "bf16", (11.9, 12.9)))
    watch.on_trial(study, trials[-1])
    assert not watch.stop()
    assert not any("the search ends here" in line for line in said)
    trials[-1] = smallest(HOPELESS + 1, "bf16", (12.1, 12.9))
    watch.on_trial(study, trials[-1])
    watch.on_trial(study, trials[-1])
    assert watch.stop()
    assert sum("the search ends here" in line for line in said) == 1


def test_a_device_that_fails_again_and_again_ends_the_search() -> None:
    watch = Watch(frame(), LineView(lambda _: None), lambda: False)
    watch.view.begin(named_plan())
    study = cast(Any, SimpleNamespace(trials=[], limits={}))
    for number in range(FAILURES - 1):
        watch.on_trial(study, made(number, 5.0, None, state="failed", failure=f"it hung, {number}"))
    watch.on_trial(study, made(FAILURES, 5.0, 0.5))
    assert not watch.stop()
    for number in range(FAILURES):
        assert watch.broken is None
        watch.on_trial(study, made(number, 5.0, None, state="failed", failure=f"it hung, {number}"))
    assert watch.stop()
    assert str(watch.broken).endswith(f"the last one: it hung, {FAILURES - 1}")


def test_the_slow_way_is_told_once_with_its_reason() -> None:
    said: list[str] = []
    watch = Watch(frame(), LineView(said.append), lambda: False)
    watch.view.begin(named_plan())
    slow = replace(made(1, 5.0, 0.5), details={"latency": {"slow_graph": "no emitter for layer Odd"}})
    study = cast(Any, SimpleNamespace(trials=[slow], limits={}))
    watch.on_trial(study, made(2, 5.0, 0.5))
    assert not any("full export" in line for line in said)
    watch.on_trial(study, slow)
    watch.on_trial(study, slow)
    told = [line for line in said if "full export" in line]
    assert len(told) == 1
    assert told[0].endswith("no emitter for layer Odd")


def test_a_member_at_another_precision_is_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    live = SimpleNamespace(frame=frame(precision=("fp32", "bf16")), plan=named_plan())
    monkeypatch.setattr(
        ending,
        "_entry",
        lambda _, trial, __, *, member, reference=False: SimpleNamespace(
            trial=trial, member=member, reference=reference
        ),
    )
    fast = trial(2, "hrnet-w4", {"precision": "bf16"}, values={"latency": 3.0, "accuracy": 0.6})
    trials = [
        trial(0, "hrnet-w4", {"precision": "fp32"}),
        trial(1, "min", {"precision": "fp32"}),
        fast,
        trial(3, "hrnet-w4", {"precision": "int8"}, values={"latency": 9.0}, state="infeasible"),
    ]
    front = Front(ONE, "latency", "accuracy")
    found = ending._members(cast(Any, live), trials, EngineConfig(Target.parse(ONE)), front)
    assert [(each.trial.number, each.member, each.reference) for each in found] == [(0, True, True), (2, True, False)]


def test_every_target_gets_its_own_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[tuple[str, str]] = []
    monkeypatch.setattr(ending, "_export", lambda _, each, *__: exported.append((each.label, each.target)))

    def found(label: str, target: str, *, member: bool = False, reference: bool = False, keeps: bool = True) -> Any:
        config = EngineConfig(Target.parse(target))
        figures = (5.0, (4.9, 5.1), None, keeps)
        return Finalist(label, made(1, 5.0, 0.5), config, cast(Any, None), *figures, target, member, reference)

    finalists = [
        found("trial 7", ONE),
        found("trial 8", ONE),
        found("trial 9", ONE, keeps=False),
        found("hrnet-w4 precision=fp32", TWO, member=True, reference=True),
        found("hrnet-w4 precision=bf16", TWO, member=True),
    ]
    configs = tuple(EngineConfig(Target.parse(text)) for text in (ONE, TWO))
    live = SimpleNamespace(request=SimpleNamespace(configs=configs, export_best=1))
    ending.export_best(cast(Any, live), finalists, LineView(lambda _: None), {})
    assert exported == [("trial 7", ONE), ("hrnet-w4 precision=bf16", TWO)]


def test_a_stop_ends_the_measuring_of_finalists(tmp_path: Path) -> None:
    config = EngineConfig(Target.parse(ONE))
    live = SimpleNamespace(
        request=SimpleNamespace(configs=(config,), latency_ms=6.0, finalists=3),
        frame=frame(),
        plan=plan([made(0, 5.0, 0.5)], members={}),
        folder=tmp_path,
    )
    finalists: list[Finalist] = []
    study = SimpleNamespace(trials=[made(1, 5.0, 0.5)])
    ending.confirm_best(cast(Any, live), cast(Any, study), LineView(lambda _: None), lambda: True, finalists, [])
    assert finalists == []


def _frame_with_recipe(**choices: tuple[str, ...]) -> Frame:
    return replace(frame(**choices), recipe=cast(Any, SimpleNamespace(height=64, width=64)))
