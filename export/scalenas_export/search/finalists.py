"""Finalists: the best of a search measured again at grade `report`, and what can be promised of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scalenas.search.candidates import Trial
from scalenas_export.search.chart import front_indices
from scalenas_export.search.deployment import chosen_config
from scalenas_export.search.meter import LatencyQuestion
from scalenas_export.search.progress import Front, Plan
from scalenas_export.search.request import Finalist, SearchRequest, SearchResult
from scalenas_runtime.errors import NothingMeetsBudget
from scalenas_runtime.measure import MeasureJob, Measurement, MeasuringFailed, run_jobs
from scalenas_runtime.measure import Plan as MeasurePlan
from scalenas_runtime.measure.job import STATISTICS
from scalenas_runtime.measure.statistics import percentile_interval
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import Recipe

CLOSEST = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """A net that shall be measured again.

    Attributes:
        label: What it is called.
        trial: Its trial.
        config: The engine, before the trial's own precision.
        model: ONNX file of the recalibrated net, batch 1.
        recipe: Its recipe.
        member: It is a named member of the supernet.
        reference: The others' ratios are over this one.
    """

    label: str
    trial: Trial
    config: EngineConfig
    model: Path
    recipe: Recipe
    member: bool = False
    reference: bool = False


def confirm(
    entries: Sequence[Entry],
    question: LatencyQuestion,
    *,
    budget: float | None,
    grade: str = "report",
    plan: MeasurePlan | None = None,
    lost: list[str] | None = None,
) -> list[Finalist]:
    """Returns the entries measured again, in their order: fresh processes, engines built anew, in turns.

    Where their process dies or hangs twice, each is measured alone, and those that still fail are left out.

    Args:
        entries: What to measure; those on one engine are measured in alternation.
        question: Which latency.
        budget: Milliseconds that the upper end of the 95 % interval must meet; None without one.
        grade: `report`; a quicker grade promises less.
        plan: Time limits and where the lock files lie.
        lost: Takes a line about every entry that is left out.

    Raises:
        UserError: a job cannot be done, or the device is being measured by another process.
    """
    records: dict[int, Measurement] = {}
    alone: set[EngineConfig] = set()
    for config in dict.fromkeys(entry.config for entry in entries):
        places = [place for place, entry in enumerate(entries) if entry.config == config]
        jobs = [
            question.job(
                entries[place].model,
                chosen_config(config, entries[place].trial.choices),
                entries[place].recipe,
                grade=grade,
            )
            for place in places
        ]
        try:
            measured: Sequence[Measurement | MeasuringFailed] = _measured(jobs, plan)
        except MeasuringFailed:
            alone.add(config)
            measured = [_measured_alone(job, plan) for job in jobs]
        for place, record in zip(places, measured, strict=True):
            if isinstance(record, MeasuringFailed):
                if lost is not None:
                    lost.append(f"{entries[place].label} on {config.target} could not be measured again: {record}")
            else:
                records[place] = record
    figures = {place: _figure(record, question) for place, record in records.items()}
    found = []
    for place, (value, interval) in sorted(figures.items()):
        entry = entries[place]
        # A ratio is of one run, in which all took turns.
        against = [
            figures[other][0]
            for other, each in enumerate(entries)
            if other in figures and each.reference and each.config == entry.config and entry.config not in alone
        ]
        found.append(
            Finalist(
                entry.label,
                entry.trial,
                chosen_config(entry.config, entry.trial.choices),
                records[place],
                value,
                interval,
                value / against[0] if against else None,
                None if budget is None else interval[1] <= budget,
                str(entry.config.target),
                entry.member,
                entry.reference,
            )
        )
    return found


def contenders(
    trials: Sequence[Trial],
    front: Front,
    *,
    count: int,
    limits: Mapping[str, float],
    left_out: set[int],
) -> list[Trial]:
    """Returns the trials worth measuring again: under limits the best in gain, else some from all over the front.

    Args:
        trials: Finished trials, by number.
        front: Which two figures count.
        count: How many at most.
        limits: Upper limit by name; without one for the front's cost there is a trade, and no single best.
        left_out: Numbers of trials that are not wanted, such as members and those that were measured before.
    """
    names = {front.cost, front.gain}
    fit = [
        trial
        for trial in trials
        if trial.state == "complete" and trial.number not in left_out and names <= set(trial.values)
    ]
    if front.cost in limits:
        kept = [trial for trial in fit if trial.values[front.cost] <= limits[front.cost]]
        return sorted(kept, key=lambda trial: (-trial.values[front.gain], trial.values[front.cost]))[:count]
    best = front_indices([trial.values[front.cost] for trial in fit], [trial.values[front.gain] for trial in fit])
    places: list[int] = []
    if best:
        places = np.unique(np.linspace(0, len(best) - 1, min(count, len(best))).round().astype(int)).tolist()
    return [fit[best[place]] for place in reversed(places)]


def excess(finalists: Sequence[Finalist], front: Front) -> float:
    """Returns by how much the upper ends of the intervals stood above what the search had measured, at least 1.

    The smallest of the finalists' factors: a net whose figure in the search leaves that room may keep the budget.
    """
    factors = [finalist.interval[1] / finalist.trial.values[front.cost] for finalist in finalists]
    return max(1.0, min(factors, default=1.0))


def check_promise(request: SearchRequest, result: SearchResult) -> None:
    """Accepts a result in which a found net or a member keeps the budget on every target, or that had none.

    A search that was stopped promises nothing yet.

    Raises:
        NothingMeetsBudget: no candidate met it in the search, or on some target the upper end of no finalist's 95 %
            interval does; the text shows the closest.
        UserError, CheckFailed: finalists could not be measured or exported.
    """
    if result.failure is not None:
        raise result.failure
    budget = request.latency_ms
    if budget is None or result.ended != "finished":
        return
    if not request.promise and any(not finalist.reference for finalist in result.finalists):
        return
    asked = f"{budget:g} ms ({request.question})"
    for config in request.configs if result.finalists else ():
        own = [finalist for finalist in result.finalists if finalist.target == str(config.target)]
        if any(finalist.keeps for finalist in own):
            continue
        nearest = sorted(own, key=lambda finalist: finalist.interval[1])[:CLOSEST]
        shown = "; ".join(
            f"{each.label} on {each.config.target}: {each.value:.3f} ms, 95 % {each.interval[0]:.3f} to "
            f"{each.interval[1]:.3f}"
            for each in nearest
        )
        raise NothingMeetsBudget(
            f"the upper end of no finalist's 95 % interval meets {asked} on {config.target}; the closest: "
            f"{shown or 'none was measured'}. A little more room, or more candidates, would do"
        )
    if result.finalists or any(trial.state == "complete" for trial in result.study.trials):
        return
    raise NothingMeetsBudget(
        f"none of {len(result.study.trials)} candidates meets {asked}; the closest: "
        f"{_closest(result) or 'none was measured'}"
    )


def _measured_alone(job: MeasureJob, plan: MeasurePlan | None) -> Measurement | MeasuringFailed:
    try:
        return run_jobs([job], plan)[0]
    except MeasuringFailed as error:
        return error


def _measured(jobs: Sequence[MeasureJob], plan: MeasurePlan | None) -> list[Measurement]:
    try:
        return run_jobs(jobs, plan)
    except MeasuringFailed:
        return run_jobs(jobs, plan)


def _closest(result: SearchResult) -> str:
    plan: Plan = result.plan
    return "; ".join(
        f"{plan.label(trial)}: "
        + ", ".join(f"{name} {plan.text(name, trial.values[name])}" for name in plan.limits if name in trial.values)
        for trial in result.study.closest(CLOSEST)
    )


def _figure(record: Measurement, question: LatencyQuestion) -> tuple[float, tuple[float, float]]:
    percent = STATISTICS[question.stat]
    if percent is None:
        return record.statistics.median, record.statistics.interval
    samples = [np.array(process.milliseconds) for process in record.processes]
    value = float(np.percentile(np.concatenate(samples), percent, method="inverted_cdf"))
    return value, percentile_interval(samples, percent, np.random.default_rng(0))
