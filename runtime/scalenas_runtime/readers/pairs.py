"""Folders of pictures with a folder of masks beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.picture_headers import read_header
from scalenas_runtime.pictures import Picture, read_picture
from scalenas_runtime.tasks.sets import ClassSet

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture and its class map.

    Attributes:
        name: Path below the folder of the pictures, or what stands for one.
        read: Gives the picture, uint8 (H, W, 3) BGR.
        read_labels: Gives its class map, uint8 (H, W): labels of the class set, and its ignored label.
    """

    name: str
    read: Callable[[], Picture]
    read_labels: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class PairData:
    """A data set of pictures with class maps; iterating reads no file.

    Attributes:
        name: Where it comes from.
        count: Number of pairs.
        counts: What was found and left out: pictures, pictures without mask, masks without picture, other files.
        pictures: Gives an iterator over the pairs.
        classes: What the labels mean; None where they are in the numbering of whoever uses them.
        left_out: Names of pictures that are not given because they have no mask.
    """

    name: str
    count: int
    counts: dict[str, int]
    pictures: Callable[[], Iterator[LabelledPicture]]
    classes: ClassSet | None = None
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[LabelledPicture]:
        return self.pictures()


@dataclass(frozen=True, slots=True)
class MaskRule:
    """How masks are named and read.

    Attributes:
        picture_suffix, mask_suffix: Ends of the file names before the extension; what stands before them pairs a
            picture with its mask (Cityscapes: `_leftImg8bit` and `_gtFine_labelTrainIds`).
        mapping: Label in the file to label of the class set, for labels that differ.
        colours: (R, G, B) in the file to label of the class set, beside and before the set's own palette.
        missing: What to do about a picture without its mask: stop, or leave it out, counted.
    """

    picture_suffix: str = ""
    mask_suffix: str = ""
    mapping: Mapping[int, int] | None = None
    colours: Mapping[tuple[int, int, int], int] | None = None
    missing: Literal["error", "skip"] = "error"


def read_pairs(
    pictures: str | Path,
    masks: str | Path,
    classes: ClassSet,
    rule: MaskRule | None = None,
) -> PairData:
    """Returns the pairs of two folders, in the order of their names; sub-folders are searched too.

    Masks are 8-bit: grey values are labels; in masks of three channels (and PNGs with a palette) each colour must be
    one of the class set's, and black counts as ignored.

    Args:
        pictures: Folder of the pictures.
        masks: Folder of the masks, with the same sub-folders if any.
        classes: What the labels mean.
        rule: How masks are named and read; by equal names, labels as they are, where left out.

    Raises:
        UserError: a folder is missing or holds no pair, or a picture has no mask (named).
    """
    pictures, masks, rule = Path(pictures), Path(masks), rule or MaskRule()
    seen, others = _files(pictures, rule.picture_suffix)
    found, _ = _files(masks, rule.mask_suffix)
    alone = [key for key in seen if key not in found]
    if alone and rule.missing == "error":
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise UserError(f"{seen[alone[0]]} has no mask {alone[0]}{rule.mask_suffix}.png in {masks}{more}")
    keys = [key for key in seen if key in found]
    if not keys:
        raise UserError(f"{pictures} holds no pictures with masks in {masks}")
    meaning = _meaning(classes, rule)

    def name(key: str) -> str:
        return seen[key].relative_to(pictures).as_posix()

    def each() -> Iterator[LabelledPicture]:
        for key in keys:
            yield LabelledPicture(
                name(key), partial(read_picture, seen[key]), partial(_read_labels, found[key], meaning)
            )

    counts = {
        "pictures": len(seen),
        "pictures_without_mask": len(alone),
        "masks_without_picture": len(found.keys() - seen.keys()),
        "other_files": others,
    }
    return PairData(str(pictures), len(keys), counts, each, classes, tuple(map(name, alone)))


def label_table(classes: ClassSet, mapping: Mapping[int, int]) -> NDArray[np.int16]:
    """Returns for each value 0..255 of a mask its label in the class set, or -1 for values that mean nothing.

    Raises:
        UserError: a mapping from or to a label that does not exist.
    """
    table = np.full(256, -1, np.int16)
    table[: len(classes.classes)] = np.arange(len(classes.classes))
    table[classes.ignore] = classes.ignore
    for source, label in mapping.items():
        if not 0 <= source <= 255 or not (0 <= label < len(classes.classes) or label == classes.ignore):
            raise UserError(
                f"label {source} cannot become {label}: masks hold 0..255, and the labels are"
                f" 0..{len(classes.classes) - 1} and {classes.ignore} (ignored)"
            )
        table[source] = label
    return table


def _files(folder: Path, suffix: str) -> tuple[dict[str, Path], int]:
    """Returns pictures by what their name holds before the suffix, with their sub-folder, and how many others.

    Raises:
        UserError: no folder, or two pictures of one name.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    found: dict[str, Path] = {}
    others = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _PICTURES and path.stem.endswith(suffix):
            name = path.stem.removesuffix(suffix)
            key = (path.relative_to(folder).parent / name).as_posix()
            if key in found:
                raise UserError(f"{found[key]} and {path} have one name; keep one, or part them by a suffix")
            found[key] = path
        elif path.is_file():
            others += 1
    return found, others


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What the values of masks stand for: labels by value, -1 for none, and by sorted colour code."""

    classes: ClassSet
    by_value: NDArray[np.int16]
    codes: NDArray[np.int64]
    labels: NDArray[np.uint8]


def _meaning(classes: ClassSet, rule: MaskRule) -> _Meaning:
    colours = {(0, 0, 0): classes.ignore}
    colours |= {colour: label for label, colour in enumerate(classes.palette)} | dict(rule.colours or {})
    codes = np.array([_code(*colour) for colour in colours], np.int64)
    order = np.argsort(codes)
    labels = np.array(list(colours.values()), np.uint8)
    return _Meaning(classes, label_table(classes, rule.mapping or {}), codes[order], labels[order])


def _code(red: int, green: int, blue: int) -> int:
    return (red << 16) + (green << 8) + blue


def _read_labels(mask: Path, meaning: _Meaning) -> NDArray[np.uint8]:
    try:
        data = mask.read_bytes()
        read_header(data)
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except ValueError as error:
        raise UserError(f"{mask} {error}") from None
    except (OSError, cv2.error):
        stored = None
    if stored is None or stored.dtype != np.uint8:
        raise UserError(f"{mask} cannot be read as an 8-bit mask")
    return _by_value(stored, meaning, mask) if stored.ndim == 2 else _by_colour(stored, meaning, mask)


def _by_value(stored: NDArray[Any], meaning: _Meaning, mask: Path) -> NDArray[np.uint8]:
    labels: NDArray[np.int16] = meaning.by_value[stored]
    if labels.min() < 0:
        values = ", ".join(str(value) for value in np.unique(stored[labels < 0])[:8])
        raise UserError(
            f"{mask} holds the labels {values}, which no class has; map them, for example to the ignored label"
        )
    return labels.astype(np.uint8)


def _by_colour(stored: NDArray[Any], meaning: _Meaning, mask: Path) -> NDArray[np.uint8]:
    codes = stored[:, :, :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    place = np.minimum(np.searchsorted(meaning.codes, codes), len(meaning.codes) - 1)
    unknown = meaning.codes[place] != codes
    if unknown.any():
        y, x = (int(axis[0]) for axis in np.nonzero(unknown))
        colour = tuple(stored[y, x, 2::-1].tolist())
        raise UserError(f"{mask} holds the colour {colour} (R, G, B), which no class of {meaning.classes.name} has")
    return meaning.labels[place]
