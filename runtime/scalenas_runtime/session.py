"""`Session`: one loaded engine behind named, checked inputs and outputs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, NumPy dtype name (`uint8`, `float32`, ...) and static shape of one input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def check(self, array: Array) -> None:
        """Accepts an array of exactly this dtype and shape.

        Raises:
            ValueError: another dtype or shape; the text names both.
        """
        if array.dtype != np.dtype(self.dtype) or array.shape != self.shape:
            raise ValueError(
                f"input {self.name!r} takes {self.dtype} {self.shape}, got {array.dtype.name} {array.shape}"
            )


class Session(ABC):
    """A loaded engine. A backend fills in `_infer` and `_close`; checks, queue and life cycle live here.

    `run` may be called from several threads; calls are served one after another. `submit` puts a request into a
    queue of at most `queue_size` and returns at once, or waits while the queue is full.
    """

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, queue_size: int = 4) -> None:
        if queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, got {queue_size}")
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(queue_size)
        self._closed = False

    def run(self, feeds: Feeds, *, out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Returns every output by name, as arrays that the caller owns.

        Args:
            feeds: One array per input, of the exact dtype and shape of its `TensorSpec`.
            out: Arrays to write the outputs into, by name; those are returned then.

        Raises:
            ValueError: a missing or surplus name, another dtype or shape, or a closed session.
        """
        self._check(feeds)
        with self._lock:
            results = self._infer(feeds)
            if out is None:
                return results
            return self._into(out, results)

    def submit(self, feeds: Feeds) -> Future[dict[str, Array]]:
        """Returns a future of `run(feeds)`; waits while the queue is full. `feeds` must stay unchanged until done."""
        self._check(feeds)
        self._places.acquire()
        future: Future[dict[str, Array]] = Future()
        future.add_done_callback(lambda _: self._places.release())
        try:
            self._start(feeds, future)
        except BaseException as error:
            future.set_exception(error)
            raise
        return future

    def close(self) -> None:
        """Frees the engine; later calls of `run` and `submit` raise. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        """Returns owned output arrays; called with checked feeds, by one thread at a time."""

    @abstractmethod
    def _start(self, feeds: Feeds, future: Future[dict[str, Array]]) -> None:
        """Begins an asynchronous inference that sets the result or the exception of `future`."""

    @abstractmethod
    def _close(self) -> None:
        """Frees what the backend holds."""

    def _check(self, feeds: Feeds) -> None:
        if self._closed:
            raise ValueError("the session is closed")
        wanted = [spec.name for spec in self.inputs]
        if sorted(feeds) != sorted(wanted):
            raise ValueError(f"inputs are {', '.join(wanted)}, got {', '.join(sorted(feeds)) or 'none'}")
        for spec in self.inputs:
            spec.check(feeds[spec.name])

    @staticmethod
    def _into(out: Mapping[str, Array], results: Mapping[str, Array]) -> dict[str, Array]:
        for name, array in out.items():
            if name not in results:
                raise ValueError(f"outputs are {', '.join(results)}, got {name!r} in out")
            np.copyto(array, results[name], casting="no")
        return {**results, **out}
