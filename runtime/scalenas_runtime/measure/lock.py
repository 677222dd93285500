"""One measurement at a time on one device, across all processes of this machine."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.errors import UserError

_POLL = 0.05


@contextmanager
def device_locks(
    devices: set[str],
    *,
    timeout: float = 600.0,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Holds the lock of every device, taken in one order for all callers.

    Args:
        devices: Names such as `cpu` and `cuda0`.
        timeout: Seconds to wait for each.
        folder: Where the lock files lie; None is the system's folder for temporary files.
        tell: Told a line when it has to wait.

    Raises:
        UserError: another process still holds a lock after `timeout`; the text says which.
    """
    with ExitStack() as held:
        for device in sorted(devices):
            path = (folder or Path(tempfile.gettempdir())) / f"scalenas-measure-{device}.lock"
            held.enter_context(_device_lock(device, path, timeout, tell))
        yield


@contextmanager
def _device_lock(device: str, path: Path, timeout: float, tell: Callable[[str], None]) -> Iterator[None]:
    handle = _open(path)
    try:
        deadline = time.monotonic() + timeout
        told = False
        # The kernel drops the lock when its holder dies, so a killed measurement blocks nobody.
        while not _try_lock(handle):
            if time.monotonic() >= deadline:
                raise UserError(
                    f"device {device} is being measured by {_holder(handle)}; waited {timeout:g} s. "
                    f"Try again when it is done"
                )
            if not told:
                tell(f"waiting: device {device} is being measured by {_holder(handle)}")
                told = True
            time.sleep(_POLL)
        note: dict[str, Json] = {"pid": os.getpid(), "command": " ".join(sys.argv)[:200], "since": int(time.time())}
        os.ftruncate(handle, 0)
        os.pwrite(handle, canonical_json(note).encode(errors="backslashreplace"), 0)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    # A link that somebody laid in a shared folder must not lead the note into another file.
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Without O_CREAT first: Linux may refuse to create over another user's file in a shared folder.
        return os.open(path, flags)
    except FileNotFoundError:
        handle = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(handle, 0o666)
        return handle


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> str:
    try:
        note = json.loads(os.pread(handle, 4096, 0))
        since = time.strftime("%H:%M:%S", time.localtime(note["since"]))
        return f"process {note['pid']} ({note['command']}) since {since}"
    except (ValueError, KeyError, TypeError):
        return "a process that left no note"
