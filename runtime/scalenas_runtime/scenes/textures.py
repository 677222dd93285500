"""A fixed stock of tileable patterns that scenes cut pieces from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# What cv2's functions take and give; the values here are uint8 throughout.
Grey = np.ndarray[Any, np.dtype[np.integer[Any] | np.floating[Any]]]
Waves = NDArray[np.float64]
TILE = 256
NEUTRAL = 128
_SEED = 20260


@functools.cache
def stock(kind: str) -> tuple[Grey, ...]:
    """Returns the patterns of one kind, each (256, 256) grey, 128 meaning "leave the colour as it is".

    Kinds: `grain` (noise of a camera), `blotch` (soft patches), `cloth` (stripes, checks, dots, prints; the first four
    are plain), `leaf` (foliage), `brick` and `rough` (asphalt, gravel, plaster). They cannot be written to.
    """
    rng = np.random.default_rng(np.random.SeedSequence([_SEED, list(_BUILDERS).index(kind)]))
    patterns = tuple(_BUILDERS[kind](rng))
    for pattern in patterns:
        pattern.setflags(write=False)
    return patterns


def cut(kind: str, number: int, size: tuple[int, int], rng: np.random.Generator) -> Grey:
    """Returns a (height, width) window of a pattern at a random place; it must not be written to.

    Args:
        kind: Kind of pattern; see `stock`.
        number: Which one of its kind; counts around.
        size: Height and width, in pixels; any size, the pattern repeats.
        rng: Source of chance.
    """
    down, right = (int(value) for value in rng.integers(0, TILE, 2))
    number %= len(stock(kind))
    if max(size) <= TILE:
        whole = _doubled(kind, number)
    else:
        whole = cv2.repeat(stock(kind)[number], 1 + -(-size[0] // TILE), 1 + -(-size[1] // TILE))
    return whole[down : down + size[0], right : right + size[1]]


def scaled(kind: str, size: tuple[int, int], zoom: float, rng: np.random.Generator) -> Grey:
    """Returns a (height, width) window of a random pattern of a kind, `zoom` times as large as in the stock."""
    height, width = size
    number = int(rng.integers(0, len(stock(kind))))
    window = cut(kind, number, (int(height / zoom) + 1, int(width / zoom) + 1), rng)
    return cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)


@functools.cache
def _doubled(kind: str, number: int) -> Grey:
    whole = np.tile(stock(kind)[number], (2, 2))
    whole.setflags(write=False)
    return whole


def _waves(rng: np.random.Generator, sigma: float) -> Waves:
    """Returns smooth tileable noise of zero mean and unit deviation."""
    spectrum = np.fft.rfft2(rng.normal(size=(TILE, TILE)))
    rows, columns = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None]
    smooth = np.fft.irfft2(spectrum * np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + columns**2)), s=(TILE, TILE))
    return np.asarray((smooth - smooth.mean()) / smooth.std())


def _grey(values: Waves) -> Grey:
    return np.clip(np.rint(NEUTRAL + values), 0, 255).astype(np.uint8)


def _grain(rng: np.random.Generator) -> list[Grey]:
    return [_grey(amount * _waves(rng, sigma)) for sigma in (0.0, 0.5, 0.8) for amount in (2.0, 4.0, 7.0)]


def _rough(rng: np.random.Generator) -> list[Grey]:
    return [_grey(8 * _waves(rng, 0.6) + 5 * _waves(rng, sigma) + 6 * _waves(rng, 20.0)) for sigma in (1.5, 3.0, 5.0)]


def _blotch(rng: np.random.Generator) -> list[Grey]:
    return [
        _grey(12 * _waves(rng, sigma) + 6 * _waves(rng, sigma / 3) + 5 * _waves(rng, 0.7))
        for sigma in (5.0, 9.0, 16.0, 26.0)
        for _ in range(2)
    ]


def _leaf(rng: np.random.Generator) -> list[Grey]:
    return [
        _grey(18 * _waves(rng, sigma) + 12 * _waves(rng, 2 * sigma) + 14 * _waves(rng, 8.0) + 8 * _waves(rng, 0.5))
        for sigma in (0.8, 1.2, 1.8)
        for _ in range(2)
    ]


def _brick(rng: np.random.Generator) -> list[Grey]:
    rows, columns = np.mgrid[:TILE, :TILE]
    patterns = []
    for height, width in ((8, 16), (16, 32), (32, 64)):
        shifted = columns + (rows // height % 2) * (width // 2)
        joint = (rows % height < max(1, height // 8)) | (shifted % width < max(1, height // 8))
        tone = rng.normal(0, 9, (TILE // height, TILE // width))
        stone = tone[rows // height, (shifted // width) % (TILE // width)]
        patterns.append(_grey(np.where(joint, 22.0, stone) + 5 * _waves(rng, 0.7) + 6 * _waves(rng, 20.0)))
    return patterns


def _cloth(rng: np.random.Generator) -> list[Grey]:
    rows, columns = np.mgrid[:TILE, :TILE]
    folds = [_waves(rng, 5.0) for _ in range(4)]
    patterns = [_grey(7 * fold) for fold in folds]
    for number, period in enumerate((8, 16, 32, 64, 16, 32)):
        across, along = rows % period < period // 2, columns % period < period // 2
        middle = (rows % period - period / 2) ** 2 + (columns % period - period / 2) ** 2
        prints: tuple[Waves, ...] = (
            np.where(across, 38.0, -28.0),
            np.where(along, 34.0, -26.0),
            np.where(across, 24.0, -18.0) + np.where(along, 20.0, -16.0),
            np.where(middle < period**2 / 9, 62.0, -8.0),
            52 * np.tanh(3 * _waves(rng, period / 4)),
            np.where((rows + columns) % period < period // 2, 36.0, -26.0),
        )
        patterns += [_grey(prints[kind % 6] + 7 * folds[number % 4]) for kind in (number, number + 2)]
    return patterns


_BUILDERS: dict[str, Callable[[np.random.Generator], list[Grey]]] = {
    "grain": _grain,
    "rough": _rough,
    "blotch": _blotch,
    "leaf": _leaf,
    "brick": _brick,
    "cloth": _cloth,
}
