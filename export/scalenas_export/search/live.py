"""`Live`: the instruments of one search, open while it runs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from scalenas_export.search.accuracy import AccuracyJudge, Judged, recorded_judged
from scalenas_export.search.deployment import deployed
from scalenas_export.search.evaluator import CalibrationPictures, Instruments, LiveEvaluator, write_reference
from scalenas_export.search.meter import Headlines, LatencyMeter
from scalenas_export.search.progress import Plan
from scalenas_export.search.request import SearchRequest
from scalenas_export.search.setup import Frame, measures, search_plan


class Live:
    """The instruments of one search. A context manager.

    Attributes:
        request: What is searched.
        frame: What all candidates have in common.
        folder: For graphs in passing.
        meter: Latency.
        judge: Accuracy.
        judged: What accuracy is about, that of the records where figures are replayed; None without accuracy.
        evaluator: Both, from a candidate.
        measured: Objectives and constraints.
        plan: What a view must know.
    """

    def __init__(
        self,
        request: SearchRequest,
        frame: Frame,
        headlines: Headlines,
    ) -> None:
        """Takes what is searched, and the scale of its latencies."""
        self.request, self.frame = request, frame
        self._headlines = headlines
        self._held, self._metering = ExitStack(), ExitStack()
        self.judged: Judged | None = None

    def __enter__(self) -> Live:
        """Reads the data, takes the devices' locks, and writes the reference.

        Raises:
            UserError: the data cannot be read, or another process measures on a device.
        """
        request, frame = self.request, self.frame
        with ExitStack() as opening:
            folder = Path(opening.enter_context(TemporaryDirectory(prefix="scalenas-search-")))
            self.folder = folder
            self.judge = opening.enter_context(
                AccuracyJudge(
                    request.data, metric=request.metric, limit=request.limit, timeout=5 * request.device_timeout
                )
            )
            if "accuracy" in request.goals:
                replay = request.replay
                self.judged = self.judge.prepare(frame.recipe) if replay is None else recorded_judged(replay)
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
            instruments = Instruments(self.meter, self.judge, self.calibration, folder, frame.statistics)
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
