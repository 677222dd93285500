"""Where a search stands, worked out from its finished trials alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scalenas.search.candidates import STATES, Trial
from scalenas_export.search.chart import front_indices

# Candidates over which pace and the predictor's error are taken: recent ones, since both change during a search.
RECENT = 20


@dataclass(frozen=True, slots=True)
class Front:
    """Two figures that are traded for each other on one device, by their names.

    Attributes:
        title: Of the device: the text of the target.
        cost: The figure that should be small.
        gain: The figure that should be large.
    """

    title: str
    cost: str
    gain: str

    @property
    def is_latency(self) -> bool:
        """Whether the cost is a latency, in milliseconds; else it is of the net itself."""
        return self.cost.startswith("latency")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a view must know of a search before its first candidate.

    Attributes:
        title: What is searched, for people.
        fronts: One per device.
        columns: Names of all figures, in the order they are measured.
        limits: Upper limit by name of the figure.
        units: Unit by name of the figure; `%` shows a share of 1 as per cent.
        members: Name by live digest of the nets that go by one, such as HRNet.
        n_trials: Candidates that the study is to have, None without such an end.
        timeout: Seconds that the search may take, None without such an end.
        notes: What every picture of these figures must say, such as that the pictures were drawn.
    """

    title: str
    fronts: tuple[Front, ...]
    columns: tuple[str, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)
    n_trials: int | None = None
    timeout: float | None = None
    notes: tuple[str, ...] = ()

    def label(self, trial: Trial) -> str:
        """Returns what people call a trial's net: its name, or the trial's number; with its choices."""
        name = self.members.get(trial.candidate.digest, f"trial {trial.number}")
        return " ".join([name, *(f"{key}={value}" for key, value in trial.choices.items())])

    def text(self, name: str, value: float) -> str:
        """Returns a figure with its unit."""
        unit = self.units.get(name, "")
        return f"{100 * value:.2f} %" if unit == "%" else f"{value:.3f} {unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a search stands.

    Attributes:
        counts: Trials by state.
        fronts: For each front of the plan, the complete trials that no other beats, by rising cost.
        best: The trial with the largest gain of the first front within the limits; None while there is none.
        per_minute: Candidates a minute over the recent ones, None before the second.
        drift: The newest drift of the reference engine, a share of 1; None while none is known.
        predictor_error: Mean absolute error of recent predictions by name of the figure, a share of 1.
        remaining: Seconds until the first of the two ends, None while unknown.
    """

    counts: Mapping[str, int]
    fronts: tuple[tuple[Trial, ...], ...]
    best: Trial | None
    per_minute: float | None
    drift: float | None
    predictor_error: Mapping[str, float]
    remaining: float | None


def standing(trials: Sequence[Trial], plan: Plan, *, times: Sequence[float], now: float, started: float) -> Standing:
    """Returns where a search stands.

    Args:
        trials: All finished trials of the study, by number.
        plan: The search.
        times: When the trials of this process were finished, in seconds of any clock, rising.
        now: The same clock, now.
        started: The same clock, when this process began to search.
    """
    fronts = tuple(tuple(front_trials(trials, front)) for front in plan.fronts)
    pace = _pace(times)
    ends = []
    if plan.n_trials is not None and pace:
        ends.append(60 * max(0, plan.n_trials - len(trials)) / pace)
    if plan.timeout is not None:
        ends.append(max(0.0, plan.timeout - (now - started)))
    return Standing(
        counts={state: sum(trial.state == state for trial in trials) for state in STATES},
        fronts=fronts,
        best=fronts[0][-1] if fronts and fronts[0] else None,
        per_minute=pace,
        drift=_drift(trials),
        predictor_error=_errors(trials),
        remaining=min(ends) if ends else None,
    )


def front_trials(trials: Sequence[Trial], front: Front) -> list[Trial]:
    """Returns the complete trials that no other beats in both figures of a front, by rising cost and gain."""
    done = [trial for trial in trials if trial.state == "complete" and {front.cost, front.gain} <= set(trial.values)]
    costs = [trial.values[front.cost] for trial in done]
    gains = [trial.values[front.gain] for trial in done]
    return [done[index] for index in front_indices(costs, gains)]


def _pace(times: Sequence[float]) -> float | None:
    recent = times[-RECENT - 1 :]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return 60 * (len(recent) - 1) / (recent[-1] - recent[0])


def _drift(trials: Sequence[Trial]) -> float | None:
    for trial in reversed(trials):
        for details in trial.details.values():
            drift = details.get("drift")
            if isinstance(drift, float):
                return drift
    return None


def _errors(trials: Sequence[Trial]) -> dict[str, float]:
    """Returns the mean absolute relative error of recent predictions, each made before its candidate was measured."""
    errors: dict[str, list[float]] = {}
    for trial in trials:
        for name, predicted in trial.predicted.items():
            value = trial.values.get(name)
            if value:
                errors.setdefault(name, []).append(abs(predicted - value) / abs(value))
    return {name: statistics.fmean(found[-RECENT:]) for name, found in errors.items()}
