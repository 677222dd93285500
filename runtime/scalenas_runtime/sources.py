"""Frames from a file, a directory, a glob, a video, a camera or a network stream, behind one iterator."""

from __future__ import annotations

import glob
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2

from scalenas_runtime.errors import UserError
from scalenas_runtime.files import utf8_path
from scalenas_runtime.pictures import Picture, as_picture, quiet_opencv, read_picture

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".pnm")
VIDEO_SUFFIXES = (
    ".mp4",
    ".avi",
    ".mov",
    ".mkv",
    ".webm",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".ts",
    ".m2ts",
    ".vob",
    ".flv",
    ".3gp",
)
# Frames per second where neither container nor time stamps say, and how many stamps are looked at.
_RATE = 25.0
_STAMPS = 6
# Stamps are whole milliseconds in Matroska; only a rate that is off by more than this share is taken for a wrong claim.
_CLAIM = 0.1
_URL = re.compile(r"(rtsps?|rtmp|rtp|udp|tcp|https?)://")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        picture: uint8 (H, W, 3), BGR; the receiver owns it.
        name: File name of a picture; `<video>_<index>` (six digits) of a video's or camera's frame.
        index: Place in its source, from 0.
        time: Seconds since the start of the video or stream, growing; None for pictures.
        path: The picture's file; None for videos and cameras.
    """

    picture: Picture
    name: str
    index: int
    time: float | None = None
    path: Path | None = None


class Source(ABC):
    """Frames in order: iterate once or, for files, as often as needed; `len()` where it is known.

    Attributes:
        name: What the frames come from, for messages and file names.
        kind: `pictures`, `video` (ends by itself) or `live` (camera or network stream, ends when it stops).
        skipped: Files of a directory or glob that are no pictures and were left out.
        rate: Frames per second of a video or live source; None for pictures or where the container does not say.
    """

    name: str
    kind: Literal["pictures", "video", "live"]
    skipped: int = 0
    rate: float | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames; what was opened is released when the iteration ends, however it ends."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of frames; of a video, about what its container claims.

        Raises:
            TypeError: the number is not known (live sources).
        """


class PictureSource(Source):
    """Picture files, read one by one as they are asked for."""

    kind = "pictures"

    def __init__(self, paths: Sequence[Path], *, name: str, skipped: int = 0) -> None:
        self.paths = tuple(paths)
        self.name = name
        self.skipped = skipped

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            yield Frame(read_picture(path), path.name, index, path=path)

    def __len__(self) -> int:
        return len(self.paths)


class VideoSource(Source):
    """A video file, a camera or a network stream; opened once to be checked, and again by every iteration."""

    def __init__(self, address: str | int, *, name: str, live: bool) -> None:
        self.address = address
        self.name = name
        self.kind = "live" if live else "video"
        capture = _open(address, name)
        try:
            claimed = float(capture.get(cv2.CAP_PROP_FPS))
            count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            rate = claimed if live else _true_rate(claimed, _measured_rate(capture))
        finally:
            capture.release()
        # Containers without a rate report 0, some webcams a nonsense of thousands.
        self.rate = rate if 0 < rate <= 1000 else None
        # A container that counts fields claims twice the rate and twice the frames.
        self._count = None if live or not count > 0 or not claimed > 0 else round(count * rate / claimed)

    def __iter__(self) -> Iterator[Frame]:
        capture = _open(self.address, self.name)
        start, seconds = time.monotonic(), 0.0
        try:
            index = 0
            while True:
                good, picture = capture.read()
                if not good or picture is None:
                    break
                stamp = time.monotonic() - start if self.kind == "live" else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                # Stamps that stand still or jump back (damaged files) would stop a tracker.
                seconds = stamp if index == 0 or stamp > seconds else seconds + 1 / (self.rate or _RATE)
                yield Frame(as_picture(picture), f"{self.name}_{index:06d}", index, time=seconds)
                index += 1
        finally:
            capture.release()
        if index == 0:
            raise UserError(f"{self.address}: no frame could be read")

    def __len__(self) -> int:
        if self._count is None:
            raise TypeError(f"the number of frames of {self.address} is not known")
        return self._count


def open_source(source: str | Path | int | Sequence[str | Path]) -> Source:
    """Returns the frames of `source`.

    Args:
        source: A picture file, a video file, a directory (its pictures in the order of their names; other and hidden
            files are skipped and counted, subdirectories are not entered), a glob such as `shots/*.jpg`, a camera's
            index (`0`, unless a file has that name), a URL (rtsp, rtmp, http, ...), or several pictures, directories
            and globs in a list.

    Raises:
        UserError: nothing is there, a directory or glob without pictures, or a video or camera that does not open.
    """
    if isinstance(source, int):
        return VideoSource(source, name=f"camera{source}", live=True)
    if isinstance(source, str | Path):
        return _open_one(str(source))
    several = [open_source(item) for item in source]
    if len(several) == 1:
        return several[0]
    paths: list[Path] = []
    for item in several:
        if not isinstance(item, PictureSource):
            raise UserError(f"{item.name}: a video or camera must be the only source; run once for each")
        paths += item.paths
    if not paths:
        raise UserError("no source was given")
    return PictureSource(paths, name="pictures", skipped=sum(item.skipped for item in several))


def _open_one(text: str) -> Source:
    if _URL.match(text):
        return VideoSource(text, name="stream", live=True)
    path = Path(text)
    if path.is_dir():
        return _pictures_among([item for item in path.iterdir() if item.is_file()], text)
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return VideoSource(text, name=path.stem, live=False)
        return PictureSource([path], name=path.stem)
    if text.isdecimal():
        return open_source(int(text))
    if glob.has_magic(text):
        # pathlib's glob takes no absolute patterns.
        matches = [Path(item) for item in glob.glob(text, recursive=True)]  # noqa: PTH207
        return _pictures_among([item for item in matches if item.is_file()], text)
    raise UserError(f"{text}: no such file or directory (a source is a picture, directory, glob, video, camera or URL)")


def _pictures_among(files: list[Path], text: str) -> PictureSource:
    # macOS puts a hidden `._photo.jpg`, which is no picture, beside each photo on other systems' disks.
    named = (path for path in files if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."))
    pictures = sorted(named, key=_natural)
    if not pictures:
        raise UserError(f"{text}: no pictures among {len(files)} files; suffixes read: {' '.join(PICTURE_SUFFIXES)}")
    return PictureSource(pictures, name=Path(text).name or "pictures", skipped=len(files) - len(pictures))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Returns a sort key that puts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _true_rate(claimed: float, measured: float) -> float:
    """Returns the claimed rate, or the measured one where the two differ by more than rounding."""
    believable = measured <= 0 or abs(measured - claimed) <= _CLAIM * claimed
    return claimed if believable else measured


def _measured_rate(capture: cv2.VideoCapture) -> float:
    """Returns frames per second by the time stamps of the first frames; 0 where they do not grow."""
    stamps = []
    for _ in range(_STAMPS):
        if not capture.grab():
            break
        stamps.append(float(capture.get(cv2.CAP_PROP_POS_MSEC)))
    steps = [later - earlier for earlier, later in pairwise(stamps)]
    return 1000 * len(steps) / sum(steps) if steps and min(steps) > 0 else 0.0


def _open(address: str | int, name: str) -> cv2.VideoCapture:
    place = address if isinstance(address, int) else utf8_path(address)
    with quiet_opencv():
        try:
            capture = cv2.VideoCapture(place)
        except cv2.error:  # a number beyond 32 bits
            raise UserError(f"{address} is no camera's index; the first camera is 0") from None
    if not capture.isOpened():
        capture.release()
        what = f"camera {address}" if isinstance(address, int) else str(address)
        raise UserError(f"{what} cannot be opened as a video; is it there, and is its format one that OpenCV reads?")
    return capture
