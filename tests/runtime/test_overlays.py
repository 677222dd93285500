"""Overlays of a run: Ctrl-C ends a camera but not a file's run, and a stream that changes its size stays one video."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from scalenas_runtime.errors import UserError
from scalenas_runtime.overlays import Result, run_frames
from scalenas_runtime.pictures import Picture
from scalenas_runtime.results import no_persons
from scalenas_runtime.sources import Frame
from tests.runtime.dots import dot_recipe


def frames(*sizes: tuple[int, int], interrupted: bool = False) -> Iterator[Frame]:
    for index, size in enumerate(sizes):
        yield Frame(np.full((*size, 3), 40 * index, np.uint8), f"camera_{index:06d}", index, time=index / 10)
    if interrupted:
        raise KeyboardInterrupt


def analyse(_: Frame) -> Result:
    return no_persons(dot_recipe())


def draw(_: Result, picture: Picture) -> Picture:
    return picture


def test_ctrl_c_ends_a_live_source_and_keeps_what_is_there(tmp_path: Path) -> None:
    given = frames((48, 64), (48, 64), interrupted=True)
    report = run_frames(given, analyse, tmp_path, draw=draw, rate=10, live=True)
    assert report.interrupted
    assert len(report.frames) == 2
    assert report.files == ["overlay.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "overlay.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_ctrl_c_is_passed_on_for_files(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_frames(frames((48, 64), interrupted=True), analyse, tmp_path, draw=draw)


def test_frames_of_other_sizes_are_fitted_into_the_video(tmp_path: Path) -> None:
    run_frames(frames((48, 64), (96, 128), (31, 17)), analyse, tmp_path, draw=draw)
    capture = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
    shapes = [capture.read()[1].shape for _ in range(3)]
    assert shapes == [(48, 64, 3)] * 3


def test_a_video_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written as an MP4 video of 64 x 48"):
        run_frames(frames((48, 64)), analyse, tmp_path / "not there", draw=draw)


def test_a_video_that_lacks_frames_is_an_error(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np;"
        "from scalenas_runtime.overlays import run_frames;"
        "from tests.runtime.test_overlays import analyse, draw; from scalenas_runtime.sources import Frame;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); rng = np.random.default_rng(0);"
        "frames = (Frame(rng.integers(0, 256, (96, 128, 3), np.uint8), 'f', i, time=i / 10) for i in range(40));"
        "run_frames(frames, analyse, Path(sys.argv[1]), draw=draw)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert re.search(r"UserError: overlay.mp4 holds \d+ of 40 frames \(\d+ bytes are free on its disk\)", done.stderr)


@pytest.mark.parametrize("rate", [119.047619, 66.666667, 59.940060, 0.001, 999.99])
def test_every_rate_can_be_written(rate: float, tmp_path: Path) -> None:
    report = run_frames(frames((48, 64), (48, 64)), analyse, tmp_path, draw=draw, rate=rate)
    assert report.files == ["overlay.mp4"]
    written = cv2.VideoCapture(str(tmp_path / "overlay.mp4")).get(cv2.CAP_PROP_FPS)
    assert written == pytest.approx(max(rate, 0.01), rel=1e-3)


def test_a_folder_whose_name_is_no_utf8_takes_no_video(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"out\xff")
    folder.mkdir()
    with pytest.raises(UserError, match="its name is no UTF-8"):
        run_frames(frames((48, 64)), analyse, folder, draw=draw)
