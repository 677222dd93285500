"""Files, directories, globs and videos give frames in order; what cannot be opened is one clear line."""

import os
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from scalenas_runtime.errors import UserError
from scalenas_runtime.sources import PictureSource, VideoSource, open_source

DATA = os.environ.get("SCALENAS_DATA")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(["p10.jpg", "p2.PNG", "p1.jpg"]):
        cv2.imwrite(str(tmp_path / name), np.full((8, 6, 3), 10 * index, np.uint8))
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "._p1.jpg").write_text("what macOS keeps beside a photo")
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    cv2.imwrite(str(tmp_path / "deeper" / "p.jpg"), np.zeros((8, 6, 3), np.uint8))
    return tmp_path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (64, 48))
    for index in range(10):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_a_directory_gives_its_pictures_in_natural_order_and_counts_the_rest(folder: Path) -> None:
    source = open_source(folder)
    assert source.kind == "pictures"
    assert (len(source), source.skipped) == (3, 3)
    frames = list(source)
    assert [frame.name for frame in frames] == ["p1.jpg", "p2.PNG", "p10.jpg"]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].path == folder / "p1.jpg"
    assert frames[0].picture.shape == (8, 6, 3)
    assert frames[0].time is None
    assert len(list(source)) == 3


def test_a_glob_and_a_list_and_a_file(folder: Path) -> None:
    assert [frame.name for frame in open_source(str(folder / "p*.jpg"))] == ["p1.jpg", "p10.jpg"]
    assert len(open_source(str(folder / "**/*.jpg"))) == 3
    assert open_source(str(folder / "*")).skipped == 2
    assert [frame.name for frame in open_source(folder / "p2.PNG")] == ["p2.PNG"]
    both = open_source([folder / "deeper", str(folder / "p1.jpg")])
    assert [frame.name for frame in both] == ["p.jpg", "p1.jpg"]
    assert open_source([folder, folder / "deeper"]).skipped == 3


def test_a_file_whose_name_looks_like_a_glob_or_a_number_is_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("shot[1].png", "0"):
        good, data = cv2.imencode(".png", np.zeros((3, 3, 3), np.uint8))
        assert good
        Path(name).write_bytes(data.tobytes())
        assert [frame.name for frame in open_source(name)] == [name]


def test_a_video_gives_frames_with_names_and_times(clip: Path) -> None:
    source = open_source(clip)
    assert isinstance(source, VideoSource)
    assert (source.kind, source.rate, len(source)) == ("video", 12.5, 10)
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(10))
    assert frames[3].name == "walk_000003"
    assert frames[3].path is None
    assert frames[3].time == pytest.approx(3 / 12.5)
    np.testing.assert_allclose([frame.picture.mean() for frame in frames], np.arange(10) * 20, atol=4)
    assert len(list(source)) == 10


def test_a_video_is_released_when_the_reader_stops_early(clip: Path) -> None:
    process = psutil.Process()
    before = process.num_fds()
    for _ in range(5):
        frames = iter(open_source(clip))
        next(frames)
        del frames
    assert process.num_fds() <= before


def test_a_truncated_video_gives_the_frames_it_has(tmp_path: Path) -> None:
    path, rng = tmp_path / "noise.avi", np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    for _ in range(10):
        writer.write(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    writer.release()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert 3 < len(list(open_source(path))) < 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.jpg", "nothing.jpg: no such file or directory"),
        ("*.jpg", r"\*\.jpg: no pictures among 0 files"),
        ("empty", "empty: no pictures among 1 files; suffixes read: .jpg"),
        ("broken.mp4", "broken.mp4 cannot be opened as a video"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    name: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path / name))
    assert "WARN" not in capfd.readouterr().err


def test_a_camera_that_is_not_there_is_one_line() -> None:
    for source in (97, "97"):
        with pytest.raises(UserError, match="camera 97 cannot be opened"):
            open_source(source)


def test_a_stream_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/x\.mjpg cannot be opened"):
        open_source("http://127.0.0.1:9/x.mjpg")


def test_a_video_among_pictures_and_an_empty_list_are_refused(folder: Path, clip: Path) -> None:
    with pytest.raises(UserError, match="walk: a video or camera must be the only source"):
        open_source([folder, clip])
    with pytest.raises(UserError, match="no source was given"):
        open_source([])


def test_a_live_source_has_no_length(clip: Path) -> None:
    live = VideoSource(str(clip), name="stream", live=True)
    with pytest.raises(TypeError, match=r"number of frames of .* is not known"):
        len(live)
    times = [frame.time or 0 for frame in live]
    assert times == sorted(times)


def test_a_broken_picture_in_a_directory_is_named(folder: Path) -> None:
    (folder / "p3.jpg").write_bytes((folder / "p1.jpg").read_bytes()[:-5])
    with pytest.raises(UserError, match=r"p3\.jpg is truncated"):
        list(PictureSource([folder / "p1.jpg", folder / "p3.jpg"], name="x"))


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="SCALENAS_DATA is not set")
def test_real_videos_are_read() -> None:
    videos = Path(str(DATA)) / "video"
    source = open_source(videos / "pedestrian_plaza_vtest.avi")
    # Its container claims twice the frames at twice the rate.
    assert (len(source), source.rate) == (341, 25)
    frames = iter(source)
    times = [next(frames).time or 0 for _ in range(5)]
    np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-6)
    street = list(open_source(videos / "street_mmpose_demo_5frames.mp4"))
    assert len(street) == 5


def test_a_video_whose_name_is_no_utf8_is_one_line(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"walk\xff.avi")
    path.write_bytes(clip.read_bytes())
    with pytest.raises(UserError, match=r"walk\\udcff\.avi: its name is no UTF-8"):
        open_source(path)


@pytest.mark.parametrize(
    ("claimed", "stamps", "rate"),
    [
        (30.0, [0, 33, 67, 100, 133, 167], 30.0),
        (120.0, [0, 8, 17, 25, 33, 42], 120.0),
        (50.0, [0, 40, 80, 120, 160, 200], 25.0),
        (0.0, [0, 40, 80, 120, 160, 200], 25.0),
        (25.0, [0, 0, 0, 0, 0, 0], 25.0),
    ],
    ids=["whole milliseconds", "fast", "fields counted", "none claimed", "no stamps"],
)
def test_the_claimed_rate_holds_unless_the_stamps_say_otherwise(
    claimed: float, stamps: list[float], rate: float, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Capture:
        def __init__(self, _: str) -> None:
            self.next = iter(stamps)
            self.now = 0.0

        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
            return True

        def grab(self) -> bool:
            self.now = next(self.next)
            return True

        def get(self, what: int) -> float:
            return {cv2.CAP_PROP_FPS: claimed, cv2.CAP_PROP_FRAME_COUNT: 100.0}.get(what, self.now)

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    assert open_source(clip).rate == rate


@pytest.mark.parametrize("suffix", [".m2ts", ".vob", ".flv", ".3gp"])
def test_camera_and_disc_files_are_videos(suffix: str, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / f"walk{suffix}"
    path.write_bytes(clip.read_bytes())
    assert open_source(path).kind == "video"


def test_a_number_too_large_for_a_camera_is_one_line() -> None:
    for source in (10**12, str(10**12), str(10**30)):
        with pytest.raises(UserError, match="0 is no camera's index; the first camera is 0"):
            open_source(source)
