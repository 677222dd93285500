"""The base class of sessions, with an engine that is a few lines of NumPy and can be held at will."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from scalenas_runtime.session import Array, Feeds, Session, TensorSpec


class Doubling(Session):
    def __init__(self, *, parallel: int = 1, queue_size: int | None = None) -> None:
        spec = TensorSpec("x", "float32", (2,))
        super().__init__([spec], [TensorSpec("y", "float32", (2,))], parallel=parallel, queue_size=queue_size)
        self.gate = threading.Event()
        self.gate.set()
        self.inside = self.most = self.closed = 0
        self._count = threading.Lock()

    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        with self._count:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.gate.wait(10)
        if np.isnan(feeds["x"]).any():
            raise FloatingPointError("NaN went in")
        np.multiply(feeds["x"], 2, out=out["y"])
        with self._count:
            self.inside -= 1

    def _close(self) -> None:
        self.closed += 1


def _feeds(value: float) -> dict[str, Any]:
    return {"x": np.full(2, value, np.float32)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parallel": 0}, "parallel must be at least 1, got 0"),
        ({"queue_size": 0}, "queue_size must be at least 1, got 0"),
    ],
)
def test_impossible_sizes(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Doubling(**arguments)


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_than_parallel_inferences_at_once(parallel: int) -> None:
    with Doubling(parallel=parallel, queue_size=8) as session:
        session.gate.clear()
        futures = [session.submit(_feeds(value)) for value in range(8)]
        threading.Timer(0.05, session.gate.set).start()
        assert [float(future.result()["y"][0]) for future in futures] == [0, 2, 4, 6, 8, 10, 12, 14]
        assert session.most == parallel


def test_submit_waits_while_the_queue_is_full() -> None:
    with Doubling(queue_size=2) as session:
        session.gate.clear()
        first = [session.submit(_feeds(value)) for value in range(2)]
        third: list[Future[dict[str, Array]]] = []
        thread = threading.Thread(target=lambda: third.append(session.submit(_feeds(2))))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        assert not third
        session.gate.set()
        thread.join(10)
        assert [float(future.result()["y"][0]) for future in [*first, *third]] == [0, 2, 4]


def test_error_of_the_engine_arrives_and_frees_the_place() -> None:
    with Doubling(queue_size=1) as session:
        for _ in range(3):
            with pytest.raises(FloatingPointError, match="NaN went in"):
                session.submit(_feeds(np.nan)).result()
        with pytest.raises(FloatingPointError, match="NaN went in"):
            session.run(_feeds(np.nan))
        assert session.submit(_feeds(1)).result()["y"][0] == 2


def test_close_waits_for_what_is_under_way() -> None:
    session = Doubling()
    session.gate.clear()
    futures = [session.submit(_feeds(value)) for value in range(3)]
    closing = threading.Thread(target=session.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    assert session.closed == 0
    session.gate.set()
    closing.join(10)
    assert [float(future.result()["y"][0]) for future in futures] == [0, 2, 4]
    session.close()
    assert session.closed == 1


def test_only_some_outputs_may_be_given() -> None:
    with Doubling() as session:
        buffer = np.empty(2, np.float32)
        assert session.run(_feeds(4), out={"y": buffer})["y"] is buffer
        assert session.run(_feeds(5), out={})["y"][0] == 10
        buffer.flags.writeable = False
        with pytest.raises(ValueError, match="output 'y' must be C-contiguous and writeable"):
            session.run(_feeds(4), out={"y": buffer})
