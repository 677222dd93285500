"""`Subject`: one opened engine or pipeline inside the measuring process, and the loops that time it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalenas_runtime.backends import get_backend
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256
from scalenas_runtime.measure.job import GRADES, MeasureJob, Opened, Slice
from scalenas_runtime.measure.warmup import warm_up
from scalenas_runtime.measure.watch import Watch
from scalenas_runtime.session import Array, Session, TensorSpec

if TYPE_CHECKING:
    from scalenas_runtime.pose import PoseEstimator
    from scalenas_runtime.segmentation import Segmenter
    from scalenas_runtime.tasks import Recipe
    from scalenas_runtime.timing import Timing

ROTATION = 8
_PHOTO = (480, 640)


class Subject(ABC):
    """What a job measures, opened and warm. `step` runs it once; `sample` times it."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._turn = 0
        self.parts: dict[str, list[float]] = {}
        self.late = 0

    @abstractmethod
    def step(self) -> float:
        """Runs once and returns the seconds it took."""

    def sample(self, seconds: float, samples: int) -> Slice:
        """Returns the latencies of as many runs as fill `seconds` and give `samples`."""
        for values in self.parts.values():
            values.clear()
        self.late = 0
        watch, start = Watch(), time.perf_counter()
        times = self._loop(seconds, samples)
        wall = time.perf_counter() - start
        return Slice(
            milliseconds=[1000 * value for value in times],
            seconds=wall,
            sharing=watch.read(),
            parts={name: list(values) for name, values in self.parts.items()},
            late=self.late,
        )

    def close(self) -> None:
        """Frees the engines."""
        self._held.close()

    def _loop(self, seconds: float, samples: int) -> list[float]:
        times: list[float] = []
        total = 0.0
        while total < seconds or len(times) < samples:
            times.append(self.step())
            total += times[-1]
        return times

    def _next(self) -> int:
        self._turn = (self._turn + 1) % ROTATION
        return self._turn


class EngineSubject(Subject):
    """One request at a time: inputs lie ready in host memory, outputs go into ready buffers."""

    def __init__(self, session: Session, feeds: Sequence[dict[str, Array]]) -> None:
        super().__init__()
        self._held.enter_context(session)
        self._session = session
        self._feeds = feeds
        # Buffers that are used again, as a loop over a camera uses them.
        self._out = {spec.name: np.empty(spec.shape, spec.dtype) for spec in session.outputs}

    def step(self) -> float:
        """Runs one inference."""
        feeds = self._feeds[self._next()]
        start = time.perf_counter()
        self._session.run(feeds, out=self._out)
        return time.perf_counter() - start


class StreamSubject(EngineSubject):
    """All streams busy (hint `throughput`): a sample is the time from a request's submission to its result.

    Every request that is submitted is waited for and counted, so samples over wall time is the rate.
    """

    def sample(self, seconds: float, samples: int) -> Slice:
        """Returns the latencies of requests that fill `seconds` and give `samples`, after one untimed in each stream.

        The warm-up runs one request at a time, so only here do all streams come to work.
        """
        for future in [self._submit() for _ in range(self._session.parallel)]:
            future.result()
        return super().sample(seconds, samples)

    def _loop(self, seconds: float, samples: int) -> list[float]:
        times: list[float] = []
        under_way: deque[tuple[float, Future[dict[str, Array]]]] = deque()
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds or len(times) + len(under_way) < samples:
            while len(under_way) < self._session.parallel:
                under_way.append((time.perf_counter(), self._submit()))
            times.append(self._finish(*under_way.popleft()))
        return times + [self._finish(*request) for request in under_way]

    def _submit(self) -> Future[dict[str, Array]]:
        return self._session.submit(self._feeds[self._next()])

    def _finish(self, started: float, future: Future[dict[str, Array]]) -> float:
        future.result()
        return time.perf_counter() - started


class PacedSubject(EngineSubject):
    """One inference a frame interval, asleep in between: clocks and caches cool down as behind a camera.

    A frame that is due while the one before still runs is late: it starts at once, and the next ones follow from there.
    """

    def __init__(self, session: Session, feeds: Sequence[dict[str, Array]], pace: float) -> None:
        super().__init__(session, feeds)
        self._interval = 1 / pace

    def _loop(self, seconds: float, samples: int) -> list[float]:
        times: list[float] = []
        begin = due = time.perf_counter()
        while due - begin < seconds or len(times) < samples:
            due += self._interval
            now = time.perf_counter()
            self.late += due < now
            due = max(due, now)
            time.sleep(due - now)
            times.append(self.step())
        return times


class PipelineSubject(Subject):
    """A decoded picture to its result: prepare, infer, decode."""

    def __init__(self, wrapper: PoseEstimator | Segmenter, calls: Sequence[Callable[[], Timing]]) -> None:
        super().__init__()
        self._held.callback(wrapper.close)
        self._calls = calls
        self.parts = {"pre": [], "infer": [], "post": []}

    def step(self) -> float:
        """Runs one picture."""
        call = self._calls[self._next()]
        start = time.perf_counter()
        timing = call()
        seconds = time.perf_counter() - start
        for name, value in (("pre", timing.pre_ms), ("infer", timing.infer_ms), ("post", timing.post_ms)):
            self.parts[name].append(value)
        return seconds


def open_subject(job: MeasureJob, *, rebuild: bool) -> tuple[Subject, Opened]:
    """Returns the job's engine or pipeline, warm, and what is known of it.

    Args:
        job: What to measure.
        rebuild: Compile the engine even where a bundle holds a built one.

    Raises:
        UserError: the model, the target or the boundary cannot be used here.
    """
    backend = get_backend(job.config.target.backend)
    _check_boundary(job, host_memory=backend.check(job.config.target).host_memory)
    start = time.perf_counter()
    session, model, recipe, compiled = _open_session(job, rebuild=rebuild)
    open_seconds = time.perf_counter() - start
    subject = _subject(job, session, recipe)
    try:
        warm = warm_up(subject.step, cap=GRADES[job.grade].warm_up)
    except BaseException:
        subject.close()
        raise
    opened = Opened(
        compiled=compiled,
        open_seconds=open_seconds,
        model_sha256=file_sha256(model),
        version=backend.version(),
        properties=session.properties,
        warm_up=warm,
    )
    return subject, opened


def noise(specs: Sequence[TensorSpec], seed: int, count: int = ROTATION) -> list[dict[str, Array]]:
    """Returns `count` feeds of noise: bytes over their whole range, floats from a normal distribution.

    Constant or zero inputs would let a processor run cooler and sparser than pictures do.
    """
    rng = np.random.default_rng(seed)

    def tensor(spec: TensorSpec) -> Array:
        if np.dtype(spec.dtype).kind == "f":
            return rng.standard_normal(spec.shape).astype(spec.dtype)
        limit = {"bool": 2, "int8": 128}.get(spec.dtype, 256)
        return rng.integers(0, limit, spec.shape).astype(spec.dtype)

    return [{spec.name: tensor(spec) for spec in specs} for _ in range(count)]


def _check_boundary(job: MeasureJob, *, host_memory: bool) -> None:
    target = job.config.target
    if job.boundary == "engine_wall" and not host_memory:
        raise UserError(
            f"{target}: every run copies to and from the device, so engine_wall cannot be told apart; "
            f"use engine_wall_io"
        )
    if job.boundary == "engine_wall_io" and host_memory:
        raise UserError(f"{target} works in host memory, so engine_wall_io is engine_wall; use engine_wall")
    if job.config.hint == "throughput" and job.boundary not in ("engine_wall", "engine_wall_io"):
        raise UserError(f"boundary {job.boundary} is measured with hint latency, got {job.config.hint}")


def _open_session(job: MeasureJob, *, rebuild: bool) -> tuple[Session, Path, Recipe | None, bool]:
    backend = get_backend(job.config.target.backend)
    if job.model.suffix == ".onnx":
        if job.boundary == "pipeline" and job.recipe is None:
            raise UserError(f"boundary pipeline needs a bundle, which says how pictures are prepared; got {job.model}")
        return backend.compile(job.model, job.config), job.model, job.recipe, True
    from scalenas_runtime.bundle import Bundle

    bundle = Bundle.open(job.model)
    model = bundle.model(job.config.batch, job.config.io)
    if rebuild:
        return backend.compile(model, job.config), model, bundle.recipe, True
    return bundle.load_config(job.config, build="auto"), model, bundle.recipe, False


def _subject(job: MeasureJob, session: Session, recipe: Recipe | None) -> Subject:
    if job.boundary == "pipeline" and recipe is not None:
        return _pipeline(job, session, recipe)
    feeds = noise(session.inputs, job.seed)
    if job.pace is not None:
        return PacedSubject(session, feeds, job.pace)
    if job.config.hint == "throughput":
        return StreamSubject(session, feeds)
    return EngineSubject(session, feeds)


def _pipeline(job: MeasureJob, session: Session, recipe: Recipe) -> Subject:
    from scalenas_runtime.pose import PoseEstimator
    from scalenas_runtime.scenes import person_scene, street_scene
    from scalenas_runtime.segmentation import Segmenter
    from scalenas_runtime.tasks import PoseRecipe

    if isinstance(recipe, PoseRecipe):
        estimator = PoseEstimator(session, recipe)
        scenes = [person_scene(job.seed, index, size=_PHOTO, portrait=True) for index in range(ROTATION)]
        boxes = [np.resize(scene.boxes, (job.persons, 4)) for scene in scenes]
        return PipelineSubject(
            estimator,
            [
                partial(_timing, estimator.estimate_timed, scene.picture, box)
                for scene, box in zip(scenes, boxes, strict=True)
            ],
        )
    segmenter = Segmenter(session, recipe)
    streets = [street_scene(job.seed, index, size=(recipe.height, recipe.width)) for index in range(ROTATION)]
    return PipelineSubject(segmenter, [partial(_timing, segmenter.segment_timed, street.picture) for street in streets])


def _timing(call: Callable[..., tuple[Any, Timing]], *arguments: Array) -> Timing:
    return call(*arguments)[1]
