"""Places for people to be in: halls, fields, walls, skies, and the clutter around them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.scenes.body import Floats
from scalenas_runtime.scenes.scene import Picture, mix, textured
from scalenas_runtime.scenes.textures import NEUTRAL, scaled
from scalenas_runtime.scenes.wardrobe import any_colour, any_colours

_SKIES: Floats = np.array(
    [(235, 190, 130), (245, 225, 200), (225, 222, 218), (200, 140, 80), (120, 90, 70)], dtype=float
)
_GROUNDS: Floats = np.array(
    [
        (60, 120, 85),
        (70, 140, 110),
        (95, 98, 100),
        (120, 125, 128),
        (130, 150, 170),
        (60, 80, 160),
        (110, 165, 190),
        (150, 110, 60),
    ],
    dtype=float,
)

_WALL: Floats = np.array((135.0, 140.0, 145.0))


def draw_backdrop(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Picture, float]:
    """Returns a (H, W, 3) place without people, and the row of its horizon in pixels."""
    height, width = size
    horizon = int(height * rng.uniform(0.15, 0.8))
    chance = rng.random(6)
    outdoors = chance[0] < 0.5
    upper = _SKIES[int(chance[1] * len(_SKIES))] if outdoors else mix(any_colour(rng), _WALL, 0.45)
    lower = _GROUNDS[int(chance[2] * len(_GROUNDS))] if chance[3] < 0.8 else mix(any_colour(rng), _WALL, 0.3)
    if chance[4] < 0.12:
        upper, lower = upper * 0.15, lower * 0.25
    rows = np.arange(height)[:, None] / height
    column = np.where(rows * height < horizon, upper * (0.85 + 0.25 * rows), lower * (0.8 + 0.35 * rows))
    picture = cv2.repeat(np.clip(column, 0, 255).astype(np.uint8)[:, None], 1, width)
    pattern = np.empty(size, np.uint8)
    far = "blotch" if outdoors else ("brick", "rough", "blotch", "cloth")[int(chance[5] * 4)]
    near = ("rough", "blotch", "leaf")[int(chance[3] * 7) % 3]
    zoom = float(np.exp(rng.uniform(-0.3, 1.0)))
    pattern[:horizon] = scaled(far, (horizon, width), zoom, rng)
    pattern[horizon:] = scaled(near, (height - horizon, width), zoom, rng)
    picture = textured(picture, pattern)
    _scenery(picture, rng, horizon, outdoors=outdoors)
    for _ in range(int(rng.integers(0, 9))):
        at = np.array([rng.uniform(0, width), np.clip(rng.normal(horizon, height * 0.22), 0, height)])
        draw_thing(picture, None, rng, at, float(height * 0.3 * rng.random() ** 2 + 3))
    if rng.random() < 0.55:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 2.2)) * height / 256)
    return picture, float(horizon)


def draw_thing(picture: Picture, mask: Picture | None, rng: np.random.Generator, at: Floats, reach: float) -> None:
    """Draws one object of about `reach` pixels around `at`, and sets 255 in `mask` where it covers.

    Args:
        picture: (H, W, 3), changed.
        mask: (H, W), changed, if given.
        rng: Source of chance.
        at: x, y in pixels.
        reach: Half of its larger side, in pixels.
    """
    kind = int(rng.integers(0, 7))
    tone = any_colour(rng)
    half = reach * rng.uniform(0.35, 1.0, 2)
    turn = float(rng.normal(0, 3) if rng.random() < 0.75 else rng.uniform(0, 180))
    if kind <= 3:
        centre = (float(at[0]), float(at[1]))
        outline = cv2.boxPoints((centre, (float(half[0] * 2), float(half[1] * 2)), turn))
        inner = cv2.boxPoints((centre, (float(half[0] * 1.6), float(half[1] * 1.5)), turn))
        fill(picture, mask, outline, tone)
        fill(picture, None, inner, tone * rng.uniform(0.75, 1.2))
    elif kind == 4:
        corners = at + rng.uniform(-1, 1, (6, 2)) * reach
        fill(picture, mask, cv2.convexHull(corners.astype(np.float32))[:, 0], tone)
    elif kind == 5:
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * half
        fill(picture, mask, at + ring, tone)
        fill(picture, None, at - 0.2 * half + 0.6 * ring, tone * 1.2)
    else:
        thick = max(1, int(reach * rng.uniform(0.05, 0.2)))
        angle = (0.0, np.pi / 2, float(rng.uniform(0, np.pi)))[int(rng.integers(0, 3))]
        way = np.array([np.cos(angle), np.sin(angle)]) * reach * 2
        start, end = (tuple(int(value) for value in at + sign * way) for sign in (-1, 1))
        cv2.line(picture, start, end, tuple(tone), thick, cv2.LINE_AA)
        if mask is not None:
            cv2.line(mask, start, end, 255, thick)


def fill(picture: Picture, mask: Picture | None, outline: NDArray[Any] | Picture, tone: Floats) -> None:
    """Fills a convex outline, (n, 2) x, y in pixels, with a BGR colour, and with 255 in the mask if given."""
    corners = np.rint(outline).astype(np.int32)
    cv2.fillConvexPoly(picture, corners, tuple(float(min(255.0, value)) for value in tone), cv2.LINE_AA)
    if mask is not None:
        cv2.fillConvexPoly(mask, corners, 255)


def shadow(picture: Picture, at: tuple[float, float], half: tuple[float, float], strength: float) -> None:
    """Darkens a soft ellipse on the ground, in place; `strength` 0..1."""
    x, y = int(at[0]), int(at[1])
    wide, high = max(2, int(half[0] * 1.5)), max(2, int(half[1] * 2))
    rows = slice(max(0, y - high), max(0, min(picture.shape[0], y + high)))
    columns = slice(max(0, x - wide), max(0, min(picture.shape[1], x + wide)))
    part = picture[rows, columns]
    if part.size == 0:
        return
    down = ((np.arange(rows.start, rows.stop) - y) / high)[:, None] ** 2
    across = ((np.arange(columns.start, columns.stop) - x) / wide)[None] ** 2
    tone = NEUTRAL * (1 - strength * np.clip(1.2 - 1.2 * (down + across), 0, 1))
    picture[rows, columns] = textured(np.ascontiguousarray(part), tone.astype(np.uint8))


def _scenery(picture: Picture, rng: np.random.Generator, horizon: int, *, outdoors: bool) -> None:
    """Draws what stands at the horizon: trees, a house, spectators, bars; and lines on the ground."""
    height, width = picture.shape[:2]
    chance = rng.random(5)
    if outdoors and chance[0] < 0.35:
        _house(picture, rng, horizon)
    if outdoors and chance[1] < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            _tree(picture, rng, horizon)
    if chance[2] < 0.2:
        _spectators(picture, rng, horizon)
    if chance[3] < 0.22:
        _bars(picture, rng, horizon)
    if chance[4] < 0.35:
        for _ in range(int(rng.integers(1, 4))):
            ends = rng.uniform([[-width, horizon], [0, horizon]], [[width, height], [2 * width, height]])
            thick = int(rng.integers(1, 2 + height // 100))
            start, end = np.rint(ends).astype(int).tolist()
            cv2.line(picture, start, end, (225, 230, 232), thick, cv2.LINE_AA)


def _tree(picture: Picture, rng: np.random.Generator, horizon: int) -> None:
    height, width = picture.shape[:2]
    x, reach = float(rng.uniform(0, width)), float(height * rng.uniform(0.08, 0.3))
    top = horizon - reach * rng.uniform(0.6, 1.2)
    green = np.array([48, 82, 66]) * rng.uniform(0.5, 1.2) * rng.uniform(0.8, 1.2, 3)
    cv2.line(picture, (int(x), int(top)), (int(x), horizon), (45, 60, 75), max(1, int(reach * 0.12)))
    # Leaves further out than two deviations of the blobs are cut off.
    left, right = max(0, int(x - 1.3 * reach)), min(width, int(x + 1.3 * reach))
    high, low = max(0, int(top - 1.1 * reach)), min(height, int(top + 1.1 * reach))
    if left >= right or high >= low:
        return
    part = np.ascontiguousarray(picture[high:low, left:right])
    crown = np.zeros(part.shape[:2], np.uint8)
    for offset in rng.normal(0, 0.42, (9, 2)) * reach:
        size = int(reach * rng.uniform(0.25, 0.5))
        at = (int(x + offset[0]) - left, int(top + 0.7 * offset[1]) - high)
        cv2.circle(part, at, size, tuple(green * (1.1 - 0.4 * offset[1] / reach)), cv2.FILLED)
        cv2.circle(crown, at, size, 255, cv2.FILLED)
    leaves = textured(part, scaled("leaf", part.shape[:2], max(0.6, reach / 60), rng))
    picture[high:low, left:right] = cv2.copyTo(leaves, crown, part)


def _house(picture: Picture, rng: np.random.Generator, horizon: int) -> None:
    height, width = picture.shape[:2]
    left, wide = int(rng.uniform(-0.3, 0.8) * width), int(rng.uniform(0.3, 1.0) * width)
    top = int(horizon * rng.uniform(0.0, 0.6))
    tone = np.clip(any_colour(rng) * 0.6 + 60, 0, 255)
    cv2.rectangle(picture, (left, top), (left + wide, horizon), tuple(tone), cv2.FILLED)
    step, floor = max(8, int(height * rng.uniform(0.07, 0.16))), max(9, int(height * rng.uniform(0.09, 0.2)))
    glass = tuple(tone * rng.uniform(0.3, 0.7))
    for y in range(top + floor // 3, horizon - floor // 2, floor):
        for x in range(left + step // 3, left + wide - step // 2, step):
            cv2.rectangle(picture, (x, y), (x + step // 2, y + floor // 2), glass, cv2.FILLED)


def _spectators(picture: Picture, rng: np.random.Generator, horizon: int) -> None:
    """Draws rows of far people as a body and a head each."""
    height, width = picture.shape[:2]
    size = height * rng.uniform(0.03, 0.07)
    across = np.arange(rng.uniform(0, size), width, size * 2.2)
    for row in range(3):
        y = int(horizon - size * (2.2 * (2 - row)))
        spots = np.rint(across + rng.normal(0, 0.3 * size, len(across))).astype(int).tolist()
        for x, colour in zip(spots, any_colours(rng, len(spots)).tolist(), strict=True):
            cv2.circle(picture, (x, y), int(size), colour, cv2.FILLED)
            cv2.circle(picture, (x, y - int(1.3 * size)), int(size * 0.5), (110, 140, 190), cv2.FILLED)


def _bars(picture: Picture, rng: np.random.Generator, horizon: int) -> None:
    """Draws a row of equal bars: a fence, a railing, shutters."""
    height, width = picture.shape[:2]
    tone, step = tuple(any_colour(rng)), int(rng.integers(5, max(6, width // 8)))
    top = int(horizon - height * rng.uniform(0.1, 0.5))
    bottom = int(horizon + height * rng.uniform(0.0, 0.2))
    thick = max(1, int(step * rng.uniform(0.1, 0.4)))
    for x in range(int(rng.integers(0, step)), width, step):
        cv2.line(picture, (x, top), (x, bottom), tone, thick)
    cv2.line(picture, (0, top), (width, top), tone, thick)
