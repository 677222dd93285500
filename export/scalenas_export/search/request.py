"""What a search is asked for, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scalenas.search.candidates import Trial
from scalenas_export.search.data import DataSource
from scalenas_export.search.meter import LatencyQuestion
from scalenas_export.search.progress import Plan
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import CheckFailed, UserError
from scalenas_runtime.evaluate import Metric
from scalenas_runtime.measure import Measurement
from scalenas_runtime.targets import EngineConfig

if TYPE_CHECKING:
    from scalenas.search.study import Study
    from scalenas.transferred_statistics import Rule
    from scalenas_export.search.accuracy import Judged

# Pictures that BN statistics are taken from.
CALIBRATION = 64
OBJECTIVES = ("latency", "accuracy", "params", "macs")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """What to search.

    Attributes:
        weights: A weights file of a supernet, or the name of shipped ones.
        configs: Engines, one per device; with several, every figure carries the text of its target.
        folder: Folder of the run: graphs of candidates, and the study where `storage` is None.
        latency_ms: Budget in milliseconds, of every target; None searches without one.
        question: Which latency.
        objectives: Of `OBJECTIVES`; empty for accuracy under a budget, and latency with accuracy without one.
        data: Where labelled pictures come from.
        metric: What is asked of joints, the recipe's usual metric if None.
        limit: Judge candidates on the first so many pictures of the `search` split.
        calibration: Pictures that BN statistics are taken from.
        statistics: How: `transferred` or `measured`; None for `transferred` where `train` made the supernet.
        precisions: Precisions that are searched too; empty keeps the target's.
        sizes: Input sizes (height, width) that are searched too; empty keeps that of the weights' recipe.
        sampler: Name of the sampler.
        sampler_options: Its options that are not the default.
        seed: Of all random choices.
        n_trials: Candidates the study has in the end; None: no such end.
        timeout: Seconds after which no candidate is begun; None: no such end.
        storage: File or URL of the study; None puts it into `folder`.
        study_name: Its name there.
        resume: Go on with a study that is there; without it, one that has candidates is an error.
        join: Work on a study that others work on: no finalists and no export at the end.
        enqueue: Names or spec files that are measured first, after HRNet's members.
        warm_start: Storage of an earlier study whose front is measured next.
        warm_start_study: Name of that study; None where the storage has only one besides this one.
        replay: A `records.jsonl` whose figures are taken in place of measuring.
        finalists: So many nets are measured again, in fresh processes.
        final_grade: How thoroughly; `standard` takes a tenth of the time and promises less.
        export_best: So many of the finalists become bundles in `folder`.
        headlines: Milliseconds of the reference member by the text of the target, where they were measured before.
        promise: Whether finalists must keep the budget with the upper end of their 95 % interval; without it the
            budget chooses candidates, and the caller judges the finalists.
        device_timeout: Seconds that a device may be silent on top of the timed seconds.

    Raises:
        UserError: a value that cannot be, such as a budget of 0.
    """

    weights: str
    configs: tuple[EngineConfig, ...]
    folder: Path
    latency_ms: float | None = None
    question: LatencyQuestion = field(default_factory=LatencyQuestion)
    objectives: tuple[str, ...] = ()
    data: DataSource = field(default_factory=DataSource)
    metric: Metric | None = None
    limit: int | None = None
    calibration: int = CALIBRATION
    statistics: Rule | None = None
    precisions: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    sampler: str = "topology"
    sampler_options: Mapping[str, Json] = field(default_factory=dict)
    seed: int = 0
    n_trials: int | None = None
    timeout: float | None = None
    storage: str | None = None
    study_name: str = "search"
    resume: bool = False
    join: bool = False
    enqueue: tuple[str, ...] = ()
    warm_start: str | None = None
    warm_start_study: str | None = None
    replay: Path | None = None
    finalists: int = 3
    final_grade: str = "report"
    export_best: int = 0
    headlines: Mapping[str, float] = field(default_factory=dict)
    promise: bool = True
    device_timeout: float = 120.0

    def __post_init__(self) -> None:
        if not self.configs:
            raise UserError("a search needs at least one target, such as openvino:cpu/bf16")
        for what, figure, unit in (
            ("latency budget", self.latency_ms, "ms"),
            ("timeout", self.timeout, "s"),
            ("device's timeout", self.device_timeout, "s"),
        ):
            if figure is not None and not (math.isfinite(figure) and figure > 0):
                raise UserError(f"the {what} is {figure} {unit}; needed is a number above 0")
        if self.n_trials is None and self.timeout is None:
            raise UserError("a search needs an end: give --n-trials, --timeout, or both")
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise UserError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
        for name, value, least in (
            ("finalists", self.finalists, 0),
            ("export_best", self.export_best, 0),
            ("calibration", self.calibration, 1),
            ("limit", self.limit, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{name} is {value}; needed is a whole number from {least}")
        if self.warm_start_study is not None and self.warm_start is None:
            raise UserError(
                f"--warm-start-study is {self.warm_start_study!r}; say with --warm-start which storage has it"
            )
        self._check_end()

    def _check_end(self) -> None:
        """Accepts what is to be measured again and exported, if the figures to choose it by are asked for."""
        if "accuracy" not in self.goals and self.finalists and (self.latency_ms is not None or self.export_best):
            raise UserError(
                f"finalists are chosen by accuracy, and the objectives are {', '.join(self.goals)}; add --objective "
                "accuracy, or take --finalists 0, which confirms no budget and exports nothing"
            )
        if self.export_best and self.goals == ("accuracy",) and self.latency_ms is None:
            raise UserError(
                "--export-best takes nets from the front of a cost and accuracy, and the objective is accuracy alone; "
                "add --objective latency, macs or params, or a budget with --latency-ms"
            )
        if self.export_best > self.finalists:
            raise UserError(
                f"--export-best {self.export_best} exports finalists, of which there are {self.finalists}; "
                "raise --finalists"
            )

    @property
    def goals(self) -> tuple[str, ...]:
        """The objectives in effect."""
        if self.objectives:
            return self.objectives
        return ("latency", "accuracy") if self.latency_ms is None else ("accuracy",)

    def figure(self, name: str, config: EngineConfig) -> str:
        """Returns what a figure is called in the study: with the target where there are several."""
        return name if len(self.configs) == 1 or name in ("params", "macs") else f"{name}@{config.target}"


@dataclass(frozen=True, slots=True)
class Finalist:
    """A net that was measured again, in fresh processes with engines built anew.

    Attributes:
        label: What it is called.
        trial: Its trial.
        config: The engine.
        measurement: Its latency at grade `report`.
        value: The figure that was asked for (median, p95, ...) in milliseconds.
        interval: Its 95 % interval.
        ratio: `value` over that of the reference member in the same run, None where there is no reference.
        keeps: Whether the upper end of the 95 % interval meets the budget; None without a budget.
        target: Text of the target that the request names; the engine's own precision may be a gene.
        member: It is a named member of the supernet, shown beside the found nets.
        reference: It is the reference member, with the engine that ratios are over.
    """

    label: str
    trial: Trial
    config: EngineConfig
    measurement: Measurement
    value: float
    interval: tuple[float, float]
    ratio: float | None
    keeps: bool | None
    target: str
    member: bool = False
    reference: bool = False


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        study: The study; the caller closes it.
        plan: Names, units and members for people.
        ended: `finished`; `stopped`: it can be resumed; `joined`: the others go on.
        finalists: Measured again, the best found first, then members.
        bundles: What was exported, by label of the finalist.
        judged: What candidates were judged on; None where accuracy was not measured.
        reference: Name of the member whose engine drift is corrected against.
        failure: Why the candidates ended early, or finalists could not be measured or exported, where that is so.
    """

    study: Study
    plan: Plan
    ended: Literal["finished", "stopped", "joined"]
    finalists: tuple[Finalist, ...]
    bundles: Mapping[str, Path]
    judged: Judged | None
    reference: str
    failure: UserError | CheckFailed | None = None
