"""The user's cache folder: engines built here, files unpacked from zip bundles, receipts of own engines."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Returns the path of one part of the cache, below `$XDG_CACHE_HOME/scalenas-export` or `~/.cache/scalenas-export`.

    The folder need not exist. A relative `XDG_CACHE_HOME` is passed over, as its specification asks.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    root = configured if configured.is_absolute() else Path.home() / ".cache"
    return root / "scalenas-export" / name


def private_folder(name: str) -> Path:
    """Returns one part of the cache as an existing folder that only this user can read.

    Raises:
        OSError: it cannot be made.
    """
    folder = cache_folder(name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
