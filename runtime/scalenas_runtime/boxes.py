"""Boxes of persons that were found elsewhere: `Detections`, and the reader of COCO detection files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.json_files import read_json
from scalenas_runtime.sources import Frame

K = TypeVar("K")

PERSON = 1
_LARGEST = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one picture.

    Attributes:
        boxes: float32 (N, 4), x1, y1, x2, y2 in pixels of the picture.
        scores: float32 (N,), 0..1.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1:] != (4,) or self.scores.shape != (len(self.boxes),):
            raise ValueError(
                f"detections are boxes (N, 4) and scores (N,), got {self.boxes.shape} and {self.scores.shape}"
            )

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class _Key:
    """What a file says of the picture that boxes belong to: `file_name` or `image_id` as they stand there."""

    kind: Literal["name", "id"]
    text: str

    @property
    def short(self) -> str:
        """The part by which frames ask: the name without folders, the id without leading zeros."""
        plain = Path(self.text).name if self.kind == "name" else _plain_number(self.text)
        return f"{self.kind}:{plain}"

    def likeness(self, frame: Frame) -> int:
        """Returns how well one of several keys of the same `short` fits a frame; higher is better."""
        if self.kind == "id":
            stem = str(frame.index) if frame.path is None else frame.path.stem
            return int(self.text == stem)
        own = Path(self.text).parts[::-1]
        asked = Path(frame.name if frame.path is None else frame.path.absolute()).parts[::-1]
        pairs = zip(own, asked, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@dataclass(slots=True)
class BoxFile:
    """The person boxes of a COCO detections file, picture by picture.

    An entry belongs to a picture when its `file_name` is the picture's file name, or else when its `image_id` is the
    picture's file name without suffix, as text or as a number (397133 belongs to 000000397133.jpg); for videos and
    cameras `image_id` is the frame's index from 0. In a COCO annotation file, `images` gives the file names. Of file
    names that differ in their folders alone, a picture takes the one that shares most folders with its own path.

    Attributes:
        path: The file.
        count: Person boxes in it.
        other_categories: Entries left out because their `category_id` is not 1 (person).
    """

    path: Path
    count: int
    other_categories: int
    _by_key: Mapping[_Key, Detections]
    _used: set[_Key] = field(default_factory=set)
    _by_short: dict[str, list[_Key]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self._by_key:
            self._by_short.setdefault(key.short, []).append(key)

    def of(self, frame: Frame) -> Detections:
        """Returns the frame's boxes; a frame that the file does not name has none.

        Raises:
            UserError: several names or ids of the file fit the frame equally well.
        """
        for short in _shorts(frame):
            if short in self._by_short:
                key = self._closest(self._by_short[short], frame)
                self._used.add(key)
                return self._by_key[key]
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    def _closest(self, keys: list[_Key], frame: Frame) -> _Key:
        ranks = [key.likeness(frame) for key in keys]
        best = [key for key, rank in zip(keys, ranks, strict=True) if rank == max(ranks)]
        if len(best) > 1:
            raise UserError(
                f"{self.path}: {best[0].text} and {best[1].text} both fit {frame.path or frame.name}; name the "
                "pictures by paths that tell them apart"
            )
        return best[0]

    @property
    def unused(self) -> int:
        """Pictures of the file that no frame asked for so far."""
        return len(self._by_key) - len(self._used)


def read_boxes(path: str | Path) -> BoxFile:
    """Returns the boxes of a COCO detections file, a list of `{image_id, bbox [x, y, w, h], score, category_id}`.

    `score` and `category_id` may be missing (1 and person). A COCO annotation file (`images` and `annotations`) is
    taken too.

    Raises:
        UserError: not such JSON, or an entry whose box is not four finite numbers with positive width and height; the
            text names the entry by its index.
    """
    path = Path(path)
    document = read_json(path)
    names: dict[str, str] = {}
    if isinstance(document, dict) and isinstance(document.get("annotations"), list):
        names = _file_names(document.get("images"), path)
        document = document["annotations"]
    found, others = gather_boxes(document, lambda entry, where: _key_of_entry(entry, names, where), path)
    return BoxFile(path, sum(map(len, found.values())), others, found)


def gather_boxes(
    document: object, key: Callable[[Mapping[str, Any], str], K], path: Path
) -> tuple[dict[K, Detections], int]:
    """Returns the persons of a list of COCO detections by `key(entry, where)`, and the number of other entries.

    Raises:
        UserError: no list, or an entry whose box or score cannot be used; the text gives its index.
    """
    if not isinstance(document, list):
        raise UserError(f"{path} must hold a list of detections: image_id, bbox [x, y, w, h], score, category_id")
    rows: dict[K, list[tuple[float, ...]]] = {}
    others = 0
    for index, entry in enumerate(document):
        where = f"{path}: entry {index}"
        if not isinstance(entry, dict):
            raise UserError(f"{where} is {type(entry).__name__}, not an object with image_id and bbox")
        row = (*_corners(entry.get("bbox"), where), _score(entry.get("score", 1), where))
        if entry.get("category_id", PERSON) != PERSON:
            others += 1
            continue
        rows.setdefault(key(entry, where), []).append(row)
    tables = {name: np.array(values, np.float32) for name, values in rows.items()}
    return {name: Detections(table[:, :4], table[:, 4]) for name, table in tables.items()}, others


def _file_names(images: object, path: Path) -> dict[str, str]:
    if not isinstance(images, list):
        raise UserError(f"{path}: annotations need the list `images` with id and file_name")
    names = {}
    for index, image in enumerate(images):
        if not isinstance(image, dict) or "id" not in image or not isinstance(image.get("file_name"), str):
            raise UserError(f"{path}: image {index} has no id or file_name")
        names[str(image["id"])] = image["file_name"]
    return names


def _corners(box: Any, where: str) -> tuple[float, float, float, float]:
    numbers = isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)
    if not numbers:
        raise UserError(f"{where}: bbox must be four finite numbers x, y, w, h (up to 1e9); got {box}")
    x, y, width, height = map(float, box)
    # The area must survive the rounding to the boxes' 32 bits.
    right, bottom = np.float32(x + width), np.float32(y + height)
    if width <= 0 or height <= 0 or right <= np.float32(x) or bottom <= np.float32(y):
        raise UserError(f"{where}: bbox {box} has no area (w > 0 and h > 0 are needed)")
    return x, y, x + width, y + height


def _score(value: Any, where: str) -> float:
    if not _is_number(value):
        raise UserError(f"{where}: score must be a finite number, got {value!r}")
    return float(value)


def _is_number(value: object) -> bool:
    # NaN and infinities fail the comparison too.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _key_of_entry(entry: Mapping[str, Any], names: Mapping[str, str], where: str) -> _Key:
    image = entry.get("image_id")
    name = entry.get("file_name", names.get(str(image)))
    if isinstance(name, str):
        return _Key("name", name)
    if not isinstance(image, int | str) or isinstance(image, bool):
        raise UserError(f"{where}: image_id must be a number or text (or give file_name), got {image!r}")
    return _Key("id", str(image))


def _shorts(frame: Frame) -> tuple[str, ...]:
    if frame.path is None:
        return (f"id:{frame.index}", f"name:{frame.name}")
    return (f"name:{frame.path.name}", f"id:{_plain_number(frame.path.stem)}")


def _plain_number(text: str) -> str:
    return str(int(text)) if text.isascii() and text.isdecimal() else text
