"""Who works on a candidate, and whether that process still lives."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """One worker.

    Attributes:
        place: Machine, its last boot, and process namespace: process numbers mean something only inside it.
        pid: Process number.
        started: When the process started, in the kernel's ticks; a number is given out again after a while.
        token: Tells workers of one process apart.
    """

    place: str
    pid: int
    started: str
    token: str

    def __str__(self) -> str:
        return f"{self.place} {self.pid} {self.started} {self.token}"

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Returns the owner that `str` wrote."""
        place, pid, started, token = text.rsplit(" ", 3)
        return cls(place, int(pid), started, token)

    def is_gone(self) -> bool:
        """Returns True where it is certain that the process ended; False too when it runs in another place."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        # A process that was killed and not waited for yet still has its number.
        state, started = _status(self.pid)
        return state == "Z" or started != self.started


def this_worker() -> Owner:
    """Returns a new worker of this process."""
    pid = os.getpid()
    return Owner(_place(), pid, _status(pid)[1], secrets.token_hex(4))


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:13]
        space = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        boot, space = "unknown", "0"
    return f"{socket.gethostname()}/{boot}/{space}".replace(" ", "_")


def _status(pid: int) -> tuple[str, str]:
    try:
        # The command's name, in brackets, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]
