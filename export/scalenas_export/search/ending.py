"""The end of a search: the best are measured again, in fresh processes, and become bundles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from scalenas.search import Study, Trial
from scalenas.search.objectives import MeasureFailed
from scalenas_export.search.deployment import deployed
from scalenas_export.search.finalists import Entry, confirm, contenders, excess
from scalenas_export.search.live import Live
from scalenas_export.search.progress import Front
from scalenas_export.search.request import Finalist
from scalenas_export.search.view import View
from scalenas_runtime.errors import UserError
from scalenas_runtime.measure import MeasuringFailed
from scalenas_runtime.measure import Plan as MeasurePlan
from scalenas_runtime.targets import EngineConfig

# Further rounds with other nets, where none of those that were measured again keeps the budget.
CONFIRMATIONS = 2


def confirm_best(
    live: Live, study: Study, view: View, stop: Callable[[], bool], finalists: list[Finalist], lost: list[str]
) -> None:
    """Adds finalists of every target: the best found, in further rounds if none keeps the budget, then members.

    Args:
        live: The instruments; the devices' locks are free.
        study: What was found.
        view: Is told what is measured.
        stop: Asked before every round; true ends the measuring.
        finalists: Takes what was measured; complete as far as it goes when an error ends this.
        lost: Takes a line about every net that could not be measured.
    """
    limit = live.request.latency_ms
    for config, front in _fronts(live):
        if not any(trial.state == "complete" for trial in study.trials):
            # Nothing meets the budget; the closest candidates say more than a member measured again.
            break
        own: list[Finalist] = []
        shown = _members(live, study.trials, config, front)
        left_out = {trial.number for trial in study.trials if trial.candidate.digest in live.plan.members}
        limits = dict(live.plan.limits)
        for number in range(1 + CONFIRMATIONS):
            if stop():
                break
            trials = contenders(study.trials, front, count=live.request.finalists, limits=limits, left_out=left_out)
            entries = [_entry(live, trial, config, member=False) for trial in trials] + (shown if number == 0 else [])
            if not entries:
                break
            names = ", ".join(entry.label for entry in entries)
            view.note(f"measuring {names} again on {config.target}, at grade {live.request.final_grade}")
            budget = limit if live.request.promise else None
            done = confirm(
                entries,
                live.request.question,
                budget=budget,
                grade=live.request.final_grade,
                plan=MeasurePlan(timeout=live.request.device_timeout),
                lost=lost,
            )
            finalists += done
            own += [each for each in done if not each.member]
            if budget is None or not own or any(each.keeps for each in own):
                break
            limits[front.cost] = budget / excess(own, front)
            left_out |= {trial.number for trial in trials}
    finalists.sort(key=lambda each: (each.member, not each.member and not each.keeps))


def failure_of(lost: Sequence[str]) -> UserError | None:
    """Returns the error that a search ends with when finalists could not be measured."""
    if not lost:
        return None
    return MeasuringFailed(
        f"{'; '.join(lost)}. All else is written; the same command with --resume measures them again"
    )


def export_best(live: Live, finalists: Sequence[Finalist], view: View, bundles: dict[str, Path]) -> None:
    """Writes bundles of each target's best finalists that keep the budget, by the full export.

    Where no found net is among them, a member that is not the reference may be what was looked for. A bundle of an
    earlier end of the same search is replaced. `bundles` takes their paths by label.

    Raises:
        CheckFailed: a bundle fails its parity ladder.
        UserError: a bundle cannot be made.
    """
    for config in live.request.configs:
        own = [each for each in finalists if each.target == str(config.target)]
        fit = [each for each in own if each.keeps is not False and not each.reference]
        chosen = [each for each in fit if not each.member] or fit
        for finalist in chosen[: live.request.export_best]:
            _export(live, finalist, view, bundles)


def _export(live: Live, finalist: Finalist, view: View, bundles: dict[str, Path]) -> None:
    from scalenas_export.export_bundle import ExportRequest, export_bundle
    from scalenas_export.packing import Wanted

    of = deployed(live.frame.space, live.frame.recipe, finalist.trial.spec, finalist.trial.choices)
    name = re.sub(r"[^a-zA-Z0-9.]+", "-", f"{finalist.label} {finalist.config.target}").strip("-").lower()
    wanted = Wanted(name, (finalist.config.target,), live.request.folder / f"{name}.bundle", overwrite=True)
    view.note(f"exporting {finalist.label} to {wanted.out}")
    export_bundle(
        ExportRequest(
            of.spec,
            of.recipe,
            wanted,
            live.frame.found,
            live.calibration(of.recipe),
            live.frame.statistics,
            failures=live.request.folder / "failures",
        ),
        progress=view.note,
    )
    several = len(live.request.configs) > 1
    bundles[f"{finalist.label} on {finalist.config.target}" if several else finalist.label] = wanted.out


def _fronts(live: Live) -> list[tuple[EngineConfig, Front]]:
    by_target = {front.title: front for front in live.plan.fronts}
    return [
        (config, by_target[str(config.target)]) for config in live.request.configs if str(config.target) in by_target
    ]


def _members(live: Live, trials: Sequence[Trial], config: EngineConfig, front: Front) -> list[Entry]:
    """Returns the reference member and the best other member within the budget, with their accuracies.

    Where precision or size is searched, the reference is that of the first values, and a member at other values is
    another one.
    """
    first = live.frame.deployments[0]
    named = [each for each in trials if each.candidate.digest in live.plan.members]
    chosen = [
        each
        for each in named
        if live.plan.members[each.candidate.digest] == live.frame.reference and dict(each.choices) == first
    ][:1]
    others = [each for each in named if front.gain in each.values and each not in chosen]
    reference = bool(chosen)
    if others:
        chosen.append(max(others, key=lambda each: each.values[front.gain]))
    entries = []
    for place, each in enumerate(chosen):
        # Over the budget, so the search did not ask; the table compares with it all the same.
        trial = each if front.gain in each.values else _with_accuracy(live, each, config, front)
        entries.append(_entry(live, trial, config, member=True, reference=reference and place == 0))
    return entries


def _with_accuracy(live: Live, trial: Trial, config: EngineConfig, front: Front) -> Trial:
    try:
        measured = live.evaluator.accuracy(config)(trial.candidate)
    except MeasureFailed:
        return trial
    assert not isinstance(measured, float)
    return replace(
        trial,
        values={**trial.values, front.gain: measured.value},
        details={**trial.details, front.gain: measured.details},
    )


def _entry(live: Live, trial: Trial, config: EngineConfig, *, member: bool, reference: bool = False) -> Entry:
    path = live.folder / f"finalist-{trial.number}.onnx"
    recipe = live.evaluator.write_graph(trial.spec, trial.choices, path)
    return Entry(live.plan.label(trial), trial, config, path, recipe, member, reference)
