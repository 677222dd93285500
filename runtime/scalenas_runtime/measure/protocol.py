"""The protocol: fresh processes, targets in alternation, a reference engine around them, and one record each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from scalenas_runtime.canonical import Json
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.measure.job import (
    GRADES,
    HUNG,
    Drift,
    Grade,
    MeasureJob,
    Measurement,
    Opened,
    ProcessRun,
    Slice,
    expected_seconds,
    flags_of,
)
from scalenas_runtime.measure.lock import device_locks
from scalenas_runtime.measure.process import MeasuringProcess
from scalenas_runtime.measure.statistics import headline, summarise
from scalenas_runtime.measure.watch import Sharing

ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """How `run_jobs` goes about it.

    Attributes:
        reference: An engine measured before and after, which tells how far the machine drifted meanwhile.
        timeout: Seconds that one answer of a measuring process may take on top of the timed seconds.
        lock_timeout: Seconds to wait for another measurement on the same device.
        lock_folder: Where the lock files lie; None is the system's folder for temporary files.
        progress: Told a line about what is done next.
    """

    reference: MeasureJob | None = None
    timeout: float = 600.0
    lock_timeout: float = 600.0
    lock_folder: Path | None = None
    progress: Callable[[str], None] = field(default=lambda _: None)


def run_job(job: MeasureJob, plan: Plan | None = None) -> Measurement:
    """Returns one job's record; see `run_jobs`."""
    return run_jobs([job], plan)[0]


def run_jobs(jobs: Sequence[MeasureJob], plan: Plan | None = None) -> list[Measurement]:
    """Returns one record a job, in their order. Every engine runs in processes of its own, apart from this one.

    Several jobs are measured in turns of a sixth of their time, so that a machine that slows down does so for all.

    Raises:
        UserError: a job cannot be done here, or a device is being measured by another process.
        MeasuringFailed: a measuring process died or hung; it was ended.
    """
    plan = plan or Plan()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    everything = [*jobs, plan.reference] if plan.reference else jobs
    devices = {job.config.target.device for job in everything}
    with device_locks(devices, timeout=plan.lock_timeout, folder=plan.lock_folder, tell=plan.progress):
        machine = fingerprint()
        before = _reference(plan)
        runs: list[list[ProcessRun]] = [[] for _ in jobs]
        for number in range(max((GRADES[job.grade].processes for job in jobs), default=0)):
            active = [index for index, job in enumerate(jobs) if number < GRADES[job.grade].processes]
            for index, run in zip(active, _round([jobs[index] for index in active], number, plan), strict=True):
                runs[index].append(run)
        after = _reference(plan)
    return [_record(job, own, (before, after), machine, started) for job, own in zip(jobs, runs, strict=True)]


def _round(jobs: Sequence[MeasureJob], number: int, plan: Plan) -> list[ProcessRun]:
    with ExitStack() as held:
        processes, names, engines = [], [], []
        for job in jobs:
            grade = GRADES[job.grade]
            process = held.enter_context(MeasuringProcess())
            name, engine = process.open(job, rebuild=_rebuilds(grade, number), timeout=plan.timeout)
            processes.append(process)
            names.append(name)
            engines.append(engine)
            seconds = _expected(job, engine, 1)
            plan.progress(
                f"{job.config.target}: process {number + 1} of {grade.processes}, about {seconds:.1f} s of measuring"
            )
        slices: list[list[Slice]] = [[] for _ in jobs]
        turns = ROUNDS if len(jobs) > 1 else 1
        for _ in range(turns):
            for index, job in enumerate(jobs):
                seconds, samples = _share(job, turns)
                if turns > 1:  # the others' turns cooled its caches
                    processes[index].sample(names[index], 0.05, 3, timeout=plan.timeout)
                limit = plan.timeout + HUNG * _expected(job, engines[index], turns)
                slices[index].append(processes[index].sample(names[index], seconds, samples, timeout=limit))
    return [joined(engine, own) for engine, own in zip(engines, slices, strict=True)]


def _rebuilds(grade: Grade, number: int) -> bool:
    # The last processes, so that an engine that was built along the way is measured as it was loaded first.
    return number >= grade.processes - grade.rebuilt


def _share(job: MeasureJob, turns: int) -> tuple[float, int]:
    seconds, samples = job.wanted
    parts = GRADES[job.grade].processes * turns
    return seconds / parts, -(-samples // parts)


def _expected(job: MeasureJob, engine: Opened, turns: int) -> float:
    """Returns the seconds that one turn should take, as the warm-up went."""
    seconds, samples = _share(job, turns)
    return expected_seconds(job, engine, seconds=seconds, samples=samples)


def joined(engine: Opened, slices: Sequence[Slice]) -> ProcessRun:
    """Returns one process's share of a measurement, made of its slices in the order they were taken."""
    times = [value for item in slices for value in item.milliseconds]
    seconds = sum(item.seconds for item in slices)
    known = [(item.sharing, item.seconds) for item in slices if item.sharing is not None]
    weight = sum(share for _, share in known)
    sharing = None
    if weight:
        sharing = Sharing(
            others=round(sum(item.others * share for item, share in known) / weight, 4),
            stolen=round(sum(item.stolen * share for item, share in known) / weight, 4),
        )
    return ProcessRun(
        engine=engine,
        median=float(np.median(times)),
        seconds=seconds,
        sharing=sharing,
        milliseconds=times,
        parts={name: [value for item in slices for value in item.parts[name]] for name in slices[0].parts},
        late=sum(item.late for item in slices),
    )


def _reference(plan: Plan) -> float | None:
    if plan.reference is None:
        return None
    job = replace(plan.reference, grade="search")
    return _round([job], 0, plan)[0].median


def _record(
    job: MeasureJob,
    runs: Sequence[ProcessRun],
    around: tuple[float | None, float | None],
    machine: Mapping[str, Json],
    started: str,
) -> Measurement:
    samples = [np.array(run.milliseconds) for run in runs]
    statistics = summarise(samples, np.random.default_rng(job.seed))
    before, after = around
    drift = None
    if before is not None and after is not None:
        middle = (before + after) / 2
        drift = Drift(before=before, after=after, change=abs(after - before) / middle, ratio=headline(samples) / middle)
    pictures = 1 if job.boundary == "pipeline" else job.config.batch
    rate = 1000 * pictures / statistics.median
    if job.config.hint == "throughput":
        rate = pictures * statistics.samples / sum(run.seconds for run in runs)
    parts = {name: float(np.median(np.concatenate([run.parts[name] for run in runs]))) for name in runs[0].parts}
    cpu = machine["cpu"]
    assert isinstance(cpu, dict)
    return Measurement(
        job=job.to_json(),
        config_digest=job.config.digest,
        statistics=statistics,
        pictures_per_second=rate,
        parts=parts,
        flags=flags_of(job, statistics, runs, drift, cpu),
        processes=tuple(runs),
        drift=drift,
        fingerprint=dict(machine),
        started=started,
    )
