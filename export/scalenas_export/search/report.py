"""What a search leaves: files of all trials, pictures of the fronts, and the table of found nets beside members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scalenas.cost import LIVE
from scalenas.registry import get_space
from scalenas.search.candidates import Trial
from scalenas_export.search.chart import Chart, Interval
from scalenas_export.search.deployment import deployed_spec
from scalenas_export.search.page import write_page
from scalenas_export.search.picture import draw_fronts
from scalenas_export.search.progress import Front, Plan, front_trials
from scalenas_export.search.request import Finalist, SearchRequest, SearchResult
from scalenas_export.search.rows import csv_text, interval_of, points, trial_rows
from scalenas_export.search.wording import chart_footnote, meaning, promise
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import MissingExtra
from scalenas_runtime.files import write_text
from scalenas_runtime.measure import output

if TYPE_CHECKING:
    from scalenas.spec import SubnetSpec

_SHOWN = 8


def write_reports(
    request: SearchRequest, result: SearchResult, table: str, *, note: Callable[[str], None]
) -> dict[str, Path]:
    """Writes trials.csv, trials.json, records.jsonl, specs/, front.png and front.html; returns them by what they are.

    Specs are those of the nets on a front, of finalists and of members. Measurements of finalists go to `finalists/`,
    with every raw sample. Without matplotlib or plotly the picture or page is left out, and `note` gets the line that
    adds the package.
    """
    folder, plan, trials = request.folder, result.plan, result.study.trials
    space = get_space(result.study.head.space)
    rows = trial_rows(trials, plan, space)
    files = {name: folder / name for name in ("trials.csv", "trials.json", "records.jsonl")}
    write_text(files["trials.csv"], csv_text(rows))
    write_text(files["trials.json"], pretty_json(cast(Json, rows)))
    result.study.write_records(files["records.jsonl"])
    if chosen := _chosen(result):
        files["specs"] = folder / "specs"
        for label, trial in chosen.items():
            write_text(files["specs"] / f"{label}.json", pretty_json(_spec(trial).to_json()))
    if result.finalists:
        files["finalists"] = folder / "finalists"
        output.save(files["finalists"], [finalist.measurement for finalist in result.finalists])
    charts = fronts(request, result)
    if not any(chart.points for chart in charts):
        return files
    drawn: dict[str, Callable[[Path], None]] = {
        "front.png": lambda path: draw_fronts(charts, path),
        "front.html": lambda path: write_page(charts, path, title=plan.title, table=table),
    }
    for name, draw in drawn.items():
        try:
            draw(folder / name)
        except MissingExtra as error:
            note(f"{name} is left out: {error}")
        else:
            files[name] = folder / name
    return files


def fronts(request: SearchRequest, result: SearchResult) -> list[Chart]:
    """Returns a chart per device; where a finalist was measured again, its point is that measurement.

    A member over the budget got its accuracy among the finalists alone, and is drawn with it.
    """
    plan = result.plan
    charts = []
    for front in plan.fronts:
        own = {finalist.trial.number: finalist for finalist in result.finalists if front_of(finalist, plan) == front}
        again: Mapping[int, tuple[float, Interval]] = {
            number: (finalist.value, finalist.interval) for number, finalist in own.items() if front.is_latency
        }
        trials = [own[trial.number].trial if trial.number in own else trial for trial in result.study.trials]
        charts.append(
            Chart(
                title=f"{plan.title}: {front.title}",
                cost_label=f"{front.cost}, ms ({request.question})" if front.is_latency else front.cost,
                gain_label=_with_unit(plan, front.gain),
                points=points(trials, plan, front, confirmed=again),
                limit=plan.limits.get(front.cost),
                footnote=chart_footnote(request, result, front),
            )
        )
    return charts


def heads(request: SearchRequest) -> list[str]:
    """Returns the heads of `table_rows`; the median stands apart where another figure was asked for."""
    stat = request.question.stat
    figures = [f"{stat} ms", "95 %", *(["median"] if stat != "median" else []), *(["p90"] if stat != "p90" else [])]
    return ["net", "target", "accuracy", "95 %", *figures, "params", "MACs", "ratio", "budget"]


def table_rows(request: SearchRequest, result: SearchResult) -> list[list[str]]:
    """Returns the rows under `heads`: finalists with the members measured beside them, else fronts and members.

    A ratio is the latency over that of the reference member, in the same run.
    """
    if result.finalists:
        return [_finalist_row(finalist, request, result.plan) for finalist in result.finalists]
    rows = []
    for front in result.plan.fronts:
        trials = front_trials(result.study.trials, front)[-_SHOWN:]
        shown = {trial.number for trial in trials}
        members = [
            trial
            for trial in result.study.trials
            if trial.candidate.digest in result.plan.members and front.cost in trial.values
        ]
        trials += [trial for trial in members if trial.number not in shown]
        rows += [_trial_row(trial, front, request, result.plan) for trial in trials]
    return rows


def front_of(finalist: Finalist, plan: Plan) -> Front:
    """Returns the front that a finalist belongs to."""
    return next(front for front in plan.fronts if front.title == finalist.target)


def closing(request: SearchRequest, result: SearchResult) -> str:
    """Returns what is promised, and what the figures mean."""
    return "\n".join(part for part in (promise(request, result.finalists), meaning(request, result)) if part)


def result_json(request: SearchRequest, result: SearchResult, files: Mapping[str, Path]) -> dict[str, Json]:
    """Returns a search's result as JSON values."""
    plan = result.plan
    return {
        "ended": result.ended,
        "study": result.study.name,
        "trials": len(result.study.trials),
        "states": {
            state: sum(trial.state == state for trial in result.study.trials)
            for state in ("complete", "infeasible", "failed")
        },
        "budget_ms": request.latency_ms,
        "fronts": {
            front.title: [_trial_json(trial, plan) for trial in front_trials(result.study.trials, front)]
            for front in plan.fronts
        },
        "finalists": [_finalist_json(finalist, plan) for finalist in result.finalists],
        "bundles": {label: str(path) for label, path in result.bundles.items()},
        "synthetic": result.judged.synthetic if result.judged is not None else None,
        "meaning": meaning(request, result),
        "files": {name: str(path) for name, path in files.items()},
    }


def _chosen(result: SearchResult) -> dict[str, Trial]:
    """Returns the trials whose specs people may want as files, by the name of the file.

    Of a member at several sizes, which have a spec each, the first one has its bare name.
    """
    trials = result.study.trials
    wanted = {trial.number for front in result.plan.fronts for trial in front_trials(trials, front)}
    wanted |= {finalist.trial.number for finalist in result.finalists}
    chosen: dict[str, Trial] = {}
    for trial in trials:
        member = result.plan.members.get(trial.candidate.digest)
        if member is not None and member in chosen:
            member = "-".join([member, *trial.choices.values()])
        if member is not None or trial.number in wanted:
            chosen[member or f"trial-{trial.number}"] = trial
    return chosen


def _finalist_row(finalist: Finalist, request: SearchRequest, plan: Plan) -> list[str]:
    statistics = finalist.measurement.statistics
    front = front_of(finalist, plan)
    return [
        finalist.label,
        str(finalist.config.target),
        *_accuracy(finalist.trial, front, plan),
        *_latency(request, finalist.value, finalist.interval, (statistics.median, statistics.p90)),
        *_cost(finalist.trial),
        "-" if finalist.ratio is None else f"{finalist.ratio:.3f}",
        {None: "-", True: "kept", False: "over"}[finalist.keeps],
    ]


def _trial_row(trial: Trial, front: Front, request: SearchRequest, plan: Plan) -> list[str]:
    details, value, limit = trial.details.get(front.cost, {}), trial.values[front.cost], plan.limits.get(front.cost)
    ratio = _number(details.get("ratio"))
    others = (_number(details.get("median_ms")), _number(details.get("p90_ms")))
    latency = value if front.is_latency else None
    return [
        plan.label(trial),
        front.title,
        *_accuracy(trial, front, plan),
        *_latency(request, latency, interval_of(trial, plan, front.cost), others),
        *_cost(trial),
        "-" if ratio is None else f"{ratio:.3f}",
        "-" if limit is None else "kept" if value <= limit else "over",
    ]


def _latency(
    request: SearchRequest, value: float | None, interval: Interval | None, others: tuple[float | None, float | None]
) -> list[str]:
    stat = request.question.stat
    cells = [
        "-" if value is None else f"{value:.2f}",
        "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
    ]
    for name, other in zip(("median", "p90"), others, strict=True):
        if name != stat:
            cells.append("-" if other is None else f"{other:.2f}")
    return cells


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _accuracy(trial: Trial, front: Front, plan: Plan) -> list[str]:
    value, interval = trial.values.get(front.gain), interval_of(trial, plan, front.gain)
    text = "-" if value is None else plan.text(front.gain, value)
    return [text, "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"]


def _spec(trial: Trial) -> SubnetSpec:
    """Returns a trial's spec at the input size that it was measured at."""
    return deployed_spec(get_space(trial.spec.space), trial.spec, trial.choices)


def _cost(trial: Trial) -> list[str]:
    spec = _spec(trial)
    cost = get_space(spec.space).cost(spec, counting=LIVE)
    return [f"{cost.params / 1e6:.2f} M", f"{cost.macs / 1e9:.3f} G"]


def _trial_json(trial: Trial, plan: Plan) -> Json:
    return {
        "number": trial.number,
        "name": plan.label(trial),
        "digest": trial.candidate.digest,
        "choices": dict(trial.choices),
        "values": dict(trial.values),
    }


def _finalist_json(finalist: Finalist, plan: Plan) -> Json:
    return {
        "name": finalist.label,
        "number": finalist.trial.number,
        "member": finalist.member,
        "target": str(finalist.config.target),
        "value_ms": finalist.value,
        "interval_ms": list(finalist.interval),
        "median_ms": finalist.measurement.statistics.median,
        "p90_ms": finalist.measurement.statistics.p90,
        "ratio": finalist.ratio,
        "keeps": finalist.keeps,
        "flags": list(finalist.measurement.flags),
        "values": dict(finalist.trial.values),
        "spec": _spec(finalist.trial).to_json(),
    }


def _with_unit(plan: Plan, name: str) -> str:
    unit = plan.units.get(name, "")
    return f"{name}, {unit}" if unit else name
