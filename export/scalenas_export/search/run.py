"""`run_search`: from a request to finalists and bundles; `dry_run`: how fast that would go."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from scalenas.search import SearchOptions, Study, Trial, get_sampler, search
from scalenas.search.objectives import MeasureFailed
from scalenas.search.storage import NoStudy, Storage
from scalenas_export.search.accuracy import AccuracyJudge, Judged
from scalenas_export.search.deployment import deployed
from scalenas_export.search.evaluator import CalibrationPictures, Instruments, LiveEvaluator, write_reference
from scalenas_export.search.finalists import Entry, confirm, contenders, excess
from scalenas_export.search.meter import LatencyMeter
from scalenas_export.search.progress import Front, Plan
from scalenas_export.search.request import Finalist, SearchRequest, SearchResult
from scalenas_export.search.setup import Frame, enqueued, identity, measures, open_frame, search_plan
from scalenas_export.search.view import View
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import CheckFailed, UserError
from scalenas_runtime.measure import Plan as MeasurePlan
from scalenas_runtime.targets import EngineConfig

DRY_TRIALS = 3
# So many failures in a row are the device's, not the candidates'.
FAILURES = 5
# After so many candidates over the budget, the smallest member among them, it is out of reach.
HOPELESS = 20
CONFIRMATIONS = 2
JOIN_POLL = 0.5


@dataclass(frozen=True, slots=True)
class DryRun:
    """How fast a search would go.

    Attributes:
        trials: The candidates that were measured.
        seconds: Wall time of them together, set-up left out.
        set_up_seconds: Opening data, reference engine and processes.
        per_hour: Candidates an hour.
    """

    trials: tuple[Trial, ...]
    seconds: float
    set_up_seconds: float
    per_hour: float

    def to_json(self) -> dict[str, Json]:
        """Returns the figures as JSON values."""
        return {
            "candidates": [
                {"number": trial.number, "state": trial.state, "values": dict(trial.values), "failure": trial.failure}
                for trial in self.trials
            ],
            "seconds": round(self.seconds, 3),
            "set_up_seconds": round(self.set_up_seconds, 3),
            "candidates_per_hour": round(self.per_hour, 1),
        }

    def text(self) -> str:
        """Returns the figures for people; the view has shown the candidates."""
        return (
            f"{len(self.trials)} candidates in {self.seconds:.1f} s, set-up {self.set_up_seconds:.1f} s: about "
            f"{self.per_hour:.0f} candidates/h on this machine; nothing was stored\n"
        )


def run_search(request: SearchRequest, *, view: View, stop: Callable[[], bool] = lambda: False) -> SearchResult:
    """Returns what a search found: candidates measured through engines, the best confirmed, and bundles of them.

    Nothing is raised once all candidates are there: `finalists.check_promise` says that nothing meets the budget, or
    that a finalist could not be measured or exported, after reports are written.

    Args:
        request: What to search.
        view: Shows what is going on.
        stop: Asked before every candidate; true ends the search, which can be resumed.

    Raises:
        UserError: a value that cannot be, weights that do not fit, a target that is not here, a study about something
            else or already there, or a device that fails every time.
    """
    frame = open_frame(request)
    storage = request.storage or str(request.folder / "study.db")
    _check_choices(request, frame)
    headlines = {**request.headlines, **_earlier(request, storage)}
    if request.join and not headlines:
        headlines = _scale_of_others(request, storage, view, stop)
    with ExitStack() as held:
        live = held.enter_context(_Live(request, frame, headlines))
        watch = _Watch(request, frame, view, stop)
        study = _searched(live, watch, storage)
        held.callback(view.end)
        live.end_meter()
        ended: Literal["finished", "stopped", "joined"] = "stopped" if stop() else "finished"
        finalists: list[Finalist] = []
        bundles: dict[str, Path] = {}
        failure: UserError | CheckFailed | None = None
        if request.join:
            ended = "joined"
        elif ended == "finished" and request.finalists and request.replay is None:
            # Hours of candidates are not to be lost because one of the last steps fails.
            try:
                _confirm(live, study, view, finalists)
                _export(live, finalists, view, bundles)
            except (UserError, CheckFailed) as error:
                failure = error
    return SearchResult(study, live.plan, ended, tuple(finalists), bundles, live.judged, frame.reference, failure)


def dry_run(request: SearchRequest, *, view: View) -> DryRun:
    """Returns how fast a search would go, from three candidates measured as it would; nothing is stored.

    Raises:
        UserError: as `run_search`.
    """
    started = time.monotonic()
    short = replace(request, n_trials=DRY_TRIALS, replay=None, warm_start=None, enqueue=())
    frame = open_frame(short)
    _check_choices(short, frame)
    with _Live(short, frame, {}) as live:
        live.warm()
        watch = _Watch(short, frame, view, lambda: False)
        ready = time.monotonic()
        study = _searched(live, watch, None)
        seconds = time.monotonic() - ready
        view.end()
    trials = tuple(study.trials)
    study.close()
    return DryRun(trials, seconds, ready - started, 3600 * len(trials) / seconds)


class _Live:
    """The instruments of one search, open from `__enter__` to the end."""

    def __init__(self, request: SearchRequest, frame: Frame, headlines: dict[str, float]) -> None:
        self.request, self.frame = request, frame
        self._headlines = headlines
        self._held, self._metering = ExitStack(), ExitStack()
        self.judged: Judged | None = None

    def __enter__(self) -> _Live:
        request, frame = self.request, self.frame
        with ExitStack() as opening:
            folder = Path(opening.enter_context(TemporaryDirectory(prefix="scalenas-search-")))
            self.folder = folder
            self.judge = opening.enter_context(
                AccuracyJudge(
                    request.data, metric=request.metric, limit=request.limit, timeout=5 * request.device_timeout
                )
            )
            if "accuracy" in request.goals and request.replay is None:
                self.judged = self.judge.prepare(frame.recipe)
            reference = deployed(frame.space, frame.recipe, frame.members[frame.reference], {})
            write_reference(frame.found.weights, frame.space, reference, folder / "reference.onnx")
            self.meter = LatencyMeter(
                request.configs,
                reference=folder / "reference.onnx",
                question=request.question,
                recipe=frame.recipe,
                timeout=request.device_timeout,
                headlines=self._headlines,
            )
            if request.replay is None:
                self._metering.enter_context(self.meter)
                opening.push(self._metering)
            self.calibration = CalibrationPictures(request.data, request.calibration)
            instruments = Instruments(self.meter, self.judge, self.calibration, folder)
            self.evaluator = LiveEvaluator(frame.found.weights, frame.space, frame.recipe, instruments)
            self.measured = measures(request, frame, self.evaluator)
            self.plan: Plan = search_plan(request, frame, measured=self.measured, judged=self.judged)
            self._held = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def warm(self) -> None:
        """Opens the reference engines now."""
        if any(name.startswith("latency") for name in self.plan.columns):
            for config in self.request.configs:
                self.meter.open(config)
        if "accuracy" in self.request.goals:
            self.calibration(self.frame.recipe)

    def end_meter(self) -> None:
        """Ends the measuring processes and gives the devices free."""
        self._metering.close()


@dataclass
class _Watch:
    """Follows a search: tells the view, and says when to stop."""

    request: SearchRequest
    frame: Frame
    view: View
    asked: Callable[[], bool]
    failures: list[str] = field(default_factory=list)
    hopeless: bool = False
    told_slow: bool = False

    def on_trial(self, study: Study, trial: Trial) -> None:
        trials = study.trials
        self.view.trial(trials, trial)
        slow = next((details["slow_graph"] for details in trial.details.values() if "slow_graph" in details), None)
        if slow is not None and not self.told_slow:
            self.told_slow = True
            self.view.note(f"candidates go through the full export, which takes some ten times longer: {slow}")
        if trial.state == "failed":
            self.failures.append(trial.failure)
        else:
            self.failures.clear()
        smallest = self.frame.space.live(self.frame.members["min"]).digest if "min" in self.frame.members else None
        broken = [each for each in trials if each.state == "infeasible"]
        self.hopeless = (
            len(trials) >= HOPELESS
            and not any(each.state == "complete" for each in trials)
            and any(each.candidate.digest == smallest for each in broken)
        )

    def stop(self) -> bool:
        if len(self.failures) >= FAILURES:
            raise UserError(f"{FAILURES} candidates in a row could not be measured; the last one: {self.failures[-1]}")
        return self.hopeless or self.asked()


def _check_choices(request: SearchRequest, frame: Frame) -> None:
    """Finds a wrong sampler or net to enqueue before pictures are read and engines are opened."""
    get_sampler(request.sampler, **request.sampler_options)
    enqueued(request, frame)


def _earlier(request: SearchRequest, storage: Storage) -> dict[str, float]:
    """Returns the reference's headlines of a study that is there, in milliseconds by target; none for a new one."""
    file = re.fullmatch(r"(?:sqlite:///)?([^:]+)", str(storage))
    if file is not None and not Path(file[1]).exists():
        return {}
    try:
        study = Study.open(storage, request.study_name)
    except NoStudy:
        return {}
    try:
        trials = study.trials
    finally:
        study.close()
    if trials and not (request.resume or request.join):
        raise UserError(
            f"study {request.study_name!r} in {storage} has {len(trials)} candidates already; pass --resume to go on "
            "with it, or another --study-name"
        )
    return _headlines(trials)


def _scale_of_others(
    request: SearchRequest, storage: Storage, view: View, stop: Callable[[], bool]
) -> dict[str, float]:
    """Returns the headlines of a study whose first candidate another worker is measuring, once that is finished.

    All latencies of a study are on one scale: what the reference took where the first of them was measured.
    """
    try:
        study = Study.open(storage, request.study_name)
    except NoStudy:
        return {}
    try:
        deadline = time.monotonic() + request.device_timeout
        view.note("waiting for the first candidate of the study: all latencies are on the scale of its reference")
        while not stop() and study.running and time.monotonic() < deadline:
            if headlines := _headlines(study.trials):
                return headlines
            time.sleep(JOIN_POLL)
        return _headlines(study.trials)
    finally:
        study.close()


def _headlines(trials: Sequence[Trial]) -> dict[str, float]:
    headlines: dict[str, float] = {}
    for trial in trials:
        for details in trial.details.values():
            target, headline = details.get("target"), details.get("headline_ms")
            if isinstance(target, str) and isinstance(headline, float):
                headlines.setdefault(target, headline)
    return headlines


def _searched(live: _Live, watch: _Watch, storage: Storage | None) -> Study:
    request, frame = live.request, live.frame
    objectives, constraints = live.measured
    latencies = tuple(name for name in live.plan.columns if name.startswith("latency"))
    options = SearchOptions(
        settings=frame.found.weights.settings,
        inputs=frame.inputs,
        choices=frame.choices,
        name=request.study_name,
        seed=request.seed,
        n_trials=request.n_trials,
        timeout=request.timeout,
        identity=identity(request, frame),
        enqueue=enqueued(request, frame),
        warm_start=request.warm_start,
        replay=request.replay,
        predict=latencies,
        on_trial=watch.on_trial,
        stop=watch.stop,
    )
    sampler = get_sampler(request.sampler, **request.sampler_options)
    watch.view.begin(live.plan)
    return search(frame.space, objectives, constraints, sampler, storage, options=options)


def _confirm(live: _Live, study: Study, view: View, finalists: list[Finalist]) -> None:
    """Adds finalists of every target: the best found, in further rounds if none keeps the budget, then members."""
    for config, front in _fronts(live):
        if not any(trial.state == "complete" for trial in study.trials):
            # Nothing meets the budget; the closest candidates say more than a member measured again.
            break
        own: list[Finalist] = []
        shown = _members(live, study.trials, config, front)
        left_out = {trial.number for trial in study.trials if trial.candidate.digest in live.plan.members}
        limits = dict(live.plan.limits)
        for number in range(1 + CONFIRMATIONS):
            trials = contenders(study.trials, front, count=live.request.finalists, limits=limits, left_out=left_out)
            entries = [_entry(live, trial, config, member=False) for trial in trials] + (shown if number == 0 else [])
            if not entries:
                break
            names = ", ".join(entry.label for entry in entries)
            view.note(f"measuring {names} again on {config.target}, at grade {live.request.final_grade}")
            budget = live.request.latency_ms if live.request.promise else None
            done = confirm(
                entries,
                live.request.question,
                budget=budget,
                grade=live.request.final_grade,
                plan=MeasurePlan(timeout=live.request.device_timeout),
                note=view.note,
            )
            finalists += done
            own += [each for each in done if not each.member]
            if budget is None or not own or any(each.keeps for each in own):
                break
            limits[front.cost] = budget / excess(own, front)
            left_out |= {trial.number for trial in trials}
    finalists.sort(key=lambda each: (each.member, not each.member and not each.keeps))


def _fronts(live: _Live) -> list[tuple[EngineConfig, Front]]:
    by_target = {front.title: front for front in live.plan.fronts}
    return [
        (config, by_target[str(config.target)]) for config in live.request.configs if str(config.target) in by_target
    ]


def _members(live: _Live, trials: Sequence[Trial], config: EngineConfig, front: Front) -> list[Entry]:
    """Returns the reference member and the best other member within the budget, with their accuracies."""
    named = {
        live.plan.members[each.candidate.digest]: each for each in trials if each.candidate.digest in live.plan.members
    }
    chosen = [live.frame.reference] if live.frame.reference in named else []
    others = [name for name, each in named.items() if front.gain in each.values and name not in chosen]
    if others:
        chosen.append(max(others, key=lambda name: named[name].values[front.gain]))
    entries = []
    for name in chosen:
        trial = named[name]
        if front.gain not in trial.values:
            # Over the budget, so the search did not ask; the table compares with it all the same.
            trial = _with_accuracy(live, trial, config, front)
        entries.append(_entry(live, trial, config, member=True))
    return entries


def _with_accuracy(live: _Live, trial: Trial, config: EngineConfig, front: Front) -> Trial:
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


def _entry(live: _Live, trial: Trial, config: EngineConfig, *, member: bool) -> Entry:
    path = live.folder / f"finalist-{trial.number}.onnx"
    recipe = live.evaluator.write_graph(trial.spec, trial.choices, path)
    label = live.plan.label(trial)
    reference = member and live.plan.members[trial.candidate.digest] == live.frame.reference
    return Entry(label, trial, config, path, recipe, member, reference)


def _export(live: _Live, finalists: Sequence[Finalist], view: View, bundles: dict[str, Path]) -> None:
    """Writes bundles of the best finalists that keep the budget, by the full export, and puts them down by label.

    Where no found net is among them, a member that is not the reference may be what was looked for. A bundle of an
    earlier end of the same search is replaced.

    Raises:
        CheckFailed: a bundle fails its parity ladder.
        UserError: a bundle cannot be made.
    """
    from scalenas_export.export_bundle import ExportRequest, export_bundle
    from scalenas_export.packing import Wanted

    fit = [each for each in finalists if each.keeps is not False and each.label != live.frame.reference]
    chosen = [each for each in fit if not each.member] or fit
    for finalist in chosen[: live.request.export_best]:
        trial = finalist.trial
        of = deployed(live.frame.space, live.frame.recipe, trial.spec, trial.choices)
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
                failures=live.request.folder / "failures",
            ),
            progress=view.note,
        )
        several = len(live.request.configs) > 1
        bundles[f"{finalist.label} on {finalist.config.target}" if several else finalist.label] = wanted.out
