"""A search's trials as flat rows: for CSV and JSON files, and as points of a chart."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from scalenas.cost import LIVE
from scalenas.search.candidates import Trial
from scalenas.space import SearchSpace
from scalenas_export.search.chart import Interval, Point
from scalenas_export.search.deployment import deployed_spec
from scalenas_export.search.progress import Front, Plan, front_trials
from scalenas_runtime.canonical import Json, canonical_json

Row = dict[str, Json]

# What rows take from a measure's details besides the interval; the records hold the rest.
_DETAILS = (
    "raw_ms",
    "ratio",
    "median_ms",
    "p90_ms",
    "drift",
    "samples",
    "pictures",
    "metric",
    "flags",
    "slow_graph",
    "retried",
)


def trial_rows(trials: Sequence[Trial], plan: Plan, space: SearchSpace) -> list[Row]:
    """Returns one row per trial: what it is, its cost without dead compute at its input size, and its figures.

    Args:
        trials: Finished trials, by number.
        plan: The search.
        space: The family of the specs.
    """
    on_front = {trial.number for front in plan.fronts for trial in front_trials(trials, front)}
    return [_row(trial, plan, space, front=trial.number in on_front) for trial in trials]


def csv_text(rows: Sequence[Mapping[str, Json]]) -> str:
    """Returns rows as CSV with a line of heads; lists stand in it as JSON, and what a row lacks as nothing."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    for row in rows:
        writer.writerow([_cell(row.get(head)) for head in heads])
    return stream.getvalue()


def points(
    trials: Sequence[Trial], plan: Plan, front: Front, *, confirmed: Mapping[int, tuple[float, Interval]] | None = None
) -> tuple[Point, ...]:
    """Returns the points of one front's chart: the trials that have both figures; shares are drawn as per cent.

    Args:
        trials: Finished trials, by number.
        plan: The search.
        front: Which figures.
        confirmed: Cost with its interval by number of the trial, where it was measured again at grade `report`.
    """
    best = {trial.number for trial in front_trials(trials, front)}
    again = confirmed or {}
    found = []
    for trial in trials:
        if not {front.cost, front.gain} <= set(trial.values):
            continue
        cost, interval = again.get(
            trial.number, (_scaled(plan, front.cost, trial.values[front.cost]), interval_of(trial, plan, front.cost))
        )
        member = trial.candidate.digest in plan.members
        found.append(
            Point(
                label=plan.label(trial),
                kind="member" if member else "front" if trial.number in best else "tried",
                cost=cost,
                gain=_scaled(plan, front.gain, trial.values[front.gain]),
                cost_interval=interval,
                gain_interval=interval_of(trial, plan, front.gain),
                confirmed=trial.number in again,
                lines=_lines(trial, plan),
            )
        )
    return tuple(found)


def interval_of(trial: Trial, plan: Plan, name: str) -> Interval | None:
    """Returns the 95 % interval of a figure, a share as per cent; None where its measure gave none."""
    found = measured_interval(trial, name)
    return None if found is None else (_scaled(plan, name, found[0]), _scaled(plan, name, found[1]))


def measured_interval(trial: Trial, name: str) -> Interval | None:
    """Returns the 95 % interval of a figure as it was measured; None where its measure gave none."""
    interval = trial.details.get(name, {}).get("interval")
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        return None
    low, high = (float(str(bound)) for bound in interval)
    return low, high


def _row(trial: Trial, plan: Plan, space: SearchSpace, *, front: bool) -> Row:
    cost = space.cost(deployed_spec(space, trial.spec, trial.choices), counting=LIVE)
    row: Row = {
        "number": trial.number,
        "name": plan.members.get(trial.candidate.digest),
        "state": trial.state,
        "front": front,
        "origin": trial.origin,
        "digest": trial.candidate.digest,
        "params": cost.params,
        "macs": cost.macs,
        **trial.choices,
    }
    for name in plan.columns:
        details = trial.details.get(name, {})
        low, high = measured_interval(trial, name) or (None, None)
        row |= {name: trial.values.get(name), f"{name}.low": low, f"{name}.high": high}
        row |= {f"{name}.{key}": details[key] for key in _DETAILS if key in details}
    row["seconds"] = round(sum(trial.seconds.values()), 3)
    if trial.failure:
        row["failure"] = trial.failure
    return row


def _lines(trial: Trial, plan: Plan) -> tuple[str, ...]:
    lines = [f"{trial.origin}, {trial.candidate.digest[:12]}"]
    for name in plan.columns:
        if name not in trial.values:
            continue
        interval = interval_of(trial, plan, name)
        within = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
        lines.append(f"{name}: {plan.text(name, trial.values[name])}{within}")
        ratio = trial.details.get(name, {}).get("ratio")
        if isinstance(ratio, float):
            lines.append(f"ratio to the reference: {ratio:.3f}")
    return tuple(lines)


def _scaled(plan: Plan, name: str, value: float) -> float:
    return 100 * value if plan.units.get(name) == "%" else value


def _cell(value: Json) -> Json:
    return canonical_json(value) if isinstance(value, list | tuple | dict) else value
