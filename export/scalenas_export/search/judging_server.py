"""The judging process: `python -m scalenas_export.search.judging_server`, one request and one answer a line of JSON.

Requests: `{"do": "prepare", "id": ..., "task": {...}}` and `{"do": "judge", "id": ..., "model": ..., "config": {...}}`.
An engine that crashes or hangs takes this process with it and not the search.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from scalenas_export.search.data import DataSource, is_synthetic
from scalenas_export.search.judging import Prepared, prepare
from scalenas_runtime.backends import get_backend
from scalenas_runtime.errors import UserError
from scalenas_runtime.evaluate import Metric
from scalenas_runtime.measure.server import lines_while_open, private_stdout
from scalenas_runtime.records import Record, read_record
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import read_recipe


class JudgingTask(Record, frozen=True):
    """What engines are judged on.

    Attributes:
        source: The data.
        part: `search`, `val`, ...
        recipe: The recipe of the engines, as JSON.
        metric: What is asked of joints; the recipe's usual metric if None.
        limit: Take the first so many pictures; None takes all.
    """

    source: DataSource
    part: str
    recipe: dict[str, Any]
    metric: Metric | None = None
    limit: int | None = None


def serve(requests: Iterable[str], answers: IO[str]) -> None:
    """Answers every request until the last one; a mistake in one leaves the process fit for the next."""
    prepared: dict[str, Prepared] = {}
    for line in requests:
        try:
            answer: dict[str, Any] = {"ok": _answer(json.loads(line), prepared)}
        except UserError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(request: dict[str, Any], prepared: dict[str, Prepared]) -> dict[str, Any]:
    match request:
        case {"do": "prepare", "id": str(name), "task": dict(plain)}:
            task = read_record(JudgingTask, plain, what="judging task")
            recipe = read_recipe(task.recipe)
            dataset = task.source.open(recipe)
            data = dataset.labelled(task.part, size=(recipe.height, recipe.width))
            prepared[name] = prepare(recipe, data, metric=task.metric, limit=task.limit)
            return {
                "title": data.name,
                "pictures": prepared[name].count,
                "synthetic": is_synthetic(dataset, task.part),
            }
        case {"do": "judge", "id": str(name), "model": str(model), "config": dict(plain)}:
            if name not in prepared:
                raise UserError(f"nothing is prepared under {name!r}; prepared: {', '.join(prepared) or 'none'}")
            config = EngineConfig.from_json(plain)
            started = time.monotonic()
            with get_backend(config.target.backend).compile(Path(model), config) as session:
                opened = time.monotonic()
                done = prepared[name].judge(session)
            ended = time.monotonic()
            return {**done.to_json(), "seconds": {"open": opened - started, "judge": ended - opened}}
        case _:
            raise UserError(f"unknown request {json.dumps(request)[:200]}")


if __name__ == "__main__":
    with private_stdout() as stream:
        serve(lines_while_open(sys.stdin), stream)
