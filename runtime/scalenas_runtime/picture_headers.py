"""Format and size of an encoded picture, read from its first bytes, before anything is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

FORMATS = ("JPEG", "PNG", "BMP", "WebP", "TIFF", "GIF", "PNM")

# In JPEG's entropy-coded data, FF00 is a stuffed byte, FFD0..FFD7 restart markers and FFFF fill.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNM = re.compile(rb"P([1-6])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")
_PNM_MAXIMUM = re.compile(rb"(?:\s|#[^\n]*\n)*(\d+)\s")


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a picture say: format (one of `FORMATS`), width and height in pixels as stored.

    `maximum` is the value of white, where the format says it (PNM) and OpenCV's decoder leaves it to its caller.
    """

    format: str
    width: int
    height: int
    maximum: int | None = None


def read_header(data: bytes) -> Header:
    """Returns format and size of an encoded picture, and checks JPEG and PNG for their end marks.

    The ends are checked because decoders differ: some fill the missing part of a JPEG with grey without a word.

    Raises:
        ValueError: no known picture format, or the data ends too early; the text completes "FILE ...".
    """
    for start, reader in _READERS:
        if data.startswith(start):
            try:
                return reader(data)
            except (struct.error, IndexError):
                raise ValueError(f"is truncated: the header ends after {len(data)} bytes") from None
    if not data:
        raise ValueError("is empty (0 bytes)")
    raise ValueError(f"is not a picture: known formats are {', '.join(FORMATS)}")


def _jpeg(data: bytes) -> Header:
    size: tuple[int, int] | None = None
    position = 2
    while position < len(data):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            break
        marker = data[found.end() - 1]
        position = found.end()
        if marker == 0xD9:
            if size is None:
                raise ValueError("is damaged: a JPEG without a frame")
            return Header("JPEG", size[1], size[0])
        if marker in (0x01, 0xD8):
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_START_OF_FRAME and size is None:
            size = struct.unpack_from(">HH", data, position + 3)
        position += length
    raise ValueError(f"is truncated: a JPEG without its end mark after {len(data)} bytes")


def _png(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return Header("PNG", width, height)
    raise ValueError(f"is truncated: a PNG without its end mark after {len(data)} bytes")


def _bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return Header("BMP", width, abs(height))


def _webp(data: bytes) -> Header:
    (length,) = struct.unpack_from("<I", data, 4)
    kind = data[12:16]
    if data[8:12] != b"WEBP" or kind not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise ValueError(f"is not a picture: known formats are {', '.join(FORMATS)}")
    if length + 8 > len(data):
        raise ValueError(f"is truncated: {len(data)} of {length + 8} bytes are there")
    if kind == b"VP8X":
        return Header("WebP", _little24(data, 24) + 1, _little24(data, 27) + 1)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    width, height = struct.unpack_from("<HH", data, 26)
    return Header("WebP", width & 0x3FFF, height & 0x3FFF)


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, offset)
    size: dict[int, int] = {}
    for index in range(count):
        tag, kind = struct.unpack_from(order + "HH", data, offset + 2 + 12 * index)
        if tag in (256, 257):
            (size[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, offset + 10 + 12 * index)
    if len(size) < 2:
        raise ValueError("is damaged: a TIFF without width and height")
    return Header("TIFF", size[256], size[257])


def _gif(data: bytes) -> Header:
    return Header("GIF", *struct.unpack_from("<HH", data, 6))


def _pnm(data: bytes) -> Header:
    found = _PNM.match(data[:4096])
    if found is None:
        raise ValueError("is damaged: a PNM without width and height")
    size = int(found[2]), int(found[3])
    if found[1] in b"14":  # black and white
        return Header("PNM", *size)
    white = _PNM_MAXIMUM.match(data[:4096], found.end())
    if white is None or not 0 < int(white[1]) < 65536:
        raise ValueError(
            f"is damaged: a PNM with the maximum {'none' if white is None else int(white[1])}, not 1..65535"
        )
    # OpenCV scales text of up to 8 bits itself, and nothing else.
    scaled = found[1] in b"23" and int(white[1]) < 256
    return Header("PNM", *size, None if scaled else int(white[1]))


def _little24(data: bytes, position: int) -> int:
    return data[position] | data[position + 1] << 8 | data[position + 2] << 16


_READERS: tuple[tuple[bytes, Callable[[bytes], Header]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"II*\x00", _tiff),
    (b"MM\x00*", _tiff),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    *((b"P" + digit, _pnm) for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
)
