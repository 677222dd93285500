"""`LiveEvaluator`: from a candidate to its latency and its accuracy, each through the engine that would ship."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas.search.candidates import Candidate
from scalenas.search.objectives import Measure, Measured
from scalenas_export.calibration import Calibration
from scalenas_export.search.accuracy import AccuracyJudge, judging_config
from scalenas_export.search.data import DataSource
from scalenas_export.search.deployment import Deployed, chosen_config, deployed
from scalenas_export.search.meter import LatencyMeter
from scalenas_runtime.canonical import Json
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import Recipe

if TYPE_CHECKING:
    from scalenas.space import SearchSpace
    from scalenas.spec import SubnetSpec
    from scalenas.static import StaticNet
    from scalenas.transferred_statistics import Rule
    from scalenas.weights import Weights
    from scalenas_export.fast_graph import CandidateGraph


@dataclass(frozen=True, slots=True)
class Instruments:
    """What a `LiveEvaluator` measures with.

    Attributes:
        meter: Latency.
        judge: Accuracy.
        calibration: Gives the pictures for BN statistics at a recipe's size; asked once for each size.
        folder: An existing folder for graphs in passing.
        statistics: How BN statistics come from these pictures.
    """

    meter: LatencyMeter
    judge: AccuracyJudge
    calibration: Callable[[Recipe], Calibration]
    folder: Path
    statistics: Rule


@dataclass(slots=True)
class _Work:
    """What is known of the newest candidate, so that its second measure need not begin anew."""

    of: Deployed
    net: StaticNet
    recalibrated: bool = False
    any_batch: bool = False
    slow_because: str = ""
    files: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class LiveEvaluator:
    """Measures candidates of one supernet. One thread at a time.

    Latency needs no BN statistics and comes first; only a candidate that is asked for its accuracy is recalibrated.
    """

    def __init__(self, weights: Weights, space: SearchSpace, recipe: Recipe, instruments: Instruments) -> None:
        """Takes the supernet's weights, their family and recipe, and what to measure with."""
        self._weights, self._space, self._recipe = weights, space, recipe
        self._instruments = instruments
        self._work: _Work | None = None
        self._recalibrations: dict[tuple[int, int], Callable[[StaticNet], int]] = {}

    def latency(self, config: EngineConfig) -> Measure:
        """Returns what measures a candidate's latency in milliseconds on an engine."""

        def measure(candidate: Candidate) -> Measured:
            work = self._of(candidate)
            model = self._file(work, "latency")
            found = self._instruments.meter.measure(
                model, chosen_config(config, candidate.choices), recipe=work.of.recipe
            )
            return _with_preparation(found, work)

        return measure

    def accuracy(self, config: EngineConfig) -> Measure:
        """Returns what measures a candidate's accuracy, 0..1, through an engine, BN recalibrated."""

        def measure(candidate: Candidate) -> Measured:
            work = self._of(candidate)
            model = self._file(work, "accuracy")
            engine = chosen_config(config, candidate.choices)
            if work.any_batch:
                engine = judging_config(engine, work.of.recipe)
            found = self._instruments.judge.measure(model, engine, work.of.recipe)
            return _with_preparation(found, work)

        return measure

    def write_graph(self, spec: SubnetSpec, choices: Mapping[str, str], path: Path) -> Recipe:
        """Writes the recalibrated net as an ONNX file of batch 1, in raw form, and returns its recipe."""
        work = self._begun(deployed(self._space, self._recipe, spec, choices))
        self._recalibrate(work)
        _write(path, _graph(work))
        return work.of.recipe

    def _of(self, candidate: Candidate) -> _Work:
        of = deployed(self._space, self._recipe, candidate.spec, candidate.choices)
        if self._work is None or self._work.of != of:
            self._work = self._begun(of)
        return self._work

    def _begun(self, of: Deployed) -> _Work:
        started = time.monotonic()
        net = inherited_net(self._weights, self._space, of.spec)
        return _Work(of, net, seconds={"net": time.monotonic() - started})

    def _file(self, work: _Work, what: str) -> Path:
        if what not in work.files:
            path = self._instruments.folder / f"{what}.onnx"
            if what == "accuracy":
                self._recalibrate(work)
            with _timed(work, "graph"):
                graph = _graph(work)
                work.slow_because = "" if graph.path == "fast" else graph.reason
                # Other exporters may have written the batch into a Reshape; our own graphs take any.
                if what == "accuracy" and graph.path == "fast":
                    _open_batch(graph)
                    work.any_batch = True
                _write(path, graph)
            work.files[what] = path
        return work.files[what]

    def _recalibrate(self, work: _Work) -> None:
        if work.recalibrated:
            return
        with _timed(work, "recalibration"):
            self._recalibration(work.of.recipe)(work.net)
        work.recalibrated = True

    def _recalibration(self, recipe: Recipe) -> Callable[[StaticNet], int]:
        from scalenas.shared_recalibration import SharedRecalibration
        from scalenas.transferred_statistics import statistics_by

        size = (recipe.height, recipe.width)
        if size not in self._recalibrations:
            batches = self._instruments.calibration(recipe).batches(recipe)
            measure = SharedRecalibration(self._space, self._weights.settings, batches)
            rule = self._instruments.statistics
            self._recalibrations[size] = statistics_by(rule, self._weights, self._space, measure)
        return self._recalibrations[size]


class CalibrationPictures:
    """Pictures of the `calibrate` part at any input size, read once for each."""

    def __init__(self, source: DataSource, count: int) -> None:
        """Takes the data and how many pictures to take of them at most."""
        self._source, self._count = source, count
        self._known: dict[tuple[int, int], Calibration] = {}

    def __call__(self, recipe: Recipe) -> Calibration:
        """Returns the pictures for a recipe.

        Raises:
            UserError: the data cannot be read or do not fit the recipe.
        """
        from scalenas.training.supply import plain_pictures

        size = (recipe.height, recipe.width)
        if size not in self._known:
            dataset = self._source.open(recipe)
            pictures = plain_pictures(dataset.samples("calibrate", recipe), self._count)
            self._known[size] = Calibration(f"{dataset.path.stem} calibrate", pictures)
        return self._known[size]


def inherited_net(weights: Weights, space: SearchSpace, spec: SubnetSpec) -> StaticNet:
    """Returns the static net of a spec with the supernet's very tensors, in eval mode, its BN statistics as they came.

    Raises:
        UserError: the weights are of another family or settings.
    """
    from scalenas.inheriting import inherit

    return inherit(weights, spec, space=space)


def write_reference(weights: Weights, space: SearchSpace, of: Deployed, path: Path) -> None:
    """Writes a member as an ONNX file that latency is measured on: BN statistics as they came, which change no time."""
    _write(path, _graph(_Work(of, inherited_net(weights, space, of.spec))))


def _graph(work: _Work) -> CandidateGraph:
    from scalenas_export.fast_graph import candidate_graph

    return candidate_graph(work.net, work.of.recipe)


def _open_batch(graph: CandidateGraph) -> None:
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _write(path: Path, graph: CandidateGraph) -> None:
    path.write_bytes(graph.model.SerializeToString())


@contextmanager
def _timed(work: _Work, step: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        work.seconds[step] = work.seconds.get(step, 0.0) + time.monotonic() - started


def _with_preparation(found: Measured, work: _Work) -> Measured:
    seconds: dict[str, Json] = {step: round(value, 3) for step, value in work.seconds.items()}
    work.seconds.clear()
    details: dict[str, Json] = {**found.details, "prepare_seconds": seconds}
    if work.slow_because:
        details["slow_graph"] = work.slow_because
    return Measured(found.value, details)
