"""Which pictures of the train sources are in which part, as the list files say, which are written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scalenas.data.description import Splits
from scalenas.data.sources import Opened
from scalenas.data.splits import PARTS, choose, read_lists, write_lists
from scalenas_runtime.errors import UserError
from scalenas_runtime.readers import KeypointPicture, LabelledPicture

OpenedSource = Opened[KeypointPicture] | Opened[LabelledPicture]


@dataclass(frozen=True, slots=True)
class Listing:
    """The parts of the train sources.

    Attributes:
        names: Per source (by its number) and part, the names of its pictures.
        listed: Per part, what its list file says: the names with the number of their source where there are several.
        unlisted: Pictures that stand in no list.
        left_out: Pictures that stand in a list and are excluded or skipped.
    """

    names: Mapping[int, Mapping[str, list[str]]]
    listed: Mapping[str, list[str]]
    unlisted: int = 0
    left_out: int = 0


def list_parts(sources: Mapping[int, OpenedSource], folder: Path, splits: Splits, *, origin: Path) -> Listing:
    """Returns the parts of train sources from files.

    Args:
        sources: By their numbers in the description.
        folder: Of the list files.
        splits: How parts are chosen where there are no lists yet.
        origin: The description, for error texts.

    Raises:
        UserError: the lists cannot be written or read, or name a picture that no source has.
    """
    names: dict[int, dict[str, list[str]]] = {number: {part: [] for part in PARTS} for number in sources}
    if not sources:
        return Listing(names, {part: [] for part in PARTS})
    # A number before the name keeps the pictures of several sources apart.
    titles = {number: f"{number}/" if len(sources) > 1 else "" for number in sources}
    if not folder.is_dir():
        _write(sources, titles, folder, splits)
    listed = read_lists(folder, splits)
    known = {
        titles[number] + picture.name: (number, picture.name)
        for number, opened in sources.items()
        for picture in opened.pictures
    }
    absent = {titles[number] + name for number, opened in sources.items() for name in opened.left_out}
    left_out = 0
    for part, entries in listed.items():
        for entry in entries:
            if entry in known:
                number, name = known[entry]
                names[number][part].append(name)
            elif entry in absent:
                left_out += 1
            else:
                raise UserError(f"{folder}/{part}.txt lists {entry}, which is in no train source of {origin}")
    unlisted = len(known) + left_out - sum(map(len, listed.values()))
    return Listing(names, listed, unlisted, left_out)


def _write(sources: Mapping[int, OpenedSource], titles: Mapping[int, str], folder: Path, splits: Splits) -> None:
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for number, opened in sources.items():
        chosen = choose([picture.name for picture in opened.pictures], opened.sequences, splits)
        for part in PARTS:
            parts[part] += [titles[number] + name for name in chosen[part]]
    try:
        write_lists(folder, parts, splits)
    except OSError as error:
        raise UserError(
            f"the list files cannot be written to {folder} ({error.strerror}); name another `splits.folder`"
        ) from None
