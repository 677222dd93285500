"""Files of JSON lines that only grow: what was written before a kill stays readable, and several may write."""

from __future__ import annotations

import json
import os
from pathlib import Path

from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.errors import UserError


def append_line(path: Path, value: Json) -> None:
    """Adds one line to the end of a file, which is on the disk when this returns.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        # A kill in the middle of a write leaves a line without its end; the next one must not be glued to it.
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        # One write: lines of several processes do not mix.
        os.write(handle, f"{chr(10) if torn else ''}{canonical_json(value)}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_lines(path: Path) -> list[dict[str, Json]]:
    """Returns the objects of a file's lines, without lines that begin as one and cannot be read: a kill cut them short.

    Raises:
        UserError: the file cannot be read, or holds a line that is something else.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    found: list[dict[str, Json]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            value = json.loads(line) if line.strip() else None
        except ValueError:
            # A kill may cut a line right after an inner object's end, so that its own last sign says nothing.
            if line.startswith("{"):
                continue
            raise UserError(f"{path}: line {number} is not JSON: {line[:60]!r}") from None
        if value is not None and not isinstance(value, dict):
            raise UserError(f"{path}: line {number} is no JSON object: {line[:60]!r}")
        if value is not None:
            found.append(value)
    return found
