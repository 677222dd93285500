"""`data.yaml`: where labelled pictures are, what their labels mean, and how the train set is split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from scalenas_runtime.errors import UserError
from scalenas_runtime.records import Record, read_record
from scalenas_runtime.yaml_files import parse_yaml, read_yaml

Task = Literal["pose", "segmentation"]


class Sequences(Record, frozen=True, kw_only=True):
    """Which pictures are alike because they show the same moment or place, so that no split tears them apart.

    Attributes:
        pattern: Regular expression; what it finds in a picture's name (its first group, if it has one) names the
            sequence. Names in which it finds nothing are sequences of one picture.
        block: Cut sequences into stretches of so many pictures, in the order of their names, and split by stretches;
            0 keeps every sequence whole.
        gap: Pictures this close to a stretch of another split are left out, from `fit` rather than from the others.
    """

    pattern: str
    block: int = 0
    gap: int = 0

    def __post_init__(self) -> None:
        if self.block < 0 or self.gap < 0:
            raise ValueError(f"block {self.block} and gap {self.gap} must not be negative")


class CocoSource(Record, frozen=True, kw_only=True, tag_field="kind", tag="coco"):
    """People with joints in a COCO keypoints file.

    Attributes:
        annotations: The JSON file.
        pictures: Folder of the pictures; the JSON file's own where left out.
        share: Share of the samples, relative to the other sources'.
        sequences: Which pictures belong together.
        missing: What to do about annotations without their picture: stop, or leave them out, counted.
        exclude: Text file with names of pictures to leave out, one per line; counted.
    """

    annotations: str
    pictures: str | None = None
    share: float = 1.0
    sequences: Sequences | None = None
    missing: Literal["error", "skip"] = "error"
    exclude: str | None = None


class FolderSource(Record, frozen=True, kw_only=True, tag_field="kind", tag="folders"):
    """Pictures in one folder, masks in another; grey masks hold labels, coloured ones the classes' colours.

    Attributes:
        pictures: Folder of the pictures.
        masks: Folder of the masks.
        picture_suffix: End of the pictures' names that masks do not share, without the extension.
        mask_suffix: End of the masks' names that pictures do not share, without the extension.
        mapping: Label in the masks to label, name of a class or `ignore`, for labels that differ.
        colours: Name of a class or `ignore` to its colours [R, G, B] in the masks, beside the palette's.
        share: Share of the samples, relative to the other sources'.
        sequences: Which pictures belong together.
        missing: What to do about pictures without their mask: stop, or leave them out, counted.
        exclude: Text file with names of pictures to leave out, one per line; counted.
    """

    pictures: str
    masks: str
    picture_suffix: str = ""
    mask_suffix: str = ""
    mapping: dict[int, int | str] = msgspec.field(default_factory=dict)
    colours: dict[str, tuple[tuple[int, int, int], ...]] = msgspec.field(default_factory=dict)
    share: float = 1.0
    sequences: Sequences | None = None
    missing: Literal["error", "skip"] = "error"
    exclude: str | None = None


class CityscapesSource(Record, frozen=True, kw_only=True, tag_field="kind", tag="cityscapes"):
    """A part of Cityscapes, as it is unpacked: `leftImg8bit/PART/CITY` and `gtFine/PART/CITY`.

    Attributes:
        folder: What holds `leftImg8bit` and `gtFine`.
        part: `train`, `val` or `test`.
        labels: Which masks: `labelIds` as they come, or `labelTrainIds` as the official scripts make them.
        share: Share of the samples, relative to the other sources'.
        sequences: Which pictures belong together: those of a city and recording, where left out.
        missing: What to do about pictures without their mask: stop, or leave them out, counted.
        exclude: Text file with names of pictures to leave out, one per line; counted.
    """

    folder: str
    part: str
    labels: Literal["labelIds", "labelTrainIds"] = "labelIds"
    share: float = 1.0
    sequences: Sequences | None = Sequences(pattern=r"([^/]+_\d+)_\d+_leftImg8bit")
    missing: Literal["error", "skip"] = "error"
    exclude: str | None = None


class SyntheticSource(Record, frozen=True, kw_only=True, tag_field="kind", tag="synthetic"):
    """Scenes that are drawn when they are needed.

    Attributes:
        seed: Which sequence of scenes.
        count: How many of it.
        share: Share of the samples, relative to the other sources'.
        size: Height and width of the drawn pictures; fitting the net's input where left out.
    """

    seed: int
    count: int
    share: float = 1.0
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.seed < 0 or self.count < 1:
            raise ValueError(f"seed {self.seed} must not be negative, count {self.count} must be positive")


Source = CocoSource | FolderSource | CityscapesSource | SyntheticSource
PoseSource = CocoSource | SyntheticSource
MapSource = FolderSource | CityscapesSource | SyntheticSource


class Splits(Record, frozen=True, kw_only=True):
    """How the train set becomes `fit`, `calibrate` and `search`.

    Attributes:
        seed: Decides which pictures go where, while there are no list files yet.
        calibrate: Share of the pictures.
        search: Share of the pictures.
        folder: Where the list files are, or will be written; relative to the description's folder, and
            `splits/NAME` of NAME.yaml where left out.
    """

    seed: int = 0
    calibrate: float = 0.05
    search: float = 0.1
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must not be negative")
        if not (self.calibrate > 0 and self.search > 0 and self.calibrate + self.search < 1):
            raise ValueError(
                f"calibrate {self.calibrate} and search {self.search} must be shares that leave some to fit"
            )


class Description(Record, frozen=True, kw_only=True):
    """A `data.yaml`, before its sources are opened.

    Attributes:
        task: `pose` or `segmentation`.
        train: Sources to learn from; only their pictures are split.
        val: Sources for reports.
        test: Sources for reports.
        root: Folder that the sources' relative paths start at; relative to the description's folder.
        set: Named joints or classes, such as `lspet-14`.
        names: Names of joints, in the order of the net's channels, or of classes, by label; before `set`'s.
        skeleton: Pairs of joints that drawings connect, by name.
        flip_pairs: Pairs of joints that change places in a mirrored picture, by name.
        sigmas: OKS constant of each joint.
        palette: (R, G, B) of each class.
        ignore: Label of pixels that count nowhere.
        splits: How the train set is split.
    """

    task: Task
    train: tuple[Source, ...]
    val: tuple[Source, ...] = ()
    test: tuple[Source, ...] = ()
    root: str = "."
    set: str | None = None
    names: tuple[str, ...] | None = None
    skeleton: tuple[tuple[str, str], ...] | None = None
    flip_pairs: tuple[tuple[str, str], ...] | None = None
    sigmas: tuple[float, ...] | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    ignore: int | None = None
    splits: Splits = Splits()

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train must name at least one source")
        pose = ("coco", "synthetic")
        maps = ("folders", "cityscapes", "synthetic")
        known = pose if self.task == "pose" else maps
        for source in (*self.train, *self.val, *self.test):
            kind = source.__struct_config__.tag
            if kind not in known:
                raise ValueError(f"task {self.task} takes sources of kind {', '.join(known)}, got {kind}")
            if not 0 < source.share < float("inf"):
                raise ValueError(f"share {source.share:g} must be positive")
        foreign = ("palette", "ignore") if self.task == "pose" else ("skeleton", "flip_pairs", "sigmas")
        for key in foreign:
            if getattr(self, key) is not None:
                raise ValueError(f"`{key}` means nothing for task {self.task}")


def read_description(path: Path, changes: Sequence[str] = ()) -> Description:
    """Returns the description in a YAML file.

    Args:
        path: The file.
        changes: `key=value` texts that replace keys, such as `root=/data` or `splits.seed=3`; values are YAML.

    Raises:
        UserError: no such file, not YAML, an unknown key (the nearest known one is named), a wrong type, or a value
            out of range.
    """
    try:
        value = read_yaml(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign or not key:
            raise UserError(f"a change is key=value, such as root=/data, got {change!r}")
        _replace(value, key, parse_yaml(text, what=f"{key} of the change {change!r}"), path)
    return read_record(Description, value, what=str(path))


def _replace(value: dict[str, Any], key: str, new: object, path: Path) -> None:
    *outer, last = key.split(".")
    inner: Any = value
    for name in outer:
        inner = inner.setdefault(name, {}) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        raise UserError(f"{path}: {key} cannot be set, because a part of it is no group of keys")
    inner[last] = new
