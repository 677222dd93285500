"""Opening of a description's sources: files are read by the runtime's readers, with what the description adds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from scalenas.data.description import CityscapesSource, CocoSource, FolderSource, Sequences
from scalenas.data.splits import read_list
from scalenas_runtime.errors import UserError
from scalenas_runtime.readers import KeypointPicture, LabelledPicture, read_keypoints, read_pairs
from scalenas_runtime.readers.pairs import MaskRule
from scalenas_runtime.tasks.sets import ClassSet

P = TypeVar("P", KeypointPicture, LabelledPicture)

# Cityscapes' label ids of the classes that count (cityscapesScripts, `labels.py`).
_CITYSCAPES_IDS = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}


@dataclass(frozen=True, slots=True)
class Opened(Generic[P]):
    """The labelled pictures of one source.

    Attributes:
        title: The file or folder that it is called by.
        labels: The annotation file, or the folder of the masks.
        pictures: All of its pictures but those that are left out.
        left_out: Names of pictures that are excluded, or skipped because file or mask is missing.
        share: Share of the samples.
        sequences: Which pictures belong together.
        counts: What the reader found and left out, and how many pictures are excluded.
        joints: Names of the joints (pose).
        edges: Pairs of joint indices (pose).
    """

    title: str
    labels: Path
    pictures: tuple[P, ...]
    left_out: frozenset[str]
    share: float
    sequences: Sequences | None
    counts: dict[str, int]
    joints: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()


def open_people(source: CocoSource, root: Path, lists: Path) -> Opened[KeypointPicture]:
    """Returns the pictures of a COCO keypoints file.

    Args:
        source: From the description.
        root: Folder that its paths start at.
        lists: Folder that its `exclude` starts at.

    Raises:
        UserError: the file does not fit, a picture is missing, or no person is labelled.
    """
    pictures, labels = None if source.pictures is None else root / source.pictures, root / source.annotations
    data = read_keypoints(labels, pictures, missing=source.missing)
    kept, excluded = _without(tuple(data), data.left_out, source.exclude, lists)
    left_out = frozenset({*data.left_out, *excluded})
    counts = {
        **data.counts,
        "excluded": len(excluded),
        "people_without_box": sum(int((each.labelled & ~each.boxed).sum()) for each in kept),
        "usable_people": sum(int((each.labelled & each.boxed).sum()) for each in kept),
    }
    if not counts["usable_people"]:
        raise UserError(f"{data.name} holds no person with a labelled joint and a box in the picture")
    return Opened(data.name, labels, kept, left_out, source.share, source.sequences, counts, data.joints, data.edges)


def open_maps(
    source: FolderSource | CityscapesSource, root: Path, lists: Path, classes: ClassSet
) -> Opened[LabelledPicture]:
    """Returns the pictures of a folder with masks; see `open_people`.

    Raises:
        UserError: a folder or a mask is missing, or the description names a class that there is not.
    """
    if isinstance(source, FolderSource):
        rule = MaskRule(
            source.picture_suffix,
            source.mask_suffix,
            {value: _label(name, classes, "mapping") for value, name in source.mapping.items()},
            {
                colour: _label(name, classes, "colours")
                for name, colours in source.colours.items()
                for colour in colours
            },
            source.missing,
        )
        pictures, masks = root / source.pictures, root / source.masks
    else:
        folder = root / source.folder
        pictures, masks = folder / "leftImg8bit" / source.part, folder / "gtFine" / source.part
        mapping = _cityscapes(classes) if source.labels == "labelIds" else None
        rule = MaskRule("_leftImg8bit", f"_gtFine_{source.labels}", mapping, missing=source.missing)
    data = read_pairs(pictures, masks, classes, rule)
    kept, excluded = _without(tuple(data), data.left_out, source.exclude, lists)
    left_out = frozenset({*data.left_out, *excluded})
    counts = {**data.counts, "excluded": len(excluded)}
    return Opened(data.name, masks, kept, left_out, source.share, source.sequences, counts)


def _cityscapes(classes: ClassSet) -> dict[int, int]:
    mapping = dict.fromkeys(range(256), classes.ignore)
    for value, name in _CITYSCAPES_IDS.items():
        if name in classes.classes:
            mapping[value] = classes.classes.index(name)
    return mapping


def _label(name: int | str, classes: ClassSet, key: str) -> int:
    if isinstance(name, int):
        return name
    if name == "ignore":
        return classes.ignore
    if name not in classes.classes:
        raise UserError(f"{key} names the class {name!r}; there are {', '.join(classes.classes)}, and `ignore`")
    return classes.classes.index(name)


def _without(
    pictures: tuple[P, ...], skipped: tuple[str, ...], exclude: str | None, lists: Path
) -> tuple[tuple[P, ...], set[str]]:
    """Returns the pictures that a list does not name, and the names in it; those that are skipped may stand there."""
    if exclude is None:
        return pictures, set()
    path = lists / exclude
    names = set(read_list(path))
    unknown = names - {picture.name for picture in pictures} - set(skipped)
    if unknown:
        raise UserError(f"{path} excludes {min(unknown)}, which is no picture of its source")
    return tuple(picture for picture in pictures if picture.name not in names), names
