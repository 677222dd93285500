"""The demo's folder: it fills a new one, or replaces what an earlier demo left there, and touches no other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text

MARKER = ".scalenas-demo"


def check_folder(folder: Path) -> None:
    """Accepts a folder for the demo: a new or an empty one, or that of an earlier demo.

    Raises:
        UserError: the folder holds files that no demo wrote, or is none.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder} is a link that leads nowhere; name another folder with --out")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name a new one with --out")
    if any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UserError(
            f"{folder} holds files that no demo wrote, and the demo would replace some; name a new folder with --out"
        )


def claim(folder: Path) -> None:
    """Makes a folder the demo's own, so that a later demo may replace its files; see `check_folder`.

    Raises:
        UserError: the folder holds files that no demo wrote, or is none.
        OSError: it cannot be written to.
    """
    check_folder(folder)
    write_text(folder / MARKER, "scalenas-export demo replaces the files in this folder.\n")


def distinct(stems: Iterable[str]) -> list[str]:
    """Returns one name for each stem, in order: a stem that came before gets a number, whatever its case."""
    taken: set[str] = set()
    names = []
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
