"""`Session`: one loaded engine behind named, checked inputs and outputs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = Mapping[str, Array]
S = TypeVar("S", bound="Session")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, NumPy dtype name (`uint8`, `float32`, ...) and static shape of one input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def check(self, array: Array, *, what: str = "input") -> None:
        """Accepts an array of exactly this dtype and shape.

        Raises:
            ValueError: no array, another dtype or another shape; the text names both.
        """
        wanted = f"{what} {self.name!r} takes {self.dtype} {self.shape}"
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{wanted}, got {type(array).__name__}")
        if array.dtype != np.dtype(self.dtype) or array.shape != self.shape:
            raise ValueError(f"{wanted}, got {array.dtype.name} {array.shape}")


class Session(ABC):
    """A loaded engine. A backend fills in `_infer` and `_close`; checks, queue and life cycle live here.

    `run` and `submit` may be called from any thread. At most `parallel` inferences run at once (1 for low latency),
    others wait for their turn. `submit` returns at once, or waits while `queue_size` requests are under way.

    Args:
        inputs: What `run` takes.
        outputs: What `run` gives.
        parallel: Inferences that the engine runs at once.
        queue_size: Submitted requests that may be under way, running or waiting; None is twice `parallel`, at least 4.
        properties: What the engine says of itself (execution precision, threads, streams, ...), for records.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        parallel: int = 1,
        queue_size: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        queue_size = max(4, 2 * parallel) if queue_size is None else queue_size
        for name, value in (("parallel", parallel), ("queue_size", queue_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.properties = dict(properties or {})
        self.parallel = parallel
        self._turns = threading.BoundedSemaphore(parallel)
        self._places = threading.BoundedSemaphore(queue_size)
        self._workers = ThreadPoolExecutor(parallel, thread_name_prefix="session")
        self._state = threading.Condition()
        self._busy = 0
        self._closed = False

    def run(self, feeds: Feeds, *, out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Returns every output by name, as arrays that the caller owns.

        Args:
            feeds: One array per input, of the exact dtype and shape of its `TensorSpec`.
            out: C-contiguous arrays to write outputs into, by name, saving their allocation; they are returned.

        Raises:
            ValueError: a missing or surplus name, another dtype or shape, or a closed session.
        """
        ready, results = self._check(feeds), self._results(out or {})
        self._enter()
        try:
            with self._turns:
                self._infer(ready, results)
        finally:
            self._leave()
        return results

    def run_varying(self, feeds: Feeds) -> dict[str, Array]:
        """Returns what `run` does, also where output sizes depend on the input's values, as a detector's may.

        Backends that cannot run such models load them with an error; the shapes in `outputs` are then those of one
        trial run.

        Raises:
            ValueError: a missing or surplus name, another dtype or shape, or a closed session.
        """
        ready = self._check(feeds)
        self._enter()
        try:
            with self._turns:
                return self._infer_varying(ready)
        finally:
            self._leave()

    def submit(self, feeds: Feeds) -> Future[dict[str, Array]]:
        """Returns a future of `run(feeds)`; waits while the queue is full. `feeds` must stay unchanged until done."""
        ready = self._check(feeds)
        self._places.acquire()
        try:
            future = self._workers.submit(self.run, ready)
        except RuntimeError:
            self._places.release()
            raise ValueError("the session is closed") from None
        future.add_done_callback(lambda _: self._places.release())
        return future

    def close(self) -> None:
        """Ends what is under way, then frees the engine; later calls of `run` and `submit` raise.

        Closing twice is harmless.
        """
        # Accepted requests still finish: the queue is emptied before the door of `run` is shut.
        self._workers.shutdown(wait=True)
        with self._state:
            first, self._closed = not self._closed, True
            self._state.wait_for(lambda: self._busy == 0)
        if first:
            self._close()

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        """Writes every output into its C-contiguous array of `out`; called with checked, C-contiguous feeds.

        At most `parallel` threads are in here at once, and no array may be written to after the return.
        """

    def _infer_varying(self, feeds: Feeds) -> dict[str, Array]:
        """Returns every output in an array of its own; a backend whose outputs may vary in size overrides it."""
        results = self._results({})
        self._infer(feeds, results)
        return results

    @abstractmethod
    def _close(self) -> None:
        """Frees what the backend holds; called once, when nothing is under way."""

    def _check(self, feeds: Feeds) -> dict[str, Array]:
        if self._closed:
            raise ValueError("the session is closed")
        wanted = [spec.name for spec in self.inputs]
        if sorted(feeds) != sorted(wanted):
            raise ValueError(f"inputs are {', '.join(wanted)}, got {', '.join(sorted(feeds)) or 'none'}")
        for spec in self.inputs:
            spec.check(feeds[spec.name])
        return {name: np.ascontiguousarray(feeds[name]) for name in wanted}

    def _results(self, out: Mapping[str, Array]) -> dict[str, Array]:
        for name in out:
            if name not in {spec.name for spec in self.outputs}:
                raise ValueError(f"outputs are {', '.join(spec.name for spec in self.outputs)}, got {name!r} in out")
        results = {}
        for spec in self.outputs:
            array = out[spec.name] if spec.name in out else np.empty(spec.shape, spec.dtype)
            spec.check(array, what="output")
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise ValueError(f"the array for output {spec.name!r} must be C-contiguous and writeable")
            results[spec.name] = array
        return results

    def _enter(self) -> None:
        with self._state:
            if self._closed:
                raise ValueError("the session is closed")
            self._busy += 1

    def _leave(self) -> None:
        with self._state:
            self._busy -= 1
            self._state.notify_all()
