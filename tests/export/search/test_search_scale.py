"""All latencies of a study are on one scale, and what --resume and --join need must be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from scalenas.search import Objective, SearchOptions, get_sampler
from scalenas.search.database import DatabaseLedger
from scalenas.search.options import make_head
from scalenas_export.search.data import DataSource
from scalenas_export.search.request import SearchRequest
from scalenas_export.search.run import _await_study, _earlier, _SharedHeadlines
from scalenas_export.search.view import LineView
from scalenas_runtime.errors import UserError
from scalenas_runtime.targets import EngineConfig, Target
from tests.export.search.made_trials import SETTINGS, SPACE

ONE, TWO = "openvino:cpu/fp32", "onnxruntime:cpu/fp32"


def ledger(storage: str) -> DatabaseLedger:
    goals = [Objective("latency", lambda _: 1.0, "minimize")]
    head = make_head(SPACE, goals, [], get_sampler("random"), SearchOptions(settings=SETTINGS, n_trials=2))
    return DatabaseLedger(storage, "search", head)


def request(folder: Path, **changed: object) -> SearchRequest:
    config = EngineConfig(Target.parse(ONE))
    base = SearchRequest(weights="w", configs=(config,), folder=folder, n_trials=1, data=DataSource())
    return replace(base, **changed)  # type: ignore[arg-type]


def test_the_first_headline_of_a_target_holds_for_all_workers(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.db")
    ledger(storage).close()
    first, second = _SharedHeadlines(storage, "search"), _SharedHeadlines(storage, "search")
    first.settle(ONE, 4.5)
    second.settle(ONE, 5.0)
    second.settle(TWO, 9.0)
    first.settle(TWO, 8.0)
    assert first == second == {ONE: 4.5, TWO: 9.0}
    asked = request(tmp_path, storage=storage, join=True)
    assert _earlier(asked, storage, LineView(lambda _: None)) == {ONE: 4.5, TWO: 9.0}


def test_a_worker_that_joins_waits_until_the_study_is_there(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.db")
    asked = request(tmp_path, storage=storage, join=True)
    told: list[str] = []
    waiting = Thread(target=lambda: _await_study(asked, storage, LineView(told.append), lambda: False))
    waiting.start()
    while not told:
        waiting.join(0.05)
    assert waiting.is_alive()
    ledger(storage).close()
    waiting.join(30)
    assert not waiting.is_alive()
    with pytest.raises(UserError, match="nobody began the study that this worker should join"):
        _await_study(
            replace(asked, study_name="typo", device_timeout=0.1), storage, LineView(told.append), lambda: False
        )


def test_ctrl_c_ends_the_wait_for_a_study(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.db")
    with pytest.raises(KeyboardInterrupt):
        _await_study(request(tmp_path, storage=storage, join=True), storage, LineView(lambda _: None), lambda: True)


def test_a_study_that_shall_go_on_must_be_there(tmp_path: Path) -> None:
    told: list[str] = []
    view = LineView(told.append)
    # Killed before it had a study: the folder is there, and that is all.
    assert _earlier(request(tmp_path / "run", resume=True), str(tmp_path / "run" / "study.db"), view) == {}
    assert "it begins now" in told[0]
    storage = str(tmp_path / "typo.db")
    with pytest.raises(UserError, match="there is nothing to resume"):
        _earlier(request(tmp_path, resume=True, storage=storage), storage, view)
    odd = str(tmp_path / "10:15" / "study.db")
    assert _earlier(request(tmp_path), odd, view) == {}
