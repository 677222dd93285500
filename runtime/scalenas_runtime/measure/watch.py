"""Who else used the machine while something was measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

from scalenas_runtime.records import Record


class Sharing(Record, frozen=True):
    """Shares of all processors' time, 0 to 1: taken by other processes, and taken away by the hypervisor."""

    others: float
    stolen: float


class Watch:
    """Counts processor time from its making on. `read` gives None where the system does not tell."""

    def __init__(self) -> None:
        self._start = _counters()

    def read(self) -> Sharing | None:
        """Returns the shares since the watch was made; None outside Linux and below a tenth of a second."""
        now = _counters()
        if self._start is None or now is None:
            return None
        (wall, busy, stolen, own), (wall0, busy0, stolen0, own0) = now, self._start
        available = (wall - wall0) * (os.cpu_count() or 1)
        if wall - wall0 < 0.1:
            return None
        others = max(0.0, (busy - busy0) - (own - own0)) / available
        return Sharing(others=round(others, 4), stolen=round(max(0.0, stolen - stolen0) / available, 4))


def _counters() -> tuple[float, float, float, float] | None:
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _idle, _wait, irq, soft_irq, stolen = (int(value) / tick for value in fields[:8])
    own = os.times()
    return time.monotonic(), user + nice + system + irq + soft_irq, stolen, own.user + own.system
