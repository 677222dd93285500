"""The processes that a test's own process started."""

from __future__ import annotations

from contextlib import suppress

import psutil


def children_with(word: str) -> list[psutil.Process]:
    """Returns the running descendants of this process whose command line has a word."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if word in child.cmdline():
                found.append(child)
    return found
