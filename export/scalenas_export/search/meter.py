"""`LatencyMeter`: latencies of many candidates from one long-lived measuring process per device."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from scalenas.search.objectives import Measured, MeasureFailed
from scalenas_export.search.bracket import Bracket
from scalenas_export.search.turns import take_turns
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.measure import MeasureJob, MeasuringFailed, MeasuringProcess, device_locks
from scalenas_runtime.measure.job import HUNG, Drift, Opened, Slice, Turn, expected_seconds, flags_of
from scalenas_runtime.measure.protocol import joined
from scalenas_runtime.measure.statistics import summarise
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import Recipe

# The reference's own figure sets the scale of a whole study: pieces with pauses between see more than one pace.
HEADLINE_PIECES, HEADLINE_SECONDS, HEADLINE_PAUSE = 12, 0.15, 0.15
# So many times is the ratio of two references measured.
SCALE_PIECES = 5
# Engines leave some memory behind when they are closed; beyond this a new process is cheaper.
MEMORY_GROWTH = 1024.0


@dataclass(frozen=True, slots=True)
class LatencyQuestion:
    """Which latency is asked for; the words are those of `MeasureJob`.

    Attributes:
        boundary: `engine_wall`, `engine_wall_io`, `pipeline` or `paced@<fps>`.
        stat: `median`, `p90`, `p95` or `p99`.
        persons: Boxes in the picture of a pose `pipeline`.

    Raises:
        UserError: an unknown boundary or figure, no person, or several where the boundary has none.
    """

    boundary: str = "engine_wall"
    stat: str = "median"
    persons: int = 1

    def __post_init__(self) -> None:
        self.job(Path("model.onnx"), EngineConfig.from_json({"target": "openvino:cpu/fp32"}), None)

    def job(self, model: Path, config: EngineConfig, recipe: Recipe | None, *, grade: str = "search") -> MeasureJob:
        """Returns the job that answers the question for one engine."""
        return MeasureJob(model, config, grade, self.boundary, self.stat, persons=self.persons, recipe=recipe)

    def __str__(self) -> str:
        people = f", {self.persons} persons" if self.boundary == "pipeline" and self.persons != 1 else ""
        return f"{self.stat} of {self.boundary}{people}"


class Headlines(dict[str, float]):
    """Milliseconds that the reference took when a study began, by the text of the target: the study's scale."""

    def settle(self, target: str, milliseconds: float) -> None:
        """Takes a figure that was measured now; one class of headlines may ask others before it does."""
        self[target] = milliseconds


@dataclass(slots=True)
class _Reference:
    """The reference engine of one config in one process, and what it took when the study began."""

    name: str
    headline: float


@dataclass(slots=True)
class _Bench:
    """A device's measuring process with the reference engines that are open in it, by the digest of their config."""

    process: MeasuringProcess
    references: dict[str, _Reference] = field(default_factory=dict)
    memory: float | None = None


class LatencyMeter:
    """Measures candidates at grade `search`, in short slices between those of a reference engine. A context manager.

    One process per device keeps the reference engine of every config open; the devices stay locked until the end. A
    process that dies or is silent for too long is ended, and the candidate is tried once more in a new one.

    The figure is the ratio to the reference times the reference's own figure at the start of the study (its
    headline), so that candidates of different hours can be compared: drift of the machine is divided out, and slices
    are taken until the ratio's standard error is 2 % or less, as far as three times the grade's time allows. Of a
    device's further configs the headline is that of one which has one, times the ratio of both references taken in
    turns, so that its configs, precisions among them, can be compared with each other too.
    """

    def __init__(
        self,
        configs: Sequence[EngineConfig],
        *,
        reference: Path,
        question: LatencyQuestion | None = None,
        recipe: Recipe | None = None,
        folder: Path | None = None,
        timeout: float = 120.0,
        headlines: Mapping[str, float] | None = None,
    ) -> None:
        """Takes what will be measured.

        Args:
            configs: Engines that will be asked for.
            reference: ONNX file of the reference, the same for every config.
            question: Which latency is asked for.
            recipe: Recipe of the reference, and of candidates that bring none; boundary `pipeline` needs it.
            folder: Where the lock files lie; None is the system's folder for temporary files.
            timeout: Seconds that one answer of the process may take on top of the timed seconds.
            headlines: Milliseconds of the reference by the text of the target, from an earlier part of the study; a
                `Headlines` settles new ones its own way.
        """
        self.question = question or LatencyQuestion()
        self._configs = tuple(configs)
        self._reference, self._recipe = reference, recipe
        self._folder, self._timeout = folder, timeout
        self._headlines = headlines if isinstance(headlines, Headlines) else Headlines(headlines or {})
        self._benches: dict[str, _Bench] = {}
        self._cpu: dict[str, Json] = {}
        self._held = ExitStack()

    def __enter__(self) -> LatencyMeter:
        """Takes the locks of the devices.

        Raises:
            UserError: another process measures on one of them.
        """
        self._held.enter_context(
            device_locks({config.target.device for config in self._configs}, folder=self._folder, timeout=self._timeout)
        )
        cpu = fingerprint()["cpu"]
        assert isinstance(cpu, dict)
        self._cpu = cpu
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for device in list(self._benches):
            self._end(device)
        self._held.close()

    @property
    def headlines(self) -> dict[str, float]:
        """Milliseconds of the reference by the text of the target, as far as they are known."""
        return dict(self._headlines)

    def open(self, config: EngineConfig) -> float:
        """Opens the reference of a config unless it is open, and returns its headline in milliseconds.

        Raises:
            UserError: the target is not there, or the reference cannot run on it.
            MeasuringFailed: the process died or hung.
        """
        bench = self._benches.get(config.target.device)
        if bench is None:
            bench = self._benches[config.target.device] = _Bench(MeasuringProcess())
        if config.digest not in bench.references:
            target = str(config.target)
            scale = None if target in self._headlines else self._scale(config)
            job = self.question.job(self._reference, config, self._recipe)
            name, opened = bench.process.open(job, timeout=self._timeout)
            if target not in self._headlines:
                taken = (
                    self._headline(bench.process, name, job, opened)
                    if scale is None
                    else self._beside(bench.process, (name, scale), job, opened)
                )
                self._headlines.settle(target, taken)
            bench.references[config.digest] = _Reference(name, self._headlines[target])
        return bench.references[config.digest].headline

    def measure(self, model: Path, config: EngineConfig, *, recipe: Recipe | None = None) -> Measured:
        """Returns the latency of an ONNX file in milliseconds, drift divided out; `details` holds what was seen.

        Where the process died or hung and a second one answered, `details["retried"]` says what happened to the first.

        Args:
            model: The ONNX file (or a bundle).
            config: Its engine; the target is one of those the meter was made for.
            recipe: Its recipe, where it is not the reference's.

        Raises:
            MeasureFailed: the engine refuses the model, or the process died or hung twice.
            UserError: the reference cannot be measured on this target at all.
        """
        job = self.question.job(model, config, recipe or self._recipe)
        failures: list[str] = []
        while len(failures) < 2:
            try:
                self.open(config)
                found = self._measured(job)
                return found if not failures else replace(found, details={**found.details, "retried": failures[0]})
            except MeasuringFailed as error:
                self._end(config.target.device)
                failures.append(str(error))
        raise MeasureFailed(f"{config.target}: failed twice, in two processes: {failures[-1]}")

    def _measured(self, job: MeasureJob) -> Measured:
        started = time.monotonic()
        bench = self._benches[job.config.target.device]
        reference = bench.references[job.config.digest]
        try:
            name, opened = bench.process.open(job, timeout=self._timeout)
        except MeasuringFailed:
            raise
        except UserError as error:
            raise MeasureFailed(str(error)) from None
        names = (name, reference.name)
        slices, found = take_turns(bench.process.interleave, names, job=job, opened=opened, timeout=self._timeout)
        memory = bench.process.close(name, timeout=self._timeout)
        self._watch_memory(job.config.target.device, memory)
        details = self._details(job, opened, slices, found)
        details |= {
            "target": str(job.config.target),
            "headline_ms": reference.headline,
            "interval": [bound * reference.headline for bound in found.interval],
            "seconds": round(time.monotonic() - started, 3),
        }
        return Measured(found.ratio * reference.headline, details)

    def _headline(self, process: MeasuringProcess, name: str, job: MeasureJob, opened: Opened) -> float:
        samples = -(-job.proving_samples // HEADLINE_PIECES)
        limit = self._timeout + HUNG * expected_seconds(job, opened, seconds=HEADLINE_SECONDS, samples=samples)
        taken: list[float] = []
        for piece in range(HEADLINE_PIECES):
            if piece:
                time.sleep(HEADLINE_PAUSE)
            (run,) = process.interleave([Turn(name, HEADLINE_SECONDS, samples)], timeout=limit)
            taken += run.milliseconds
        return float(np.median(taken))

    def _scale(self, config: EngineConfig) -> _Reference | None:
        """Returns the reference, now open, that gives the others of a config's device their scale; None for itself."""
        beside = [each for each in self._configs if each.target.device == config.target.device]
        known = [each for each in beside if str(each.target) in self._headlines]
        first = next(iter([*known, *beside]), config)
        if first.digest == config.digest:
            return None
        self.open(first)
        return self._benches[config.target.device].references[first.digest]

    def _beside(
        self, process: MeasuringProcess, names: tuple[str, _Reference], job: MeasureJob, opened: Opened
    ) -> float:
        name, scale = names
        ratios = []
        for piece in range(SCALE_PIECES):
            if piece:
                time.sleep(HEADLINE_PAUSE)
            both = (name, scale.name)
            _, found = take_turns(process.interleave, both, job=job, opened=opened, timeout=self._timeout)
            ratios.append(found.ratio)
        return float(np.median(ratios)) * scale.headline

    def _details(self, job: MeasureJob, opened: Opened, slices: Sequence[Slice], found: Bracket) -> dict[str, Json]:
        run = joined(opened, slices)
        statistics = summarise([np.array(run.milliseconds)], np.random.default_rng(0))
        middle = (found.before + found.after) / 2
        drift = Drift(before=found.before, after=found.after, change=found.change, ratio=found.ratio, error=found.error)
        return {
            "raw_ms": found.figure,
            "ratio": found.ratio,
            "ratio_error": found.error,
            "ratio_interval": list(found.interval),
            "reference_ms": middle,
            "drift": found.change,
            "slices": len(slices),
            "samples": statistics.samples,
            "median_ms": statistics.median,
            "p90_ms": statistics.p90,
            "flags": list(flags_of(job, statistics, [run], drift, self._cpu)),
            "open_seconds": round(opened.open_seconds, 3),
            "warm_up_seconds": round(opened.warm_up.seconds, 3),
            "milliseconds": [round(value, 4) for value in run.milliseconds],
        }

    def _watch_memory(self, device: str, memory: float | None) -> None:
        bench = self._benches[device]
        if bench.memory is None:
            bench.memory = memory
        elif memory is not None and memory > bench.memory + MEMORY_GROWTH:
            self._end(device)

    def _end(self, device: str) -> None:
        bench = self._benches.pop(device, None)
        if bench is not None:
            bench.process.end()
