"""The runtime's inner loops: native where the extension was built, NumPy otherwise, with equal results."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


def _load() -> tuple[ModuleType | None, str]:
    """Returns the compiled extension, or None and the reason."""
    try:
        return importlib.import_module("scalenas_runtime._native"), ""
    except ImportError as error:
        return None, str(error)


_native, _reason = _load()
_BAND = 64  # output rows that the NumPy kernel works on together, so that its arrays stay in the cache


class Sampling(NamedTuple):
    """Where output index i of one axis reads: at (step * i + offset) / denominator source pixels, clamped.

    Integers keep coordinates exact, so the native kernel and NumPy find the same neighbours and weights.
    """

    step: int
    offset: int
    denominator: int


@dataclass(frozen=True, slots=True)
class KernelStatus:
    """Which implementation runs here.

    Attributes:
        native: Whether the compiled extension is in use.
        instructions: Instruction set of the native kernels (`baseline`, `avx2`, `avx512`), or `numpy`.
        detail: One line for people.
    """

    native: bool
    instructions: str
    detail: str


def status() -> KernelStatus:
    """Returns which implementation the kernels use, and why."""
    if _native is None:
        detail = (
            f"NumPy fallback, some 40 times slower than the native kernels ({_reason}); "
            "reinstall scalenas-export where a C++17 compiler is found"
        )
        return KernelStatus(False, "numpy", detail)
    best = _native.instruction_sets()[-1]
    return KernelStatus(True, best, f"native kernels, {best} instructions")


def bilinear_sampling(
    source: int, target: int, *, align_corners: bool = False, extent: Fraction | None = None
) -> Sampling:
    """Returns the sampling that stretches the first `extent` of `source` pixels over `target` output pixels.

    Args:
        source: Pixels of the source along this axis.
        target: Pixels of the output along this axis.
        align_corners: False: pixels are areas, output index i reads at (i + 0.5) * extent / target - 0.5. True: the
            centres of the first and last pixels of both fall together, i reads at i * (extent - 1) / (target - 1).
            Both as in `torch.nn.functional.interpolate`.
        extent: Source pixels that the output covers, at least 1 with `align_corners`; all by default.
    """
    covered = Fraction(source) if extent is None else extent
    if align_corners:
        step = (covered - 1) / max(target - 1, 1)
        return Sampling(step.numerator, 0, step.denominator)
    step = covered / target
    scale = 2 * step.denominator
    return Sampling(2 * step.numerator, step.numerator - step.denominator, scale)


def class_map(logits: NDArray[np.float32], out: NDArray[np.uint8], rows: Sampling, columns: Sampling) -> None:
    """Writes into `out` the class whose bilinearly interpolated logit is largest, by the fastest kernel here.

    Args:
        logits: (C, h, w), C at most 255. Rows and classes may be strided; columns that are not adjacent in memory
            cost a copy.
        out: (H, W), writable, columns adjacent in memory; rows may be strided.
        rows: Where output rows read.
        columns: Where output columns read.

    The float32 arithmetic per pixel and class is, along the row and then along the column, a * (1 - weight) +
    b * weight, each operation rounded on its own. A class wins with a value greater than those of all classes
    before it: ties go to the lowest class, an interpolated NaN never wins, and where all are NaN or minus infinity
    the class is 0. The GIL is released meanwhile.
    """
    if _native is None:
        # Python shows a warning of one place once in a process.
        warnings.warn(status().detail, RuntimeWarning, stacklevel=1)
        class_map_numpy(logits, out, rows, columns)
        return
    if logits.strides[2] != logits.itemsize:
        logits = np.ascontiguousarray(logits)
    _native.class_map(logits, out, rows, columns, _native.instruction_sets()[-1])


def class_map_numpy(logits: NDArray[np.float32], out: NDArray[np.uint8], rows: Sampling, columns: Sampling) -> None:
    """Does what `class_map` does, in NumPy: the fallback, and the oracle of the native kernel."""
    y, x = _axis(rows, logits.shape[1], out.shape[0]), _axis(columns, logits.shape[2], out.shape[1])
    for start in range(0, out.shape[0], _BAND):
        band = y.part(slice(start, start + _BAND))
        top, bottom = band.first[0], band.second[-1] + 1
        best = np.full((len(band.first), out.shape[1]), -np.inf, np.float32)
        labels = out[start : start + _BAND]
        labels[...] = 0
        for index, plane in enumerate(logits[:, top:bottom]):
            # An infinite logit times a weight of zero is NaN by rule, not a surprise.
            with np.errstate(invalid="ignore"):
                wide = plane[:, x.first] * x.weight_first + plane[:, x.second] * x.weight_second
                above, below = wide[band.first - top], wide[band.second - top]
                value = above * band.weight_first[:, None] + below * band.weight_second[:, None]
            better = value > best
            np.copyto(best, value, where=better)
            np.copyto(labels, np.uint8(index), where=better)


class _Axis(NamedTuple):
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight_first: NDArray[np.float32]
    weight_second: NDArray[np.float32]

    def part(self, which: slice) -> _Axis:
        return _Axis(self.first[which], self.second[which], self.weight_first[which], self.weight_second[which])


def _axis(sampling: Sampling, source: int, target: int) -> _Axis:
    numerator = np.maximum(sampling.step * np.arange(target, dtype=np.int64) + sampling.offset, 0)
    first = np.minimum(numerator // sampling.denominator, source - 1)
    inside = first < source - 1
    rest = np.where(inside, numerator - first * sampling.denominator, 0)
    weight = (rest / sampling.denominator).astype(np.float32)
    return _Axis(first, np.where(inside, first + 1, first), np.float32(1) - weight, weight)
