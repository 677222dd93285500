"""The measuring process: reads requests line by line on stdin, answers each with one line of JSON on stdout.

Requests: `{"do": "open", "id": ..., "job": {...}, "rebuild": bool}`, `{"do": "sample", "id": ..., "seconds": s,
"samples": n}`, `{"do": "interleave", "turns": [{"id": ..., "seconds": s, "samples": n, "settle": bool}, ...]}`, `{"do":
"close", "id": ...}`. Answers: `{"ok": ...}`, or `{"error": text}` for what the user got wrong. Several engines may be
open at once, so that one process can serve a whole search.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from scalenas_runtime.errors import UserError
from scalenas_runtime.measure.job import MeasureJob, Slice, Turn
from scalenas_runtime.measure.subject import Subject, open_subject
from scalenas_runtime.measure.watch import Watch
from scalenas_runtime.records import read_record, to_plain


def private_stdout() -> IO[str]:
    """Returns a stream on the true stdout and points file descriptor 1 at stderr, where engines may then print."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(2, 1)
    return answers


def lines_while_open(stream: IO[str], *, grace: float = 2.0) -> Iterator[str]:
    """Yields the lines of a pipe; a caller that is still busy with them `grace` seconds after its end is ended too.

    A caller that was killed closes the pipe too, perhaps in the midst of minutes of measuring. The thread that waits
    for it sleeps in the kernel meanwhile and costs the measurement nothing.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    done = threading.Event()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put("")
        if not done.wait(grace):
            os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while line := lines.get():
        yield line
    done.set()


def serve(requests: Iterable[str], answers: IO[str]) -> None:
    """Answers every request until the last one; a mistake in one leaves the process fit for the next."""
    subjects: dict[str, Subject] = {}
    try:
        for line in requests:
            try:
                answer: dict[str, Any] = {"ok": _answer(json.loads(line), subjects)}
            except UserError as error:
                answer = {"error": str(error)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        for subject in subjects.values():
            subject.close()


def _answer(request: dict[str, Any], subjects: dict[str, Subject]) -> dict[str, Any]:
    match request:
        case {"do": "open", "id": str(name), "job": dict(job), "rebuild": bool(rebuild)}:
            if name in subjects:
                raise UserError(f"{name!r} is open already")
            subjects[name], opened = open_subject(MeasureJob.from_json(job), rebuild=rebuild)
            return to_plain(opened)
        case {"do": "sample", "id": str(name), "seconds": float() | int() as seconds, "samples": int(samples)}:
            return to_plain(_of(subjects, name).sample(seconds, samples))
        case {"do": "interleave", "turns": list(turns)}:
            read = [read_record(Turn, each, what="turn") for each in turns]
            return {"slices": [to_plain(taken) for taken in _interleaved([(_of(subjects, t.id), t) for t in read])]}
        case {"do": "close", "id": str(name)}:
            _of(subjects, name).close()
            del subjects[name]
            return {"memory_mib": _resident()}
        case _:
            raise UserError(f"unknown request {json.dumps(request)[:200]}")


def _interleaved(turns: list[tuple[Subject, Turn]]) -> list[Slice]:
    watch = Watch()
    slices = []
    for subject, turn in turns:
        if turn.settle:
            subject.step()
        slices.append(subject.sample(turn.seconds, turn.samples))
    # One slice is too short to tell who else was busy; all of them together are not.
    sharing = watch.read()
    return [msgspec.structs.replace(taken, sharing=sharing) for taken in slices]


def _of(subjects: dict[str, Subject], name: str) -> Subject:
    if name not in subjects:
        raise UserError(f"{name!r} is not open; open: {', '.join(subjects) or 'none'}")
    return subjects[name]


def _resident() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)
