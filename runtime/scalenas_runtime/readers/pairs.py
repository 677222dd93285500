"""Folders of pictures with a folder of masks beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.pictures import Picture, read_picture
from scalenas_runtime.tasks.sets import ClassSet

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture and its class map.

    Attributes:
        name: File name, or what stands for one.
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
    """

    name: str
    count: int
    counts: dict[str, int]
    pictures: Callable[[], Iterator[LabelledPicture]]

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
        missing: What to do about a picture without its mask: stop, or leave it out, counted.
    """

    picture_suffix: str = ""
    mask_suffix: str = ""
    mapping: Mapping[int, int] | None = None
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
    table = label_table(classes, rule.mapping or {})

    def each() -> Iterator[LabelledPicture]:
        for key in keys:
            yield _pair(seen[key], found[key], classes, table)

    counts = {
        "pictures": len(seen),
        "pictures_without_mask": len(alone),
        "masks_without_picture": len(found.keys() - seen.keys()),
        "other_files": others,
    }
    return PairData(str(pictures), len(keys), counts, each)


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
    """Returns pictures by what their name holds before the suffix, with their sub-folder, and how many others."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    found: dict[str, Path] = {}
    others = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _PICTURES and path.stem.endswith(suffix):
            name = path.stem.removesuffix(suffix)
            found.setdefault((path.relative_to(folder).parent / name).as_posix(), path)
        elif path.is_file():
            others += 1
    return found, others


def _pair(file: Path, mask: Path, classes: ClassSet, table: NDArray[np.int16]) -> LabelledPicture:
    def labels() -> NDArray[np.uint8]:
        try:
            stored = cv2.imdecode(np.frombuffer(mask.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        except (OSError, cv2.error):
            stored = None
        if stored is None or stored.dtype != np.uint8:
            raise UserError(f"{mask} cannot be read as an 8-bit mask")
        return _by_value(stored, table, mask) if stored.ndim == 2 else _by_colour(stored, classes, mask)

    return LabelledPicture(file.name, lambda: read_picture(file), labels)


def _by_value(stored: NDArray[Any], table: NDArray[np.int16], mask: Path) -> NDArray[np.uint8]:
    labels: NDArray[np.int16] = table[stored]
    if labels.min() < 0:
        values = ", ".join(str(value) for value in np.unique(stored[labels < 0])[:8])
        raise UserError(
            f"{mask} holds the labels {values}, which no class has; map them, for example to the ignored label"
        )
    return labels.astype(np.uint8)


def _by_colour(stored: NDArray[Any], classes: ClassSet, mask: Path) -> NDArray[np.uint8]:
    weights = np.array([1, 256, 65536])
    codes = (stored[:, :, :3].astype(np.int64) * weights).sum(axis=2)
    labels = np.full(codes.shape, -1, np.int16)
    labels[codes == 0] = classes.ignore
    for label, colour in enumerate(classes.palette):
        labels[codes == int((np.array(colour[::-1]) * weights).sum())] = label
    if labels.min() < 0:
        y, x = (int(axis[0]) for axis in np.nonzero(labels < 0))
        colour = tuple(stored[y, x, 2::-1].tolist())
        raise UserError(f"{mask} holds the colour {colour} (R, G, B), which no class of {classes.name} has")
    return labels.astype(np.uint8)
