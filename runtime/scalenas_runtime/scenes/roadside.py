"""What stands along a street: houses, trees, lamp posts, signs, fences, and people on foot and on bicycles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.scenes.body import Floats
from scalenas_runtime.scenes.figure import Stance, draw_figure
from scalenas_runtime.scenes.poses import RIDING, UPRIGHT
from scalenas_runtime.scenes.scene import faded, mix, paste, textured
from scalenas_runtime.scenes.stage import NEAR, STUFF, Canvas
from scalenas_runtime.scenes.textures import scaled
from scalenas_runtime.scenes.wardrobe import any_colour

Some = NDArray[Any]
_WALLS: Floats = np.array(
    [(70, 90, 140), (60, 75, 110), (150, 185, 205), (190, 200, 210), (110, 120, 130), (200, 215, 225), (80, 110, 150)],
    dtype=float,
)
_METAL: Floats = np.array((82.0, 84, 82))
# Crowns of a smaller radius in pixels are drawn with fewer leaves.
_FAR_CROWN = 14
# Pixels per metre below which windows are not drawn: they would be a pixel wide.
_WINDOWS_FROM = 5.0
_BARK: Floats = np.array((48.0, 58, 68))


def draw_house(
    canvas: Canvas,
    rng: np.random.Generator,
    side: int,
    line: float,
    reach: tuple[float, float],
    *,
    across: bool = False,
) -> None:
    """Draws a house along the street, or one that closes it.

    Args:
        canvas: What to draw on.
        rng: Source of chance.
        side: -1 left, 1 right; the light comes from the right.
        line: x of its front in metres, counted from the middle of the street.
        reach: z of its near and far end, in metres; or x of its left and right end if `across`.
        across: The front faces the camera; `line` is its z then.
    """
    storeys = int(rng.integers(2, 6))
    high = 1.0 + storeys * float(rng.uniform(2.6, 3.4))
    tone = mix(_WALLS[int(rng.integers(0, len(_WALLS)))], any_colour(rng), 0.15)
    near, far = reach
    start, end = (np.array([near, 0, line]), np.array([far, 0, line])) if across else (
        np.array([side * line, 0.0, near]), np.array([side * line, 0.0, far]))  # fmt: skip
    up = np.array([0.0, 1.0, 0.0])
    seen = canvas.view.project(np.array([start, end]))[:, 0]
    if (seen < 0).all() or (seen > canvas.labels.shape[1]).all():
        return
    if not across:
        deep = np.array([side * 9.0, 0.0, 0.0])
        gable = [start, start + deep, start + deep + up * high, start + up * high]
        canvas.shape(gable, tone * 0.62, "building")
    lit = 0.95 if side < 0 else 0.74
    canvas.shape([start, end, end + up * high, start + up * high], tone * lit, "building")
    if rng.random() < 0.55:
        back = np.array([0, 0, 4.0]) if across else np.array([side * 4.0, 0, 0])
        ridge = up * (high + rng.uniform(1.5, 3.0)) + back
        canvas.shape(
            [start + up * high, end + up * high, end + ridge, start + ridge], np.array((70.0, 74, 86)) * lit, "building"
        )
    _front(canvas, rng, (start, end), storeys, high, tone * lit)


def draw_tree(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float], high: float) -> None:
    """Draws a tree `high` metres high with its foot at x, z in metres; some are bare."""
    x, z = at
    metre = canvas.view.scale(z)
    foot = canvas.view.project(np.array([x, 0.0, z]))
    crown = foot - [0, metre * high * 0.62]
    reach = metre * high * 0.4
    width = canvas.labels.shape[1]
    if crown[0] + 1.5 * reach < 0 or crown[0] - 1.5 * reach > width or reach < 2:
        return
    canvas.line([(x, 0, z), (x, 0.55 * high, z)], 0.04 * high, _BARK, "tree")
    bare = rng.random() < 0.35
    blobs = 11 if reach > _FAR_CROWN else 5
    spots = crown + rng.normal(0, 0.4, (blobs, 2)) * reach
    sizes = reach * rng.uniform(0.25, 0.5, blobs)
    if bare:
        _branches(canvas, rng, crown, reach, foot)
    green = canvas.faded(np.array([38, 72, 60]) * rng.uniform(0.6, 1.5, 3), z)
    _crown(canvas, rng, spots, sizes, mix(_BARK * 1.4, green, 0.3) if bare else green, bare=bare)


def draw_lamp(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float]) -> None:
    """Draws a lamp post or a plain pole with its foot at x, z in metres."""
    x, z = at
    high = float(rng.uniform(5.5, 8.0))
    tone = _METAL * rng.uniform(0.5, 1.7)
    canvas.line([(x, 0, z), (x, high, z)], 0.11, tone, "pole")
    if rng.random() < 0.7:
        arm = x - np.sign(x) * 1.3
        canvas.line([(x, high, z), (arm, high + 0.25, z)], 0.10, tone, "pole")
        canvas.line([(arm, high + 0.25, z), (arm - np.sign(x) * 0.5, high + 0.28, z)], 0.2, tone * 1.3, "pole")


def draw_sign(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float]) -> None:
    """Draws a traffic sign, a board or a traffic light on its pole, with its foot at x, z in metres."""
    x, z = at
    high, half = float(rng.uniform(2.1, 2.9)), float(rng.uniform(0.28, 0.55))
    canvas.line([(x, 0, z), (x, high, z)], 0.07, _METAL, "pole")
    kind = int(rng.integers(0, 5))
    if kind == 4:
        box = np.array([(x - 0.2, high, z), (x + 0.2, high, z), (x + 0.2, high + 1.0, z), (x - 0.2, high + 1.0, z)])
        canvas.shape(box, np.array((25.0, 28, 28)), "light")
        lit = int(rng.integers(0, 3))
        for number, tone in enumerate(((60, 200, 60), (40, 170, 235), (40, 40, 230))):
            bulb = _ring((x, high + 0.2 + 0.3 * number, z), 0.11, 8)
            canvas.shape(bulb, np.array(tone) * (1.0 if number == lit else 0.25), None)
        return
    centre = (x, high + half, z)
    corners, turn = ((14, 0.0), (3, np.pi / 2), (4, np.pi / 4), (4, np.pi / 4))[kind]
    paints = [(40, 40, 200), (180, 90, 30), (235, 235, 235), (60, 160, 60), (40, 190, 235)]
    rim, face = (np.array(paints[int(pick)], dtype=float) for pick in rng.integers(0, len(paints), 2))
    canvas.shape(_ring(centre, half * 1.15, corners, turn), rim, "sign")
    canvas.shape(_ring(centre, half * 0.85, corners, turn), face, None)
    canvas.shape(_ring(centre, half * 0.3, 4), mix(face, 255 - face, 0.8), None)


def draw_fence(canvas: Canvas, rng: np.random.Generator, points: Sequence[tuple[float, float]], high: float) -> None:
    """Draws boards or railings over a line of two x, z points in metres; all of it is labelled."""
    (x0, z0), (x1, z1) = points
    tone = (np.array((60.0, 85, 110)), np.array((70.0, 80, 70)), np.array((170.0, 175, 175)))[int(rng.integers(0, 3))]
    tone = tone * rng.uniform(0.6, 1.2)
    outline = np.array([(x0, 0, z0), (x1, 0, z1), (x1, high, z1), (x0, high, z0)])
    solid = rng.random() < 0.5
    behind = np.array((50.0, 72, 62)) if not solid else tone
    canvas.shape(outline, behind, "fence")
    count = int(np.clip(np.hypot(x1 - x0, z1 - z0) / 0.5, 4, 60))
    share = np.linspace(0, 1, count + 1)[:-1, None]
    start, end = np.array([x0, 0, z0]), np.array([x1, 0, z1])
    low = start + (end - start) * share
    step = (end - start) / count * (0.12 if solid else 0.35)
    up = np.array([0, high, 0])
    bars = np.stack([low, low + step, low + step + up, low + up], axis=1)
    canvas.shapes(bars, tone * (0.6 if solid else 1.0))
    if not solid:
        for y in (0.1, 0.95):
            canvas.line([(x0, y * high, z0), (x1, y * high, z1)], 0.06, tone, None)


def draw_box(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float]) -> None:
    """Draws a bin, a cabinet or a booth at x, z in metres, which belongs to no class."""
    x, z = at
    wide, high = float(rng.uniform(0.25, 0.7)), float(rng.uniform(0.8, 2.3))
    tone = any_colour(rng) * 0.7
    corners = np.array([(x - wide, 0, z), (x + wide, 0, z), (x + wide, high, z), (x - wide, high, z)])
    canvas.shape(corners, tone, "void")
    middle = corners.mean(axis=0)
    canvas.shape((corners - middle) * [0.8, 0.4, 1] + middle + [0, high * 0.2, 0], tone * 1.3, None)


def draw_walker(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float]) -> None:
    """Draws a person on foot at x, z in metres."""
    tall = float(rng.uniform(1.55, 1.9)) * canvas.view.scale(at[1])
    _person(canvas, rng, at, Stance(tall, (0.0, 0.0), 12.0, poses=UPRIGHT, ground=0.0), "pedestrian")


def draw_cyclist(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float]) -> None:
    """Draws a person on a bicycle at x, z in metres, seen from behind, from the side, or coming."""
    x, z = at
    yaw = float((180.0, 0.0, 80.0, -80.0)[int(rng.integers(0, 4))] + rng.normal(0, 18))
    turn = np.radians(yaw)
    # A body that turns by yaw looks along (sin, cos) with z towards the viewer; the street's z runs away.
    way = np.array([np.sin(turn), 0.0, -np.cos(turn)])
    tone = any_colour(rng) * 0.7
    angles = np.linspace(0, 2 * np.pi, 17)
    hubs = [np.array([x, 0.34, z]) + way * offset for offset in (-0.52, 0.52)]
    for hub in hubs:
        wheel = hub + 0.33 * (np.cos(angles)[:, None] * way + np.sin(angles)[:, None] * [0, 1, 0])
        canvas.line(wheel, 0.06, np.array((30.0, 30, 32)), "bicycle")
    saddle, bar = np.array([x, 0.95, z]) - way * 0.22, np.array([x, 1.02, z]) + way * 0.38
    pedals = np.array([x, 0.36, z]) - way * 0.05
    for ends in ((hubs[0], saddle), (hubs[0], pedals), (pedals, saddle), (pedals, bar), (saddle, bar), (bar, hubs[1])):
        canvas.line(np.array(ends), 0.055, tone, "bicycle")
    metre = canvas.view.scale(z)
    seat = canvas.view.project(saddle) - [0, 0.06 * metre]
    stance = Stance(1.72 * metre, (float(seat[0]), float(seat[1])), 12.0, poses=RIDING, yaw=yaw)
    _person(canvas, rng, at, stance, "rider")


def _person(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float], stance: Stance, label: str) -> None:
    width = canvas.labels.shape[1]
    foot = canvas.view.project(np.array([at[0], 0.0, at[1]]))
    if stance.height < 6 or not -0.2 * stance.height < foot[0] < width + 0.2 * stance.height:
        return
    if stance.ground is not None:
        stance = Stance(
            stance.height, (float(foot[0]), 0.0), stance.distance, poses=stance.poses, ground=float(foot[1])
        )
    figure = draw_figure(rng, stance)
    covered = paste(canvas.picture, figure.picture, figure.alpha, figure.corner)
    if covered is not None:
        rows, columns, alpha = covered
        canvas.labels[rows, columns][alpha > 127] = STUFF[label]


def _front(
    canvas: Canvas, rng: np.random.Generator, ends: tuple[Floats, Floats], storeys: int, high: float, tone: Floats
) -> None:
    """Draws windows, sills and perhaps a shop on the wall between two points."""
    start, end = ends
    long = float(np.linalg.norm(end - start))
    count = max(1, int(long / rng.uniform(1.8, 3.0)))
    if canvas.view.scale(max(float(start[2]), NEAR)) < _WINDOWS_FROM:
        return
    storey = (high - 0.6) / storeys
    shop = rng.random() < 0.45
    wide, tall = float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.45, 0.65))
    columns, floors = np.meshgrid(np.arange(count), np.arange(1 if shop else 0, storeys), indexing="ij")
    left = (columns.ravel() + 0.5 - wide / 2) / count
    low = (floors.ravel() + 0.25) * storey + 0.4
    glass = (np.array((60.0, 55, 50)), np.array((120.0, 110, 100)), np.array((40.0, 42, 44)))[int(rng.integers(0, 3))]
    for grow, colour in ((0.06, mix(tone, np.full(3, 235.0), 0.6)), (0.0, glass)):
        along0, along1 = left - grow / count, left + wide / count + grow / count
        y0, y1 = low - grow * storey, low + (tall + grow) * storey
        canvas.shapes(_panes(start, end, along0, along1, y0, y1), colour)
    if shop:
        one = np.arange(max(1, count // 2))
        along = one / len(one)
        y = np.zeros(len(one))
        canvas.shapes(
            _panes(start, end, along + 0.03, along + 0.97 / len(one), y + 0.4, y + 0.75 * storey),
            np.array((52.0, 48, 46)),
        )
        board = _panes(
            start, end, np.array([0.0]), np.array([1.0]), np.array([0.82 * storey]), np.array([1.08 * storey])
        )
        canvas.shape(board[0], any_colour(rng), None)


def _panes(start: Floats, end: Floats, along0: Some, along1: Some, y0: Some, y1: Some) -> Floats:
    way = end - start
    corners = [(along0, y0), (along1, y0), (along1, y1), (along0, y1)]
    return np.stack([start + way * along[:, None] + np.array([0, 1, 0]) * y[:, None] for along, y in corners], axis=1)


def _ring(centre: tuple[float, float, float], radius: float, corners: int, turn: float = 0.0) -> Floats:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + turn
    return np.array(centre) + np.stack([np.cos(angles), np.sin(angles), np.zeros(corners)], axis=1) * radius


def _crown(canvas: Canvas, rng: np.random.Generator, spots: Floats, sizes: Floats, tone: Floats, *, bare: bool) -> None:
    """Draws foliage where the discs at `spots` (n, 2) with radii `sizes` (n,) are, in pixels."""
    height, width = canvas.labels.shape
    low = np.maximum(np.floor((spots - sizes[:, None]).min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil((spots + sizes[:, None]).max(axis=0)) + 1, (width, height)).astype(int)
    wide, tall = (high - low).tolist()
    if wide <= 0 or tall <= 0:
        return
    mask = np.zeros((tall, wide), np.uint8)
    for (x, y), size in zip(np.rint(spots - low).astype(int).tolist(), sizes.astype(int).tolist(), strict=True):
        cv2.circle(mask, (x, y), max(1, size), 255, cv2.FILLED)
    rows, columns = slice(low[1], high[1]), slice(low[0], high[0])
    canvas.labels[rows, columns][mask > 0] = STUFF["tree"]
    leaves = scaled("leaf", (tall, wide), float(np.clip(float(sizes.max()) / 20, 0.5, 2.5)), rng)
    light = np.clip(1.25 - 0.5 * np.arange(tall) / tall, 0, 2)[:, None, None]
    crowned = cv2.repeat(np.clip(tone * light, 0, 255).astype(np.uint8), 1, wide)
    # Ragged: the picture shows through where the leaves' pattern is thin, much so in bare trees.
    thin = cv2.threshold(leaves, 138 if bare else 104, 255, cv2.THRESH_BINARY)[1]
    soft = cv2.blur(cv2.bitwise_and(mask, thin), (3, 3))
    corner = (int(low[0]), int(low[1]))
    if bare:
        soft = cv2.convertScaleAbs(soft, alpha=0.6)
    paste(canvas.picture, faded(textured(crowned, leaves), soft), soft, corner)


def _branches(canvas: Canvas, rng: np.random.Generator, crown: Floats, reach: float, foot: Floats) -> None:
    fork = crown + (foot - crown) * 0.35
    tips = crown + rng.normal(0, 0.55, (14, 2)) * reach
    for tip in tips:
        bend = (fork + tip) / 2 + rng.normal(0, 0.12, 2) * reach
        path = np.rint(np.array([fork, bend, tip])).astype(np.int32)
        cv2.polylines(canvas.picture, [path], False, tuple(_BARK), max(1, int(reach * 0.02)), cv2.LINE_AA)
