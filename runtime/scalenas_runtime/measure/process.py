"""The caller's side of a process that serves: starts it, asks it, ends it when it hangs."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from scalenas_runtime.errors import UserError
from scalenas_runtime.measure.job import MeasureJob, Opened, Slice, Turn
from scalenas_runtime.records import read_record, to_plain

P = TypeVar("P", bound="ServedProcess")
SERVE = (sys.executable, "-m", "scalenas_runtime", "measure", "--serve")


class MeasuringFailed(UserError):
    """The measuring process died, hung or answered nonsense; it is gone, and the next attempt needs a new one."""


class ServedProcess:
    """A process that answers requests, a line of JSON each; one that is silent for too long is ended.

    Use as a context manager; it ends at the latest then.
    """

    _name = "the process"

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            encoding="utf-8",
            errors="replace",
            # Files in the caller's folder must not stand in for modules (honoured from Python 3.11 on).
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._messages: deque[str] = deque(maxlen=20)
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._listen)]
        for reader in self._readers:
            reader.start()

    def end(self) -> None:
        """Ends the process, at once where it does not end by itself within five seconds."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._kill()
        self.end()

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Returns the answer to a request.

        Raises:
            UserError: the process says that it cannot be done.
            MeasuringFailed: the process died or took longer than `timeout` seconds.
        """
        assert self._process.stdin is not None
        about = request.get("job", request).get("model", "")
        what = f"{request['do']} {about}".strip()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._death(what) from None
        started = time.monotonic()
        try:
            line = self._answers.get(timeout=min(timeout, threading.TIMEOUT_MAX))
        except queue.Empty:
            self._kill()
            raise MeasuringFailed(
                f"{self._name} gave no answer to {what!r} within {time.monotonic() - started:.0f} s and was "
                f"ended; a larger timeout helps if the engine is only slow"
            ) from None
        if not line:
            raise self._death(what)
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            self._kill()
            raise MeasuringFailed(f"{self._name} answered {what!r} with {line.strip()[:200]!r}") from None
        if "error" in answer:
            raise UserError(answer["error"])
        result: dict[str, Any] = answer["ok"]
        return result

    def _kill(self) -> None:
        # With its whole group: a helper that an engine forked would hold the pipes open, and the readers waiting.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _death(self, what: str) -> MeasuringFailed:
        self._kill()
        code = self._process.wait()
        self._readers[1].join()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        last = self._messages[-1] if self._messages else "no message"
        return MeasuringFailed(f"{self._name} died at {what!r} ({how}): {last}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _listen(self) -> None:
        assert self._process.stderr is not None
        self._messages.extend(line.strip() for line in self._process.stderr if line.strip())


class MeasuringProcess(ServedProcess):
    """A process that keeps engines open and times them. Use as a context manager; it ends at the latest then."""

    _name = "the measuring process"

    def __init__(self, command: Sequence[str] = SERVE) -> None:
        super().__init__(command)
        self._names = 0

    def open(self, job: MeasureJob, *, rebuild: bool = False, timeout: float = 600.0) -> tuple[str, Opened]:
        """Returns the name of the opened engine or pipeline, and what it says of itself.

        Raises:
            UserError: the job cannot be done here.
            MeasuringFailed: the process died or took longer than `timeout` seconds.
        """
        self._names += 1
        name = str(self._names)
        answer = self.ask({"do": "open", "id": name, "job": job.to_json(), "rebuild": rebuild}, timeout)
        return name, read_record(Opened, answer, what="answer of the measuring process")

    def sample(self, name: str, seconds: float, samples: int, *, timeout: float = 600.0) -> Slice:
        """Returns latencies that fill `seconds` and number at least `samples`.

        Raises:
            MeasuringFailed: the process died or took longer than `timeout` seconds.
        """
        answer = self.ask({"do": "sample", "id": name, "seconds": seconds, "samples": samples}, timeout)
        return read_record(Slice, answer, what="answer of the measuring process")

    def interleave(self, turns: Sequence[Turn], *, timeout: float = 600.0) -> list[Slice]:
        """Returns a slice for each turn, taken one right after the other.

        Raises:
            MeasuringFailed: the process died or took longer than `timeout` seconds.
        """
        answer = self.ask({"do": "interleave", "turns": [to_plain(turn) for turn in turns]}, timeout)
        return [read_record(Slice, taken, what="answer of the measuring process") for taken in answer["slices"]]

    def close(self, name: str, *, timeout: float = 60.0) -> float | None:
        """Frees an opened engine and returns the MiB of memory that the process holds then; None where nobody tells.

        Raises:
            MeasuringFailed: the process died or took longer than `timeout` seconds.
        """
        memory: float | None = self.ask({"do": "close", "id": name}, timeout)["memory_mib"]
        return memory
