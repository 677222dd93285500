"""Pictures as the runtime takes them: uint8 (H, W, 3), BGR, from files, bytes or arrays, by one stated rule.

The rule: grey becomes three equal channels; alpha is dropped, colours stay as stored (as OpenCV and PIL's
`convert("RGB")` do); 16 bits become 8 by dividing by 257 and rounding; a PNM's stated maximum is white; EXIF
orientation is applied; of several pages or frames the first is taken. Floating-point pictures are refused, because
their range is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.picture_headers import read_header

Picture = NDArray[np.uint8]

MAX_PIXELS = 100_000_000
# OpenCV's warps hold source coordinates in 16 bits.
MAX_SIDE = 32_766
# 100 million pixels of four 16-bit channels take 0.8 GB uncompressed.
MAX_BYTES = 1 << 30


def read_picture(source: str | Path | bytes) -> Picture:
    """Returns the picture in a file, or in the bytes of one: uint8 (H, W, 3), BGR, upright by its EXIF orientation.

    Raises:
        UserError: no such file, not a picture, truncated or damaged, a floating-point picture, over `MAX_PIXELS`
            pixels, over `MAX_SIDE` on a side (both refused before decoding) or over `MAX_BYTES` bytes (refused before
            reading); the text names the file.
    """
    name, data = _load(source)
    try:
        header = read_header(data)
    except ValueError as error:
        raise UserError(f"{name} {error}") from None
    _check_size(name, header.height, header.width)
    # IMREAD_UNCHANGED would ignore EXIF; without ANYDEPTH OpenCV cuts 16 bits to 8 instead of rounding.
    with quiet_opencv():
        try:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        except cv2.error as error:
            raise UserError(f"{name} cannot be decoded: {' '.join(str(error).split())[:200]}") from None
    if decoded is None:
        raise UserError(f"{name} is truncated or damaged: its {header.format} data cannot be decoded")
    if header.maximum is not None:
        decoded = _stretched(decoded, header.maximum)
    try:
        return as_picture(decoded)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def as_picture(array: NDArray[Any]) -> Picture:
    """Returns an array as a picture: uint8 (H, W, 3), BGR; the array itself where it is one already.

    Args:
        array: uint8 or uint16 of shape (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA.

    Raises:
        UserError: another dtype or shape, an empty picture, or one over the limits of `read_picture`.
    """
    if not isinstance(array, np.ndarray):
        raise UserError(f"a picture is a NumPy array, got {type(array).__name__}; read files with read_picture")
    if array.dtype not in (np.uint8, np.uint16):
        raise UserError(f"a picture is uint8 or uint16, got {array.dtype.name}; scale floating point to 0..255 first")
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"a picture has shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    _check_size("the picture", *array.shape[:2])
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    elif array.shape[2] == 4:
        array = array[:, :, :3]
    return np.ascontiguousarray(array)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keeps OpenCV's own log lines off stderr inside the block; the errors raised here say it better."""
    # OpenCV 4 has the function on its top level; silent is 0 in both.
    logging = getattr(cv2.utils, "logging", cv2)
    before = logging.setLogLevel(0)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _load(source: str | Path | bytes) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return f"the picture ({len(source)} bytes)", source
    path = Path(source)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"{path} has {size:,} bytes, a picture at most {MAX_BYTES:,}; is it a video of another suffix?")
    return str(path), path.read_bytes()


def _stretched(decoded: NDArray[Any], maximum: int) -> NDArray[Any]:
    """Returns a picture whose white is `maximum`, as OpenCV decodes it, with white at the top of its type."""
    top = int(np.iinfo(decoded.dtype).max)
    if maximum == top:
        return decoded
    scaled: NDArray[Any] = (np.minimum(decoded, maximum).astype(np.uint32) * top + maximum // 2) // maximum
    return scaled.astype(decoded.dtype)


def _check_size(name: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise UserError(f"{name} is empty: {height} x {width} pixels")
    if height * width > MAX_PIXELS:
        raise UserError(f"{name} has {height} x {width} pixels (height x width); the limit is {MAX_PIXELS:,} in all")
    if max(height, width) > MAX_SIDE:
        raise UserError(f"{name} has {height} x {width} pixels (height x width); the limit of a side is {MAX_SIDE:,}")
