"""What is odd about a data set: unreadable pictures, improbable joints, likely swaps, pictures in two parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas.data.dataset import Dataset
from scalenas.data.description import SyntheticSource
from scalenas.data.oddities import OddPerson, odd_people
from scalenas.data.splits import sequence_of
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.pictures import Picture
from scalenas_runtime.readers import KeypointPicture, LabelledPicture
from scalenas_runtime.tasks.sets import JointSet

Progress = Callable[[Iterable[Any]], Iterable[Any]]
# Bits of 64 in which two pictures may differ and still look alike.
_ALIKE = 2


@dataclass(slots=True)
class PartReport:
    """What was seen in one part.

    Attributes:
        pictures: How many pictures of files.
        scenes: How many drawn scenes; these are not looked at.
        people: How many labelled people (pose).
        heights: Heights in pixels of the people's boxes (pose).
        sizes: (height, width) of the pictures.
        pixels: Pixels of each class, and last of none (segmentation).
        unreadable: Pictures or masks that cannot be read, and why.
        odd: People with improbable labels (pose).
    """

    pictures: int = 0
    scenes: int = 0
    people: int = 0
    heights: list[float] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    unreadable: dict[str, str] = field(default_factory=dict)
    odd: list[OddPerson] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Leak:
    """The same thing in two parts, or twice in one.

    Attributes:
        kind: `identical` pixels, pictures that look `alike`, or parts of one `sequence`.
        first: (part, picture) or (part, sequence).
        second: The other one.
    """

    kind: str
    first: tuple[str, str]
    second: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `check` found; `parts` by name, `counts` by source, `warnings` as the data set has them."""

    parts: Mapping[str, PartReport]
    counts: Mapping[str, Mapping[str, int]]
    leaks: tuple[Leak, ...]
    derived: tuple[str, ...]
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def faults(self) -> int:
        """Number of things that spoil a training or its figures: unreadable files, and pictures in two parts."""
        across = sum(leak.kind == "identical" and leak.first[0] != leak.second[0] for leak in self.leaks)
        return across + sum(len(part.unreadable) for part in self.parts.values())

    def to_json(self) -> dict[str, Json]:
        """Returns the report as JSON values."""
        return {
            "derived": list(self.derived),
            "warnings": list(self.warnings),
            "sources": {title: dict(counts) for title, counts in self.counts.items()},
            "parts": {name: self._part(part) for name, part in self.parts.items()},
            "leaks": [
                {"kind": leak.kind, "first": list(leak.first), "second": list(leak.second)} for leak in self.leaks
            ],
            "faults": self.faults,
        }

    def _part(self, part: PartReport) -> dict[str, Json]:
        plain: dict[str, Json] = {"pictures": part.pictures, "scenes": part.scenes, "unreadable": dict(part.unreadable)}
        if part.sizes:
            plain["height"] = _spread([height for height, _ in part.sizes])
            plain["width"] = _spread([width for _, width in part.sizes])
        if part.heights:
            plain["people"] = part.people
            plain["person_height"] = _spread(part.heights)
        if part.pixels.sum():
            shares = (part.pixels / part.pixels.sum()).round(6).tolist()
            plain["pixel_share"] = dict(zip((*self.classes, "ignored"), shares, strict=True))
        plain["odd"] = [{"picture": odd.picture, "kind": odd.kind, "what": odd.what} for odd in part.odd]
        return plain


def check(dataset: Dataset, *, progress: Progress = iter) -> Report:
    """Returns what is odd about a data set. Every picture of every part is read once.

    Args:
        dataset: The opened description.
        progress: Wraps the iteration over the pictures, as tqdm does.

    Raises:
        UserError: a source cannot be opened, or a part is empty.
    """
    parts = {name: PartReport() for name in _parts(dataset)}
    work: list[tuple[str, KeypointPicture | LabelledPicture, tuple[str, ...]]] = []
    counts: dict[str, Mapping[str, int]] = {"splits": dataset.split_counts()}
    sequences: dict[str, dict[str, str]] = defaultdict(dict)
    for name, part in parts.items():
        for source in dataset.sources(name):
            if isinstance(source, SyntheticSource):
                part.scenes += len(dataset.scenes(source, name))
                continue
            opened = dataset.opened(source)
            counts[opened.title] = opened.counts
            pictures = dataset.pictures(source, name)
            part.pictures += len(pictures)
            work += [(name, picture, opened.joints) for picture in pictures]
            if opened.sequences is not None:
                for picture in pictures:
                    sequence = sequence_of(picture.name, opened.sequences)
                    sequences[sequence].setdefault(name, picture.name)
    marks: dict[tuple[str, str], tuple[str, int]] = {}
    for name, picture, joints in progress(work):
        part = parts[name]
        try:
            pixels = picture.read()
            if isinstance(picture, LabelledPicture):
                _count_labels(part, picture, pixels, dataset)
            else:
                people = picture.boxes[picture.labelled]
                part.people += len(people)
                part.heights += (people[:, 3] - people[:, 1]).tolist()
                part.odd += odd_people(picture, pixels.shape[:2], _body(dataset, joints))
        except UserError as error:
            part.unreadable[picture.name] = str(error)
            continue
        part.sizes.append((pixels.shape[0], pixels.shape[1]))
        marks[name, picture.name] = hashlib.sha256(pixels.tobytes()).hexdigest(), _look(pixels)
    leaks = (*_same(marks), *_across(sequences))
    classes = dataset.classes.classes if dataset.classes else ()
    return Report(parts, counts, leaks, dataset.derived, classes, dataset.warnings)


def _body(dataset: Dataset, joints: tuple[str, ...]) -> JointSet:
    """Returns the data set's edges and flip pairs for a source's joints, in the source's order."""
    assert dataset.joints is not None
    names = dataset.joints.joints

    def own(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        named = [(names[a], names[b]) for a, b in pairs]
        return tuple((joints.index(a), joints.index(b)) for a, b in named if a in joints and b in joints)

    return JointSet("source", joints, own(dataset.joints.edges), own(dataset.joints.flip_pairs), ())


def _parts(dataset: Dataset) -> list[str]:
    description = dataset.description
    given = [name for name, sources in (("val", description.val), ("test", description.test)) if sources]
    return ["fit", "calibrate", "search", *given]


def _count_labels(part: PartReport, picture: LabelledPicture, pixels: Picture, dataset: Dataset) -> None:
    labels = picture.read_labels()
    if labels.shape != pixels.shape[:2]:
        raise UserError(f"{picture.name} is {pixels.shape[:2]} pixels, its mask {labels.shape} (height, width)")
    assert dataset.classes is not None
    classes = len(dataset.classes.classes)
    found = np.bincount(labels.ravel(), minlength=256)
    found = np.append(found[:classes], found[classes:].sum())
    part.pixels = found if not len(part.pixels) else part.pixels + found


def _look(picture: Picture) -> int:
    """Returns 64 bits that hardly change with size, compression and brightness: which of two neighbours is lighter."""
    small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _same(marks: Mapping[tuple[str, str], tuple[str, int]]) -> list[Leak]:
    """Returns pictures with equal pixels, and pictures of different parts that look alike."""
    first: dict[str, tuple[str, str]] = {}
    leaks = []
    single = []
    for where, (digest, _) in marks.items():
        if digest in first:
            leaks.append(Leak("identical", first[digest], where))
        else:
            first[digest] = where
            single.append(where)
    looks = np.array([marks[where][1] for where in single], np.uint64)
    parts = np.array([where[0] for where in single])
    for place, where in enumerate(single):
        near = _bits(looks[place + 1 :] ^ looks[place]) <= _ALIKE
        for other in np.flatnonzero(near & (parts[place + 1 :] != where[0])):
            leaks.append(Leak("alike", where, single[place + 1 + int(other)]))
    return leaks


def _bits(values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Returns how many bits of each value are set."""
    bits = np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1)
    return np.asarray(bits.sum(1, dtype=np.intp))


def _across(sequences: Mapping[str, Mapping[str, str]]) -> list[Leak]:
    leaks = []
    for sequence, parts in sequences.items():
        names = list(parts)
        leaks += [Leak("sequence", (names[0], sequence), (other, sequence)) for other in names[1:]]
    return leaks


def _spread(values: Sequence[float]) -> dict[str, Json]:
    low, middle, high = np.quantile(values, [0, 0.5, 1]).tolist()
    return {"smallest": low, "median": middle, "largest": high}
