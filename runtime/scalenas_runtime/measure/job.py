"""What to measure (`MeasureJob`), how thoroughly (`Grade`), and what comes back (`Measurement`)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scalenas_runtime.errors import UserError
from scalenas_runtime.measure.statistics import Statistics, minimum_samples
from scalenas_runtime.measure.warmup import WarmUp
from scalenas_runtime.measure.watch import Sharing
from scalenas_runtime.records import Record, read_record, to_plain
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import Recipe, read_recipe

BOUNDARIES = ("engine_wall", "engine_wall_io", "pipeline", "paced@<fps>")
STATISTICS = {"median": None, "p90": 90.0, "p95": 95.0, "p99": 99.0}


@dataclass(frozen=True, slots=True)
class Grade:
    """How thorough a measurement is; seconds and samples are at least, over all processes together.

    Attributes:
        name: `search`, `standard` or `report`.
        seconds: Time spent in timed inferences.
        samples: Timed inferences.
        processes: Fresh processes, one after another.
        rebuilt: In how many of them the engine is compiled anew, even where a built one is there.
        warm_up: Seconds after which the warm-up ends, steady or not.
    """

    name: str
    seconds: float
    samples: int
    processes: int
    rebuilt: int
    warm_up: float


GRADES = {
    "search": Grade("search", 0.5, 30, 1, 0, 0.5),
    "standard": Grade("standard", 3.0, 662, 1, 0, 5.0),
    "report": Grade("report", 10.0, 2010, 5, 2, 5.0),
}


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """One thing to measure.

    Attributes:
        model: An ONNX file, or a bundle's directory or zip.
        config: Target, threads, hint, batch and so on.
        grade: `search`, `standard` or `report`.
        boundary: `engine_wall` (host memory in, host memory out, on a device that works in it), `engine_wall_io` (the
            same with the copies to and from a device's own memory), `pipeline` (decoded picture to result) or
            `paced@<fps>` (the engine, with a pause between frames as a camera leaves one).
        stat: The figure that must be proven: `median`, `p90`, `p95` or `p99`; it may raise the number of samples.
        seconds: Timed seconds instead of the grade's seconds and samples; None keeps the grade's.
        persons: Boxes in the picture of a pose `pipeline`.
        seed: Seed of the noise the inputs hold.
        recipe: How pictures are prepared and outputs decoded, for the `pipeline` of an ONNX file; a bundle has its own.
    """

    model: Path
    config: EngineConfig
    grade: str = "standard"
    boundary: str = "engine_wall"
    stat: str = "median"
    seconds: float | None = None
    persons: int = 1
    seed: int = 0
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("grade", self.grade, GRADES), ("stat", self.stat, STATISTICS)):
            if value not in known:
                raise UserError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if self.boundary not in BOUNDARIES[:3] and self.pace is None:
            raise UserError(f"unknown boundary {self.boundary!r}; known: {', '.join(BOUNDARIES)}, for example paced@15")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise UserError(f"seconds must be a positive number, got {self.seconds}")
        if self.persons < 1:
            raise UserError(f"persons must be at least 1, got {self.persons}")
        if self.persons != 1 and self.boundary != "pipeline":
            raise UserError(
                f"{self.persons} persons are asked for, and the boundary {self.boundary} has none; take the boundary "
                "pipeline, or leave persons out"
            )
        if self.config.target.host is not None:
            raise UserError(
                f"{self.config.target}: only this machine is measured; run the command on {self.config.target.host}"
            )

    @property
    def pace(self) -> float | None:
        """Frames a second of `paced@<fps>`, or None for another boundary."""
        found = re.fullmatch(r"paced@(\d+(?:\.\d+)?)", self.boundary)
        return float(found.group(1)) if found and float(found.group(1)) > 0 else None

    @property
    def wanted(self) -> tuple[float, int]:
        """Timed seconds and samples that the measurement must reach over all its processes."""
        return (GRADES[self.grade].seconds, self.proving_samples) if self.seconds is None else (self.seconds, 1)

    @property
    def proving_samples(self) -> int:
        """Samples that the grade and the figure to be proven ask for."""
        asked, percent = GRADES[self.grade].samples, STATISTICS[self.stat]
        return asked if percent is None else max(asked, minimum_samples(percent))

    def to_json(self) -> dict[str, Any]:
        """Returns the job as JSON values."""
        plain: dict[str, Any] = {
            "schema": "scalenas.measure-job/1",
            "model": str(self.model),
            "config": self.config.to_json(),
            "grade": self.grade,
            "boundary": self.boundary,
            "stat": self.stat,
            "seconds": self.seconds,
            "persons": self.persons,
            "seed": self.seed,
        }
        if self.recipe is not None:
            plain["recipe"] = to_plain(self.recipe)
        return plain

    @staticmethod
    def from_json(value: object) -> MeasureJob:
        """Returns the job that `to_json` wrote.

        Raises:
            UserError: another schema, a missing, unknown or wrong-typed key, or an impossible value.
        """
        plain = to_plain(read_record(_JobKeys, value, what="measure job"))
        plain.pop("schema")
        read = {
            "model": Path(plain["model"]),
            "config": EngineConfig.from_json(plain["config"]),
            "recipe": None if plain["recipe"] is None else read_recipe(plain["recipe"]),
        }
        return MeasureJob(**{**plain, **read})


class _JobKeys(Record, frozen=True):
    schema: Literal["scalenas.measure-job/1"]
    model: str
    config: dict[str, str | int | None]
    grade: str = "standard"
    boundary: str = "engine_wall"
    stat: str = "median"
    seconds: float | None = None
    persons: int = 1
    seed: int = 0
    recipe: dict[str, Any] | None = None


class Opened(Record, frozen=True):
    """What one process says of the engine it measured.

    Attributes:
        compiled: The engine was compiled in this process, not loaded from an engine folder.
        open_seconds: Compiling or loading it.
        model_sha256: SHA-256 of the ONNX file.
        version: Version of the engine's package.
        properties: What the engine says of itself: precision it runs, threads, streams, provider.
        warm_up: The warm-up.
    """

    compiled: bool
    open_seconds: float
    model_sha256: str
    version: str
    properties: dict[str, str]
    warm_up: WarmUp


class Turn(Record, frozen=True):
    """What one of several opened engines is asked for in its turn.

    Attributes:
        id: Its name in the process.
        seconds: Timed seconds, at least.
        samples: Timed inferences, at least.
        settle: Begin with an inference that does not count, as the turn before cooled the caches.
    """

    id: str
    seconds: float
    samples: int
    settle: bool = True


class Slice(Record, frozen=True):
    """Inferences timed in one go.

    Attributes:
        milliseconds: One latency each, in the order they were taken.
        seconds: Wall time of the timed part.
        sharing: Who else used the processor meanwhile; of slices in turns, during all of these.
        parts: Milliseconds of `pre`, `infer` and `post` of each sample, for the boundary `pipeline`.
        late: Frames that started after they were due, for the boundary `paced@<fps>`.
    """

    milliseconds: list[float]
    seconds: float
    sharing: Sharing | None
    parts: dict[str, list[float]]
    late: int = 0


class ProcessRun(Record, frozen=True):
    """One process's share: its engine, its median and its raw samples in milliseconds; `late` as in `Slice`."""

    engine: Opened
    median: float
    seconds: float
    sharing: Sharing | None
    milliseconds: list[float]
    parts: dict[str, list[float]]
    late: int = 0


class Drift(Record, frozen=True):
    """The reference engine's medians in milliseconds, and the relative change between them.

    Attributes:
        before: Its median before, or over the first half of the turns it took with what was measured.
        after: Its median after, or over the second half.
        change: How far these two lie apart, relative to their middle.
        ratio: The measured figure over the reference's.
        error: Standard error of `ratio`, where both took turns.
    """

    before: float
    after: float
    change: float
    ratio: float
    error: float | None = None


class Measurement(Record, frozen=True):
    """`scalenas.measurement/1`: a latency with everything that is needed to believe it.

    Attributes:
        job: The job as JSON, and `config_digest` the digest of its engine config.
        statistics: In milliseconds an inference (`pipeline`: a picture).
        pictures_per_second: At the median; with hint `throughput`, what was reached with all streams busy.
        parts: Medians of `pre`, `infer` and `post` in milliseconds, for the boundary `pipeline`.
        flags: What makes the figure less certain (`FLAGS` says what each means).
        processes: One entry a process, with the raw samples.
        drift: The reference engine around this measurement; None where there was none. Its `ratio` is this
            median over the reference's.
        fingerprint: The machine.
        started: UTC time in ISO form.
    """

    job: dict[str, Any]
    config_digest: str
    statistics: Statistics
    pictures_per_second: float
    parts: dict[str, float]
    flags: tuple[str, ...]
    processes: tuple[ProcessRun, ...]
    drift: Drift | None
    fingerprint: dict[str, Any]
    started: str
    schema: Literal["scalenas.measurement/1"] = "scalenas.measurement/1"

    def without_samples(self) -> dict[str, Any]:
        """Returns the record as JSON values, the raw samples and parts left out."""
        plain = to_plain(self)
        for process in plain["processes"]:
            del process["milliseconds"], process["parts"]
        return plain


FLAGS = {
    "unstable": "standard deviation over 2.5 % of the mean",
    "few_samples": "fewer samples than the grade asks for",
    "not_steady": "the latency still moved when the warm-up ended",
    "not_paced": "over 1 % of the frames came before the one before was done, so the pace was not kept",
    "shared_cpu": "other processes took over 5 % of the processors",
    "stolen_cpu": "the hypervisor took over 1 % of the processors",
    "cpu_quota": "the control group allows fewer processors than the process may run on",
    "governor": "the clock is not pinned to `performance`",
    "drift": "the reference engine changed by over 2 % between before and after",
    "imprecise": "the standard error of the ratio to the reference engine is over 2 %",
}
# To this standard error, relative to it, a ratio to the reference engine is wanted.
PRECISION = 0.02
# So many times as long as expected may anything take, beyond the timeout, before its process counts as hung.
HUNG = 20


def flags_of(
    job: MeasureJob, statistics: Statistics, processes: Sequence[ProcessRun], drift: Drift | None, cpu: dict[str, Any]
) -> tuple[str, ...]:
    """Returns the names out of `FLAGS` that apply; `cpu` is that of the fingerprint."""
    sharing = [process.sharing for process in processes if process.sharing is not None]
    applies = {
        "unstable": statistics.cov > 0.025,
        "few_samples": statistics.samples < job.proving_samples,
        "not_steady": not all(process.engine.warm_up.steady for process in processes),
        "not_paced": sum(process.late for process in processes) > 0.01 * statistics.samples,
        "shared_cpu": any(item.others > 0.05 for item in sharing),
        "stolen_cpu": any(item.stolen > 0.01 for item in sharing),
        "cpu_quota": cpu["quota"] is not None and cpu["quota"] < cpu["affinity"],
        "governor": cpu["governor"] not in (None, "performance"),
        "drift": drift is not None and drift.change > 0.02,
        "imprecise": drift is not None and drift.error is not None and drift.error > PRECISION * drift.ratio,
    }
    return tuple(name for name in FLAGS if applies[name])


def expected_seconds(job: MeasureJob, opened: Opened, *, seconds: float, samples: int) -> float:
    """Returns how many seconds so many seconds and samples should take, as the warm-up went."""
    each = opened.warm_up.seconds / opened.warm_up.iterations
    return max(seconds, samples * each, samples / job.pace if job.pace else 0.0)
