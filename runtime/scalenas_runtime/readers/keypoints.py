"""COCO keypoint files with any joints: pictures, and per person a box, joints, area and whether it is a crowd."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.json_files import read_json
from scalenas_runtime.pictures import Picture, read_picture
from scalenas_runtime.readers.annotations import entries


class _Image(msgspec.Struct):
    id: int
    file_name: str
    height: int | None = None
    width: int | None = None


class _Category(msgspec.Struct):
    id: int
    name: str = "person"
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    keypoints: list[float] = []
    area: float | None = None
    iscrowd: int = 0


@dataclass(frozen=True, slots=True)
class KeypointPicture:
    """One picture and the N people labelled in it.

    Attributes:
        id: The picture's number in the data set.
        name: File name, or what stands for one.
        read: Gives the picture, uint8 (H, W, 3) BGR.
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the picture.
        joints: (N, K, 3) float32: x, y in pixels of the picture, and 0 not labelled, 1 hidden, 2 visible.
        areas: (N,) float64 in square pixels: the person's outline where the file has one over 0, else the box.
        crowd: (N,) bool: a group in one box, which no metric counts.
        size: Height and width in pixels where the data set gives them; None where only the picture itself tells.
    """

    id: int
    name: str
    read: Callable[[], Picture]
    boxes: NDArray[np.float32]
    joints: NDArray[np.float32]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    size: tuple[int, int] | None = None

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) bool: people with at least one labelled joint who are no crowd."""
        return ~self.crowd & (self.joints[:, :, 2] > 0).any(axis=1) & (self.areas > 0)

    @property
    def boxed(self) -> NDArray[np.bool_]:
        """(N,) bool: people whose box has an area and shows some of the picture, as far as its size is known."""
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        width_height = (np.inf, np.inf) if self.size is None else self.size[::-1]
        shown: NDArray[np.bool_] = (high > low) & (high > 0) & (low < np.array(width_height))
        return np.asarray(shown.all(axis=1), np.bool_)


@dataclass(frozen=True, slots=True)
class KeypointData:
    """A data set of people's joints; iterating gives one `KeypointPicture` after the other, without reading pictures.

    Attributes:
        name: Where it comes from.
        joints: Names of the K joints.
        edges: Pairs of joint indices.
        count: Number of pictures.
        counts: What was found and left out: pictures, people, crowds, people without joints, pictures without people,
            missing pictures.
        pictures: Gives an iterator over the pictures.
        left_out: Names of pictures that are not given because their files are missing.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    count: int
    counts: dict[str, int]
    pictures: Callable[[], Iterator[KeypointPicture]]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[KeypointPicture]:
        return self.pictures()


def read_keypoints(
    annotations: str | Path, pictures: str | Path | None = None, *, missing: Literal["error", "skip"] = "error"
) -> KeypointData:
    """Returns the data set of a COCO keypoints file. Pictures are in the order of their ids.

    Args:
        annotations: The JSON file, with `images`, `annotations` and `categories`; the first category that has joints
            counts, and entries of others are left out.
        pictures: Folder that the file names are relative to; the JSON file's own where left out.
        missing: What to do about pictures that are not in the folder: stop at the first, or leave them out, counted.

    Raises:
        UserError: not such a file, an entry that does not fit, or a missing picture.
    """
    path = Path(annotations)
    folder = path.parent if pictures is None else Path(pictures)
    value = read_json(path)
    images = sorted(entries(value, "images", _Image, path), key=lambda image: image.id)
    category = _person(entries(value, "categories", _Category, path), path)
    people: dict[int, list[_Annotation]] = defaultdict(list)
    known = {image.id for image in images}
    for person in entries(value, "annotations", _Annotation, path):
        if person.category_id != category.id:
            continue
        if person.image_id not in known:
            raise UserError(
                f"{path}: annotation {person.id} belongs to picture {person.image_id}, which is not in `images`"
            )
        people[person.image_id].append(_checked(person, len(category.keypoints), path))
    absent = [image for image in images if not (folder / image.file_name).is_file()]
    if absent and missing == "error":
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UserError(
            f"{path}: its picture {absent[0].file_name} is not in {folder}{more}; name the folder of the pictures"
        )
    gone = {image.id for image in absent}
    kept = [image for image in images if image.id not in gone]

    def each() -> Iterator[KeypointPicture]:
        for image in kept:
            yield _picture(image, people.get(image.id, []), folder, len(category.keypoints))

    edges = _edges(category)
    counts = {**_counts([people.get(image.id, []) for image in kept]), "missing_pictures": len(absent)}
    names = tuple(image.file_name for image in absent)
    return KeypointData(str(path), category.keypoints, edges, len(kept), counts, each, names)


def _person(categories: Sequence[_Category], path: Path) -> _Category:
    for category in categories:
        if category.keypoints:
            return category
    raise UserError(f"{path}: no category has `keypoints` (the names of the joints); is this a file of boxes?")


def _edges(category: _Category) -> tuple[tuple[int, int], ...]:
    """Returns pairs of joints for drawing, without those that name no joint."""
    # COCO counts joints from 1; a file with a 0 counts from 0.
    start = 0 if any(0 in pair for pair in category.skeleton) else 1
    joints = range(start, start + len(category.keypoints))
    return tuple((one - start, other - start) for one, other in category.skeleton if one in joints and other in joints)


def _checked(person: _Annotation, joints: int, path: Path) -> _Annotation:
    if person.keypoints and len(person.keypoints) != 3 * joints:
        raise UserError(
            f"{path}: annotation {person.id} has {len(person.keypoints)} numbers in `keypoints`, {3 * joints} fit its"
            f" {joints} joints"
        )
    return person


def _counts(people: Sequence[Sequence[_Annotation]]) -> dict[str, int]:
    flat = [person for each in people for person in each]
    return {
        "pictures": len(people),
        "people": len(flat),
        "crowds": sum(bool(person.iscrowd) for person in flat),
        "people_without_joints": sum(not any(person.keypoints[2::3]) and not person.iscrowd for person in flat),
        "pictures_without_people": sum(not each for each in people),
    }


def _picture(image: _Image, people: Sequence[_Annotation], folder: Path, joints: int) -> KeypointPicture:
    corners = np.array([person.bbox for person in people], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return KeypointPicture(
        image.id,
        image.file_name,
        partial(_read, folder / image.file_name, image),
        corners.astype(np.float32),
        np.array([person.keypoints or [0.0] * (3 * joints) for person in people], np.float32).reshape(-1, joints, 3),
        np.array([_area(person) for person in people], np.float64),
        np.array([bool(person.iscrowd) for person in people], np.bool_),
        None if image.height is None or image.width is None else (image.height, image.width),
    )


def _area(person: _Annotation) -> float:
    # Tools that write boxes alone leave `area` out, or fill in 0.
    given = 0.0 if person.area is None else person.area
    return given if given > 0 else person.bbox[2] * person.bbox[3]


def _read(file: Path, image: _Image) -> Picture:
    picture = read_picture(file)
    if image.width is not None and image.height is not None and picture.shape[:2] != (image.height, image.width):
        height, width = picture.shape[:2]
        raise UserError(f"{file} is {width} x {height} pixels, its annotations are for {image.width} x {image.height}")
    return picture
