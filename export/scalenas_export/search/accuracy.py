"""`AccuracyJudge`: accuracy of candidates through the engine, in a process apart that may die or hang."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from scalenas.search.objectives import Measured, MeasureFailed
from scalenas.search.recording import read_records
from scalenas_export.search.data import DataSource
from scalenas_export.search.judging_server import JudgingTask
from scalenas_runtime.canonical import Json, digest
from scalenas_runtime.errors import UserError
from scalenas_runtime.evaluate import Metric
from scalenas_runtime.measure import MeasuringFailed, ServedProcess
from scalenas_runtime.records import Record, read_record, to_plain
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import PoseRecipe, Recipe

SERVE = (sys.executable, "-m", "scalenas_export.search.judging_server")
BATCH = 8


class Judged(Record, frozen=True):
    """What candidates are judged on.

    Attributes:
        title: The data, in words.
        pictures: How many.
        synthetic: All of them are drawn.
    """

    title: str
    pictures: int
    synthetic: bool


class AccuracyJudge:
    """Judges engines on one part of a data set. A context manager.

    Pictures are read and prepared once for each recipe, by the process that runs the engines; pre-processing,
    decoding and metric are the runtime's own. A process that dies or hangs is ended, and the candidate is tried once
    more in a new one.
    """

    def __init__(
        self,
        source: DataSource,
        *,
        part: str = "search",
        metric: Metric | None = None,
        limit: int | None = None,
        timeout: float = 600.0,
    ) -> None:
        """Takes what candidates are judged on.

        Args:
            source: The data.
            part: `search` while searching; `val` and `test` are for reports.
            metric: What is asked of joints; the recipe's usual metric if None.
            limit: Judge the first so many pictures.
            timeout: Seconds that one preparation or judgement may take.

        Raises:
            UserError: a limit below 1.
        """
        if limit is not None and limit < 1:
            raise UserError(f"the limit of pictures must be at least 1, got {limit}")
        self._source, self._part, self._metric, self._limit = source, part, metric, limit
        self._timeout = timeout
        self._process: ServedProcess | None = None
        self._prepared: dict[str, Judged] = {}

    def __enter__(self) -> AccuracyJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def prepare(self, recipe: Recipe) -> Judged:
        """Returns what engines of a recipe are judged on; pictures are read now unless they were before.

        Raises:
            UserError: the data cannot be read or do not fit the recipe.
            MeasuringFailed: the process died or hung.
        """
        plain = to_plain(recipe)
        name = digest(plain)
        if self._process is None:
            self._process = JudgingProcess(SERVE)
        if name not in self._prepared:
            task = JudgingTask(
                source=self._source, part=self._part, recipe=plain, metric=self._metric, limit=self._limit
            )
            answer = self._process.ask({"do": "prepare", "id": name, "task": to_plain(task)}, self._timeout)
            self._prepared[name] = read_record(Judged, answer, what="answer of the judging process")
        return self._prepared[name]

    def measure(self, model: Path, config: EngineConfig, recipe: Recipe) -> Measured:
        """Returns the accuracy of an ONNX file through its engine, 0..1; `details` holds metric, interval and counts.

        Where the process died or hung and a second one answered, `details["retried"]` says what happened to the first.

        Args:
            model: The ONNX file, raw form; its batch is the config's, or open.
            config: The engine; hint and threads are its own.
            recipe: The recipe of the net.

        Raises:
            MeasureFailed: the engine refuses the model, nothing could be judged, or the process died or hung twice.
            UserError: the data cannot be read or do not fit the recipe.
        """
        failures: list[str] = []
        while len(failures) < 2:
            try:
                judged = self.prepare(recipe)
                found = _measured(self._judge(model, config, recipe), judged, config)
                return found if not failures else replace(found, details={**found.details, "retried": failures[0]})
            except MeasuringFailed as error:
                self._end()
                failures.append(str(error))
        raise MeasureFailed(f"{config.target}: failed twice, in two processes: {failures[-1]}")

    def _judge(self, model: Path, config: EngineConfig, recipe: Recipe) -> dict[str, Any]:
        assert self._process is not None
        request = {
            "do": "judge",
            "id": digest(to_plain(recipe)),
            "model": str(model),
            "config": config.to_json(),
        }
        try:
            return self._process.ask(request, self._timeout)
        except MeasuringFailed:
            raise
        except UserError as error:
            raise MeasureFailed(str(error)) from None

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
        self._process = None
        self._prepared.clear()


def recorded_judged(records: Path) -> Judged | None:
    """Returns what the candidates of a `records.jsonl` were judged on, None where no accuracy was measured.

    Raises:
        UserError: the file cannot be read.
    """
    for trial in read_records(records):
        for details in trial.details.values():
            title, pictures, synthetic = (details.get(key) for key in ("data", "pictures", "synthetic"))
            if isinstance(title, str) and isinstance(pictures, int) and isinstance(synthetic, bool):
                return Judged(title, pictures, synthetic)
    return None


class JudgingProcess(ServedProcess):
    """A process that runs engines on prepared pictures."""

    _name = "the judging process"


def judging_config(config: EngineConfig, recipe: Recipe) -> EngineConfig:
    """Returns the config that judges: crops of people in batches, pictures with class maps one by one."""
    return replace(config, batch=BATCH if isinstance(recipe, PoseRecipe) else 1)


def _measured(answer: dict[str, Any], judged: Judged, config: EngineConfig) -> Measured:
    value = answer["value"]
    if value is None:
        raise MeasureFailed(f"{config.target}: nothing could be judged on {judged.title}: {answer['counts']}")
    details: dict[str, Json] = {
        "metric": answer["metric"],
        "interval": answer["interval"],
        "pictures": judged.pictures,
        "data": judged.title,
        "synthetic": judged.synthetic,
        "batch": config.batch,
        "seconds": {key: round(part, 3) for key, part in answer["seconds"].items()},
    }
    return Measured(float(value), details)
