"""Every kind of picture becomes uint8 BGR by the stated rule; every broken one is one clear line."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime import pictures
from scalenas_runtime.errors import UserError
from scalenas_runtime.picture_headers import read_header
from scalenas_runtime.pictures import as_picture, read_picture

Picture = NDArray[Any]
# OpenCV 4 reads GIF but cannot write one.
SUFFIXES = tuple(
    suffix for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff", ".gif", ".ppm") if cv2.haveImageWriter(f"a{suffix}")
)


def encode(suffix: str, array: Picture) -> bytes:
    good, data = cv2.imencode(suffix, array)
    assert good
    return data.tobytes()


def corner_marked() -> Picture:
    """A dark 40 x 60 picture with a white patch in its top left corner."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:10, :15] = 255
    return picture


def exif(orientation: int) -> bytes:
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


def jpeg_with_exif(orientation: int) -> bytes:
    data, body = encode(".jpg", corner_marked()), b"Exif\0\0" + exif(orientation)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def png_with_exif(orientation: int, array: Picture) -> bytes:
    data, body = encode(".png", array), exif(orientation)
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    return data[:33] + chunk + data[33:]


def with_alpha(array: Picture) -> Picture:
    return np.dstack([array, array[:, :, :1]])


def test_a_colour_picture_comes_back_bgr(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    path = tmp_path / "ä picture.png"
    path.write_bytes(encode(".png", picture))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(read_picture(source), picture)


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    expected = np.stack([grey, grey, grey], 2)
    np.testing.assert_array_equal(read_picture(encode(".png", grey)), expected)
    np.testing.assert_array_equal(as_picture(grey), expected)
    np.testing.assert_array_equal(as_picture(grey[:, :, np.newaxis]), expected)


def test_alpha_is_dropped_and_colours_stay_as_stored() -> None:
    bgra = np.random.default_rng(1).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    np.testing.assert_array_equal(read_picture(encode(".png", bgra)), bgra[:, :, :3])
    np.testing.assert_array_equal(as_picture(bgra), bgra[:, :, :3])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_divided_by_257_and_rounded(suffix: str) -> None:
    values = np.array([0, 128, 129, 257, 385, 386, 32767, 65406, 65407, 65535], np.uint16)
    deep = np.repeat(values.reshape(2, 5, 1), 3, axis=2)
    expected = np.round(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(encode(suffix, deep)), expected)
    np.testing.assert_array_equal(as_picture(deep), expected)


def test_sixteen_bit_grey_and_alpha_are_read_too() -> None:
    grey = np.full((4, 4), 0x8080, np.uint16)
    np.testing.assert_array_equal(read_picture(encode(".png", grey)), np.full((4, 4, 3), 128, np.uint8))
    np.testing.assert_array_equal(
        read_picture(encode(".png", np.full((4, 4, 4), 0x8080, np.uint16))), np.full((4, 4, 3), 128, np.uint8)
    )


@pytest.mark.parametrize(
    ("orientation", "shape", "corner"),
    [
        (1, (40, 60), "top left"),
        (2, (40, 60), "top right"),
        (3, (40, 60), "bottom right"),
        (6, (60, 40), "top right"),
        (8, (60, 40), "bottom left"),
    ],
)
def test_exif_orientation_turns_the_picture_upright(orientation: int, shape: tuple[int, int], corner: str) -> None:
    deep = with_alpha(corner_marked()).astype(np.uint16) * 257
    for data in (
        jpeg_with_exif(orientation),
        png_with_exif(orientation, corner_marked()),
        png_with_exif(orientation, deep),
    ):
        picture = read_picture(data)
        assert picture.shape == (*shape, 3)
        row, column = corner.split()
        patch = picture[-5:] if row == "bottom" else picture[:5]
        patch = patch[:, -5:] if column == "right" else patch[:, :5]
        assert patch.min() > 200
        assert picture.mean() < 40


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_size_is_known_before_decoding(suffix: str) -> None:
    header = read_header(encode(suffix, np.zeros((33, 70, 3), np.uint8)))
    assert (header.height, header.width) == (33, 70)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.3, 0.9], ids=["a third", "nearly all"])
def test_a_truncated_picture_is_refused(
    suffix: str, kept: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8), (300, 200))
    data = encode(suffix, np.asarray(picture))
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match=rf"cut\{suffix} (is truncated|is damaged)") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_header_alone_is_truncated() -> None:
    for suffix in SUFFIXES[:4]:
        with pytest.raises(UserError, match="is truncated"):
            read_picture(encode(suffix, np.zeros((9, 9, 3), np.uint8))[:16])


def test_a_jpeg_may_carry_bytes_after_its_end_and_a_thumbnail_before_it(tmp_path: Path) -> None:
    data = jpeg_with_exif(1)
    thumbnail = encode(".jpg", np.zeros((8, 8, 3), np.uint8))
    holder = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + holder + data[2:] + b"motion photo"
    assert read_picture(whole).shape == (40, 60, 3)
    with pytest.raises(UserError, match="a JPEG without its end mark"):
        read_picture((data[:2] + holder + data[2:])[:-300])


def test_a_progressive_jpeg_is_read() -> None:
    picture = np.asarray(cv2.resize(np.random.default_rng(2).integers(0, 256, (9, 9, 3), dtype=np.uint8), (90, 80)))
    good, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])
    assert good
    assert read_picture(data.tobytes()).shape == (80, 90, 3)


def test_a_damaged_png_is_refused() -> None:
    data = bytearray(encode(".png", np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(UserError, match="truncated or damaged: its PNG data cannot be decoded"):
        read_picture(bytes(data))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.jpg is empty \(0 bytes\)"),
        (b"hello, this is text", r"x\.jpg is not a picture: known formats are JPEG, PNG"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), r"x\.jpg is not a picture"),
        (b"P6 no numbers", r"x\.jpg is damaged: a PNM"),
        (b"\xff\xd8\xff\xd9", r"x\.jpg is damaged: a JPEG without a frame"),
        (b"II*\0\x08\0\0\0\0\0" + bytes(20), r"x\.jpg is damaged: a TIFF without width"),
    ],
    ids=["empty", "text", "sound", "bad pnm", "bare jpeg", "bare tiff"],
)
def test_what_is_no_picture_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_picture(path)


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.png: no such file"):
        read_picture(tmp_path / "nothing.png")
    with pytest.raises(UserError, match="is not a file"):
        read_picture(tmp_path)


def claimed_png(height: int, width: int) -> bytes:
    """A small PNG whose header claims another size."""
    data = bytearray(encode(".png", np.zeros((2, 2, 3), np.uint8)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def test_a_picture_over_the_limit_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_decoding(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", no_decoding)
    path = tmp_path / "huge.png"
    path.write_bytes(claimed_png(10_001, 10_000))
    with pytest.raises(UserError, match=r"huge\.png has 10001 x 10000 pixels .* limit is 100,000,000"):
        read_picture(path)
    with pytest.raises(UserError, match="limit of a side is 32,766"):
        read_picture(claimed_png(1, 32_767))
    with pytest.raises(UserError, match="is empty: 0 x 5"):
        read_picture(claimed_png(0, 5))


def test_exactly_the_limit_is_read() -> None:
    array = np.zeros((10_000, 10_000), np.uint8)
    assert as_picture(np.broadcast_to(array[:1, :1, np.newaxis], (10_000, 10_000, 3))[:, :1]).shape == (10_000, 1, 3)
    pictures._check_size("x", 10_000, 10_000)
    with pytest.raises(UserError, match="the limit is"):
        as_picture(np.broadcast_to(np.zeros((), np.uint8), (10_001, 10_000, 3)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_one_pixel_is_a_picture(suffix: str) -> None:
    assert read_picture(encode(suffix, np.full((1, 1, 3), 7, np.uint8))).shape == (1, 1, 3)


def test_floating_point_is_refused() -> None:
    with pytest.raises(UserError, match="uint8 or uint16, got float32; scale floating point"):
        as_picture(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(UserError, match="got float32"):
        read_picture(encode(".tiff", np.zeros((4, 4, 3), np.float32)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"got \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"got \(4,\)"),
        ("photo.jpg", "got str; read files with read_picture"),
    ],
    ids=["two channels", "batch", "no rows", "one axis", "a path"],
)
def test_arrays_that_are_no_pictures_are_refused(array: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_picture(array)


def test_a_picture_array_is_not_copied() -> None:
    picture = np.zeros((4, 5, 3), np.uint8)
    assert as_picture(picture) is picture
    assert as_picture(picture[:, ::-1]).flags.c_contiguous


@pytest.mark.parametrize(
    ("data", "levels"),
    [
        (b"P5 3 1 100\n" + bytes([0, 50, 100]), [0, 128, 255]),
        (b"P5\n# a comment\n3 1\n# another\n4095\n" + struct.pack(">3H", 0, 2048, 4095), [0, 128, 255]),
        (b"P2 3 1 15\n0 7 15\n", [0, 119, 255]),
        (b"P6 1 1 31\n" + bytes([31, 31, 31]), [255]),
        (b"P5 3 1 255\n" + bytes([0, 50, 200]), [0, 50, 200]),
        (b"P5 2 1 65535\n" + struct.pack(">2H", 0, 65535), [0, 255]),
    ],
    ids=["8 bits", "12 bits", "text", "colour", "whole range", "whole 16 bits"],
)
def test_white_is_the_maximum_that_a_pnm_states(data: bytes, levels: list[int]) -> None:
    np.testing.assert_array_equal(read_picture(data)[0, :, 0], levels)


@pytest.mark.parametrize("maximum", ["0", "65536", "white"])
def test_a_pnm_without_a_possible_maximum_is_refused(maximum: str) -> None:
    with pytest.raises(UserError, match=r"is damaged: a PNM with the maximum .*, not 1\.\.65535"):
        read_picture(f"P5 2 1 {maximum}\n".encode() + bytes(2))


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.jpg"
    with path.open("wb") as stream:
        stream.truncate(pictures.MAX_BYTES + 1)  # takes no space

    def read(_: Path) -> bytes:
        raise AssertionError("it was read")

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(UserError, match=r"film\.jpg has 1,073,741,825 bytes, a picture at most 1,073,741,824"):
        read_picture(path)
