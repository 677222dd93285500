"""Logits to class maps: flip test, merging of windows, padding, and the fused upsampling and argmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime import kernels

Size = tuple[int, int]


def class_map(
    logits: NDArray[np.float32],
    size: Size,
    *,
    align_corners: bool = False,
    extent: tuple[Fraction, Fraction] | None = None,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Returns the class of each pixel: logits upsampled bilinearly to `size`, then the largest.

    The two steps are one, in a native kernel where it was built, else in NumPy with equal labels. Ties go to the
    lowest class; NaN never wins (see `kernels.class_map`). Any ratio of sizes is served, shrinking too.

    Args:
        logits: (C, h, w) or (N, C, h, w), 1 to 255 classes.
        size: Height and width of the class map, in pixels.
        align_corners: The sampling rule, as in `torch.nn.functional.interpolate`.
        extent: Height and width of the part of the logits that the class map covers, from the top left corner, in
            logit pixels and perhaps fractions of them; the rest is padding and is not read. All by default.
        out: Array (H, W), or (N, H, W), to write into; rows may be strided, columns not.

    Returns:
        uint8 (H, W), or (N, H, W); a new array, or `out`.

    Raises:
        ValueError: another dtype or shape, an empty side, or an `out` that does not fit.
    """
    if logits.ndim not in (3, 4) or 0 in logits.shape:
        raise ValueError(f"logits must be (C, h, w) or (N, C, h, w) without an empty side, got {logits.shape}")
    if logits.dtype != np.float32:
        raise ValueError(f"logits must be float32, got {logits.dtype.name}")
    if logits.shape[-3] > 255:
        raise ValueError(f"class maps are uint8 and hold at most 255 classes, got {logits.shape[-3]}")
    if min(size) < 1:
        raise ValueError(f"size must be positive, got {size}")
    shape = (*logits.shape[:-3], *size)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8 or out.strides[-1] != 1:
        raise ValueError(f"out must be uint8 {shape} with adjacent columns, got {out.dtype.name} {out.shape}")
    height, width = extent or (Fraction(logits.shape[-2]), Fraction(logits.shape[-1]))
    if not (0 < height <= logits.shape[-2] and 0 < width <= logits.shape[-1]):
        raise ValueError(f"extent {float(height)} x {float(width)} is outside the logits {logits.shape[-2:]}")
    read = logits[..., : math.ceil(height), : math.ceil(width)]
    rows = kernels.bilinear_sampling(read.shape[-2], size[0], align_corners=align_corners, extent=height)
    columns = kernels.bilinear_sampling(read.shape[-1], size[1], align_corners=align_corners, extent=width)
    if logits.ndim == 3:
        kernels.class_map(read, out, rows, columns)
    else:
        for one, target in zip(read, out, strict=True):
            kernels.class_map(one, target, rows, columns)
    return out


def covered(content: int, total: int, logits: int, *, align_corners: bool) -> Fraction:
    """Returns how many logit pixels the first `content` of `total` input pixels cover, for `class_map`'s `extent`.

    Args:
        content: Input pixels that show the picture; the rest is padding.
        total: Input pixels of the net along this axis.
        logits: Logit pixels along this axis.
        align_corners: The sampling rule of the logits.
    """
    if align_corners:
        return 1 + Fraction((content - 1) * (logits - 1), max(total - 1, 1))
    return Fraction(content * logits, total)


def merge_flipped(logits: NDArray[np.float32], mirrored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the mean of the logits of pictures and of their mirror images, in the pictures' own orientation.

    Args:
        logits: (..., h, w), of the pictures.
        mirrored: The same shape, of the pictures mirrored left to right.

    Raises:
        ValueError: the shapes differ.
    """
    if logits.shape != mirrored.shape:
        raise ValueError(f"mirrored logits have shape {mirrored.shape}, the others {logits.shape}")
    return (logits + mirrored[..., ::-1]) * np.float32(0.5)


def fitted_size(size: Size, limits: Size) -> Size:
    """Returns the largest size of the same aspect ratio, rounded to whole pixels, that fits into `limits`."""
    scale = min(Fraction(limit, side) for limit, side in zip(limits, size, strict=True))
    height, width = (max(1, min(limit, round(side * scale))) for side, limit in zip(size, limits, strict=True))
    return height, width


def window_offsets(length: int, window: int, *, overlap: float, stride: int) -> tuple[int, ...]:
    """Returns where windows begin along one axis so that they cover it, in pixels from its start.

    The fewest windows are taken whose neighbours share at least `overlap` of a window, spread evenly. Offsets are
    multiples of `stride`, so that the logits of all windows lie on one grid; the last window therefore ends at the
    last pixel or, where `length` is no multiple of `stride`, less than `stride` pixels behind it.

    Args:
        length: Pixels to cover.
        window: Pixels of one window, a multiple of `stride`.
        overlap: Share of a window, 0 to below 1.
        stride: Input pixels per logit pixel.
    """
    last = -(-max(length - window, 0) // stride)
    step = max(int(window * (1 - overlap)) // stride, 1)
    count = 1 + -(-last // step)
    return tuple(stride * (index * last // max(count - 1, 1)) for index in range(count))


class WindowLogits:
    """Collects the logits of overlapping windows of one picture; `mean` is their average where they overlap.

    The array is kept from picture to picture as long as the size stays the same.
    """

    def __init__(self) -> None:
        self._sum = np.empty((0, 0, 0), np.float32)
        self._count = np.empty((0, 0), np.float32)

    def begin(self, shape: Sequence[int]) -> None:
        """Starts a picture whose merged logits have the shape (C, h, w)."""
        if self._sum.shape != tuple(shape):
            self._sum = np.empty(tuple(shape), np.float32)
            self._count = np.empty(tuple(shape)[1:], np.float32)
        self._sum.fill(0)
        self._count.fill(0)

    def add(self, logits: NDArray[np.float32], top: int, left: int) -> None:
        """Adds the logits (C, h, w) of one window that begins at (`top`, `left`), in logit pixels."""
        rows, columns = slice(top, top + logits.shape[1]), slice(left, left + logits.shape[2])
        self._sum[:, rows, columns] += logits
        self._count[rows, columns] += 1

    def mean(self) -> NDArray[np.float32]:
        """Returns the average (C, h, w); the array belongs to this object and changes with the next picture.

        Raises:
            ValueError: the windows leave a gap.
        """
        if not self._count.all():
            raise ValueError("the windows do not cover the picture")
        self._sum /= self._count
        return self._sum
