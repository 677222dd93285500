"""Worker processes that make batches ahead of the net: in order, bounded, and never silent about a death.

Processes rather than threads: a drawn scene is thousands of small calls, which threads could not spread over cores, and
each of which would take the interpreter's lock from the training loop. Results travel through pipes, because containers
often have a small `/dev/shm`; a thread of the parent empties the pipes, so that a worker never waits for the net to
finish a step.
"""

from __future__ import annotations

import atexit
import multiprocessing
import pickle
import signal
import threading
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalenas.data.samples import Feed, Sample, Samples
from scalenas_runtime.errors import UserError

# Steps on the way per worker: one being made, two ready, because steps of small and large subnets take turns.
_AHEAD = 3
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Arrays:
    """A batch as arrays: pictures uint8 (B, H, W, 3) BGR, targets (B, ...), weights float32 (B, K) or None."""

    pictures: NDArray[np.uint8]
    target: NDArray[Any]
    weight: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a worker could not make a batch."""

    text: str
    by_user: bool


def stack(samples: list[Sample]) -> Arrays:
    """Returns samples as one batch.

    Raises:
        ValueError: they differ in shape, or only some have a weight.
    """
    weights = [sample.weight for sample in samples if sample.weight is not None]
    if weights and len(weights) != len(samples):
        raise ValueError(f"{len(weights)} of {len(samples)} samples of a batch have a weight; all or none must")
    return Arrays(
        np.stack([sample.picture for sample in samples]),
        np.stack([sample.target for sample in samples]),
        np.stack(weights) if weights else None,
    )


def make_batches(samples: Samples, feed: Feed, steps: range, *, workers: int) -> Generator[Arrays, None, None]:
    """Yields the batches of the steps in order, made by worker processes (0: by this one, when asked).

    Closing the iterator ends the workers.

    Raises:
        UserError: a file cannot be used; the text names it.
        RuntimeError: a sample failed otherwise, or a worker died.
        TypeError: the samples cannot be sent to a worker.
    """
    if workers == 0:
        for step in steps:
            yield stack(feed.make(samples, step))
        return
    pool = _Pool(samples, feed, steps, workers=min(workers, len(steps)))
    try:
        for step in steps:
            yield pool.take(step)
    finally:
        pool.close()


class _Pool:
    """Workers, and the thread that gives them steps and collects their batches."""

    def __init__(self, samples: Samples, feed: Feed, steps: range, *, workers: int) -> None:
        try:
            packed = pickle.dumps((samples, feed))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f"the samples cannot be sent to worker processes ({error}); take workers=0") from None
        # A forked child would inherit locks that the threads of torch and OpenCV may hold at that moment.
        context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, BaseProcess] = {}
        self._ready: dict[int, Arrays] = {}
        self._error: BaseException | None = None
        self._steps = iter(steps)
        self._room = workers * _AHEAD
        self._changed = threading.Condition()
        self._wake, self._woken = context.Pipe()
        try:
            for number in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, packed), name=f"loader-{number}", daemon=True)
                with _unheard():
                    process.start()
                theirs.close()
                self._workers[ours] = process
        except BaseException:
            self._end()
            raise
        self._thread = threading.Thread(target=self._collect, name="loader", daemon=True)
        self._thread.start()
        # Workers take no SIGTERM, which is how multiprocessing would end them when the program ends.
        atexit.register(self.close)

    def take(self, step: int) -> Arrays:
        """Returns the batch of a step once, as soon as it is there."""
        with self._changed:
            while step not in self._ready:
                if self._error is not None:
                    raise self._error
                self._changed.wait()
            self._wake.send_bytes(b"\0")
            return self._ready.pop(step)

    def close(self) -> None:
        """Ends workers and thread; batches that nobody took are dropped."""
        atexit.unregister(self.close)
        self._wake.close()
        self._thread.join(_PATIENCE_S)
        self._end()

    def _end(self) -> None:
        for connection in self._workers:
            connection.close()
        for process in self._workers.values():
            # A worker between two batches ends by itself; one inside a batch is not worth waiting for.
            process.kill()
            process.join()
        self._woken.close()

    def _collect(self) -> None:
        try:
            for connection in self._workers:
                for _ in range(_AHEAD):
                    self._give(connection)
            idle: list[Connection] = []
            while True:
                for waiting in wait([*self._workers, self._woken]):
                    if waiting is self._woken:
                        self._woken.recv_bytes()
                        self._room += 1
                    else:
                        assert isinstance(waiting, Connection)
                        self._receive(waiting)
                        idle.append(waiting)
                while idle and self._room > 0:
                    self._give(idle.pop(0))
        except EOFError:
            return  # `close` was called
        except BaseException as error:  # whatever it is, `take` raises it in the caller's thread
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _give(self, connection: Connection) -> None:
        step = next(self._steps, None)
        if step is None:
            return
        self._room -= 1
        try:
            connection.send(step)
        except OSError:
            raise self._death(connection) from None

    def _receive(self, connection: Connection) -> None:
        try:
            step, result = connection.recv()
        except (EOFError, OSError):
            raise self._death(connection) from None
        if isinstance(result, _Failure):
            raise UserError(result.text) if result.by_user else RuntimeError(result.text)
        with self._changed:
            self._ready[step] = result
            self._changed.notify_all()

    def _death(self, connection: Connection) -> UserError:
        process = self._workers[connection]
        process.join(_PATIENCE_S)
        code = process.exitcode
        why = f"exit code {code}"
        if code is not None and code < 0:
            why = f"{signal.Signals(-code).name}{', perhaps for want of memory' if code == -signal.SIGKILL else ''}"
        return UserError(
            f"worker {process.name} of the loader died ({why}); its own words, if any, are on stderr. Fewer "
            "data.workers take less memory, and 0 take none of their own"
        )


@contextmanager
def _unheard() -> Iterator[None]:
    """Makes processes that start inside deaf to Ctrl-C and SIGTERM until they say what they do upon them."""
    # When it starts, it lets the caller hear both again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, packed: bytes) -> None:
    """Makes the batches of the steps that come through the pipe until the pipe closes."""
    import cv2

    # Ctrl-C and a scheduler's SIGTERM reach the whole group of processes; the parent alone decides.
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    # The workers themselves are the parallelism.
    cv2.setNumThreads(1)
    samples, feed = pickle.loads(packed)
    result: Arrays | _Failure
    while True:
        try:
            step = connection.recv()
        except (EOFError, OSError):
            return  # the parent closed its end, or is gone
        try:
            result = stack(feed.make(samples, step))
        except UserError as error:
            result = _Failure(str(error), by_user=True)
        except Exception as error:
            result = _Failure(f"{error}\n{traceback.format_exc()}", by_user=False)
        try:
            connection.send((step, result))
        except OSError:
            return
