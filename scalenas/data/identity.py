"""What makes two openings of a description the same data for training, wherever the files lie."""

from __future__ import annotations

from pathlib import Path

from scalenas.data.dataset import Dataset
from scalenas.data.description import SyntheticSource
from scalenas_runtime.canonical import Json, digest
from scalenas_runtime.files import file_sha256
from scalenas_runtime.records import to_plain

# Where files lie, what no training sees, and what leaves out pictures, which is counted and said elsewhere.
_FREE = ("root", "val", "test", "splits")
_FREE_OF_SOURCES = ("exclude", "missing")


def training_digest(dataset: Dataset) -> str:
    """Returns a SHA-256, 64 hexadecimal digits, of what a data set trains on.

    It covers the description, the entries of the list files, and the labels: annotation files by their bytes, masks by
    their names and sizes. Pictures that `exclude` or `missing` leave out change nothing.

    Raises:
        UserError: the lists do not fit the sources.
        OSError: a file of labels cannot be read.
    """
    description = dataset.description
    plain = to_plain(description)
    sources: list[Json] = []
    for source, given in zip(description.train, plain["train"], strict=True):
        known: dict[str, Json] = {key: value for key, value in given.items() if key not in _FREE_OF_SOURCES}
        if not isinstance(source, SyntheticSource):
            known["labels"] = _labels(dataset.opened(source).labels)
        sources.append(known)
    return digest(
        {
            **{key: value for key, value in plain.items() if key not in _FREE},
            "splits": {key: value for key, value in plain["splits"].items() if key != "folder"},
            "train": sources,
            "lists": {part: list(names) for part, names in dataset.listing.listed.items()},
        }
    )


def _labels(path: Path) -> Json:
    if path.is_file():
        return file_sha256(path)
    return [[file.relative_to(path).as_posix(), file.stat().st_size] for file in _files(path)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
