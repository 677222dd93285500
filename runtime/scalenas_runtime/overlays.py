"""A whole source through an estimator: overlays as pictures or one video, and everything found as one JSON file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import utf8_path, write_bytes, write_text
from scalenas_runtime.pictures import Picture, quiet_opencv
from scalenas_runtime.results import PoseResult, SegmentationResult
from scalenas_runtime.sources import Frame

Result = PoseResult | SegmentationResult
RESULTS = "results.json"
_QUALITY = 95
_RATE = 25.0


@dataclass(slots=True)
class RunReport:
    """What a run did.

    Attributes:
        frames: One JSON entry a frame, in order: name, index, time, size and the result.
        persons: Persons in all frames (pose).
        files: Names of the files written into the folder, in order.
        interrupted: A live source was ended by Ctrl-C.
    """

    frames: list[Json] = field(default_factory=list)
    persons: int = 0
    files: list[str] = field(default_factory=list)
    interrupted: bool = False


def run_frames(
    frames: Iterable[Frame],
    analyse: Callable[[Frame], Result],
    folder: Path,
    *,
    draw: Callable[[Result, Picture], Picture],
    rate: float | None = None,
    live: bool = False,
) -> RunReport:
    """Returns what was found, and writes the overlays into `folder`.

    Pictures give one overlay each, `<name>.jpg`, and class maps as `<name>_classes.png`; frames without a file (videos,
    cameras) give one video, `overlay.mp4`.

    Args:
        frames: The frames, as a source yields them.
        analyse: Gives a frame's result.
        folder: An existing folder.
        draw: Gives the overlay of a result on its frame's picture.
        rate: Frames per second of the video; 25 where it is not known.
        live: Ctrl-C ends the frames and keeps what is there, instead of being an error.

    Raises:
        UserError: a frame or its boxes cannot be used, or the video cannot be written.
        OSError: the folder is read-only or the disk is full.
    """
    report = RunReport()
    video = _Video(folder / "overlay.mp4", _writable_rate(rate or _RATE))
    try:
        for frame in frames:
            result = analyse(frame)
            overlay = draw(result, frame.picture)
            if frame.path is None:
                video.write(overlay)
            else:
                _write_picture(folder, frame, result, overlay, report)
            report.frames.append(_entry(frame, result))
            report.persons += len(result) if isinstance(result, PoseResult) else 0
    except KeyboardInterrupt:
        if not live:
            raise
        report.interrupted = True
    finally:
        video.close()
    if video.frames:
        video.check()
        report.files.append(video.path.name)
    return report


def write_results(folder: Path, head: dict[str, Json], report: RunReport) -> dict[str, Json]:
    """Returns the document of a run, and writes it as `results.json` into `folder`.

    Args:
        folder: An existing folder.
        head: What the run was: task, bundle, target, source, skipped files.
        report: What it found.
    """
    document: dict[str, Json] = {"schema": "scalenas.run/1", **head, "files": report.files, "frames": report.frames}
    write_text(folder / RESULTS, pretty_json(document))
    return document


def _entry(frame: Frame, result: Result) -> Json:
    height, width = frame.picture.shape[:2]
    place: dict[str, Json] = {"name": frame.name, "index": frame.index, "height": height, "width": width}
    if frame.time is not None:
        place["time"] = round(frame.time, 6)
    return {**place, **result.to_json()}


def _write_picture(folder: Path, frame: Frame, result: Result, overlay: Picture, report: RunReport) -> None:
    stem = _free_stem(Path(frame.name).stem, frame.index, report.files)
    report.files.append(f"{stem}.jpg")
    write_bytes(folder / f"{stem}.jpg", _encode(".jpg", overlay, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]))
    if isinstance(result, SegmentationResult):
        report.files.append(f"{stem}_classes.png")
        write_bytes(folder / f"{stem}_classes.png", _encode(".png", result.class_map, []))


def _free_stem(stem: str, index: int, taken: list[str]) -> str:
    # Pictures of several folders may share a name.
    return f"{stem}_{index:06d}" if f"{stem}.jpg" in taken else stem


def _encode(suffix: str, picture: Picture, options: list[int]) -> bytes:
    good, data = cv2.imencode(suffix, picture, options)
    if not good:
        raise UserError(f"a picture of {picture.shape} cannot be written as {suffix}")
    return data.tobytes()


def _writable_rate(rate: float) -> float:
    # MPEG-4 counts time in at most 65535 ticks a second, and OpenCV takes a tick for every decimal that it sees.
    return max(0.01, round(rate, 2 if rate <= 65 else 1))


class _Video:
    """An MP4 file that opens with the first frame, in its size."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.frames = 0
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, picture: Picture) -> None:
        if self._writer is None:
            self._size = (picture.shape[1], picture.shape[0])
            with quiet_opencv():
                code = cv2.VideoWriter.fourcc(*"mp4v")
                self._writer = cv2.VideoWriter(utf8_path(self.path), code, self._rate, self._size)
            if not self._writer.isOpened():
                raise UserError(f"{self.path} cannot be written as an MP4 video of {self._size[0]} x {self._size[1]}")
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = np.asarray(cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        with quiet_opencv():
            self._writer.write(picture)
        self.frames += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Raises an error where the file lacks frames: OpenCV does not say that a disk was full."""
        with quiet_opencv():
            capture = cv2.VideoCapture(str(self.path))
            whole = max(0, round(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            capture.release()
        if whole < self.frames:
            free = shutil.disk_usage(self.path.parent).free
            raise UserError(
                f"{self.path.name} holds {whole} of {self.frames} frames ({free} bytes are free on its disk)"
            )
