"""`run_search`: from a request to finalists and bundles; `dry_run`: how fast that would go."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scalenas.search import SearchOptions, Study, Trial, get_sampler, search
from scalenas.search.storage import NoStudy, Storage
from scalenas_export.search.ending import confirm_best, export_best, failure_of
from scalenas_export.search.live import Live
from scalenas_export.search.meter import Headlines
from scalenas_export.search.request import Finalist, SearchRequest, SearchResult
from scalenas_export.search.setup import Frame, enqueued, identity, open_frame
from scalenas_export.search.view import View
from scalenas_export.search.watch import Watch
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import CheckFailed, UserError
from scalenas_runtime.measure import MeasuringFailed

DRY_TRIALS = 3
JOIN_POLL = 0.5
# Of the reference's milliseconds on a target, among the figures that all workers of a study use.
HEADLINE = "headline "


@dataclass(frozen=True, slots=True)
class DryRun:
    """How fast a search would go.

    Attributes:
        trials: The candidates that were tried.
        seconds: Wall time of them together, set-up left out.
        set_up_seconds: Opening data, reference engine and processes.
        per_hour: Measured candidates an hour.
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
        over = sum(trial.state == "infeasible" for trial in self.trials)
        failed = [trial for trial in self.trials if trial.state == "failed"]
        more = "".join(f"; candidate {trial.number} could not be measured: {trial.failure}" for trial in failed)
        if over:
            more += f"; {over} over the budget, so no accuracy was judged: those within it take longer"
        return (
            f"{len(self.trials) - len(failed)} candidates measured in {self.seconds:.1f} s, set-up "
            f"{self.set_up_seconds:.1f} s: about {self.per_hour:.0f} candidates/h on this machine{more}; nothing was "
            "stored\n"
        )


def run_search(request: SearchRequest, *, view: View, stop: Callable[[], bool] = lambda: False) -> SearchResult:
    """Returns what a search found: candidates measured through engines, the best confirmed, and bundles of them.

    Nothing is raised once candidates are there: `finalists.check_promise` says that nothing meets the budget, that the
    device failed every time, or that a finalist could not be measured or exported, after reports are written.

    Args:
        request: What to search.
        view: Shows what is going on.
        stop: Asked before every candidate and every round of finalists; true ends the search, which can be resumed.

    Raises:
        UserError: a value that cannot be, weights that do not fit, a target that is not here, a study about something
            else or already there, or none where there must be one.
    """
    frame = open_frame(request)
    if frame.other_sizes:
        view.note(frame.other_sizes)
    storage = request.storage or str(request.folder / "study.db")
    _check_choices(request, frame)
    if request.join:
        _await_study(request, storage, view, stop)
    headlines = _SharedHeadlines(storage, request.study_name)
    headlines |= {**request.headlines, **_earlier(request, storage, view)}
    with ExitStack() as held:
        live = held.enter_context(Live(request, frame, headlines))
        watch = Watch(frame, view, stop)
        study = _searched(live, watch, storage)
        held.callback(view.end)
        live.end_meter()
        ended: Literal["finished", "stopped", "joined"] = "stopped" if stop() or watch.broken else "finished"
        finalists: list[Finalist] = []
        lost: list[str] = []
        bundles: dict[str, Path] = {}
        failure: UserError | CheckFailed | None = watch.broken
        if request.replay is not None and request.export_best:
            view.note("figures were replayed, so that nothing is measured again or exported")
        if request.join:
            ended = "joined"
        elif ended == "finished" and request.finalists and request.replay is None:
            # Hours of candidates are not to be lost because one of the last steps fails or is cut short.
            try:
                confirm_best(live, study, view, stop, finalists, lost)
                failure = failure_of(lost)
                if not stop():
                    export_best(live, finalists, view, bundles)
            except (UserError, CheckFailed) as error:
                failure = error
            except OSError as error:
                failure = UserError(f"the end of the search failed: {error}; --resume measures the finalists again")
            except KeyboardInterrupt:
                ended = "stopped"
            if stop():
                ended = "stopped"
    return SearchResult(study, live.plan, ended, tuple(finalists), bundles, live.judged, frame.reference, failure)


def dry_run(request: SearchRequest, *, view: View) -> DryRun:
    """Returns how fast a search would go, from three candidates measured as it would; nothing is stored.

    Raises:
        UserError: as `run_search`.
        MeasuringFailed: none of the three could be measured.
    """
    started = time.monotonic()
    short = replace(
        request, n_trials=DRY_TRIALS, timeout=None, replay=None, warm_start=None, warm_start_study=None, enqueue=()
    )
    frame = open_frame(short)
    _check_choices(short, frame)
    with Live(short, frame, Headlines()) as live:
        live.warm()
        watch = Watch(frame, view, lambda: False)
        ready = time.monotonic()
        study = _searched(live, watch, None)
        seconds = time.monotonic() - ready
        view.end()
    trials = tuple(study.trials)
    study.close()
    measured = [trial for trial in trials if trial.state != "failed"]
    if not measured:
        raise MeasuringFailed(f"none of {len(trials)} candidates could be measured; the last one: {trials[-1].failure}")
    return DryRun(trials, seconds, ready - started, 3600 * len(measured) / seconds)


def headlines_of(study: Study) -> dict[str, float]:
    """Returns the scale of a study's latencies: milliseconds of the reference by target."""
    return {name.removeprefix(HEADLINE): value for name, value in study.agreed.items() if name.startswith(HEADLINE)}


class _SharedHeadlines(Headlines):
    """Headlines that all workers of a study share: the first one to measure a target's decides."""

    def __init__(self, storage: Storage, name: str) -> None:
        super().__init__()
        self._storage, self._name = storage, name

    def settle(self, target: str, milliseconds: float) -> None:
        """Takes the figure that holds for all, which is this one unless another worker was first."""
        study = Study.open(self._storage, self._name)
        try:
            self[target] = study.agree(f"{HEADLINE}{target}", milliseconds)
        finally:
            study.close()


def _check_choices(request: SearchRequest, frame: Frame) -> None:
    """Finds a wrong sampler or net to enqueue before pictures are read and engines are opened."""
    get_sampler(request.sampler, **request.sampler_options)
    enqueued(request, frame)


def _earlier(request: SearchRequest, storage: Storage, view: View) -> dict[str, float]:
    """Returns the reference's headlines of a study that is there, in milliseconds by target; none for a new one.

    Raises:
        UserError: the study has candidates and shall not be gone on with, or shall be and is not in the storage.
    """
    try:
        study = Study.open(storage, request.study_name)
    except NoStudy as error:
        if request.resume and request.storage is not None:
            raise UserError(f"{error}: there is nothing to resume; leave --resume out to begin the study") from None
        if request.resume:
            view.note(f"no study was begun in {request.folder} yet: it begins now")
        return {}
    try:
        count = len(study.trials)
        agreed = headlines_of(study)
    finally:
        study.close()
    if count and not (request.resume or request.join):
        raise UserError(
            f"study {request.study_name!r} in {storage} has {count} candidates already; pass --resume to go on "
            "with it, or another --study-name"
        )
    return agreed


def _await_study(request: SearchRequest, storage: Storage, view: View, stop: Callable[[], bool]) -> None:
    """Returns when the study that others begin is there.

    Raises:
        UserError: it is not there within the device's timeout.
        KeyboardInterrupt: the user wants an end.
    """
    deadline = time.monotonic() + request.device_timeout
    told = False
    while True:
        try:
            Study.open(storage, request.study_name).close()
        except NoStudy as error:
            if stop():
                raise KeyboardInterrupt from None
            if time.monotonic() >= deadline:
                raise UserError(
                    f"{error}: nobody began the study that this worker should join; start the search without --join "
                    "first"
                ) from None
        else:
            return
        if not told:
            view.note(f"waiting up to {request.device_timeout:g} s for others to begin study {request.study_name!r}")
            told = True
        time.sleep(JOIN_POLL)


def _searched(live: Live, watch: Watch, storage: Storage | None) -> Study:
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
        warm_start_study=request.warm_start_study,
        replay=request.replay,
        predict=latencies,
        on_trial=watch.on_trial,
        stop=watch.stop,
    )
    sampler = get_sampler(request.sampler, **request.sampler_options)
    watch.view.begin(live.plan)
    return search(frame.space, objectives, constraints, sampler, storage, options=options)
