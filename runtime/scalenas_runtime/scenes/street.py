"""Streets as a car sees them, with the class of each pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from scalenas_runtime.scenes.body import Floats
from scalenas_runtime.scenes.roadside import (
    draw_box,
    draw_cyclist,
    draw_fence,
    draw_house,
    draw_lamp,
    draw_sign,
    draw_tree,
    draw_walker,
)
from scalenas_runtime.scenes.scene import Picture, Scene, generator, mix, photograph, textured
from scalenas_runtime.scenes.stage import STUFF, Canvas, View, label_table
from scalenas_runtime.scenes.textures import NEUTRAL, scaled
from scalenas_runtime.scenes.vehicles import BUILDS, Build, draw_vehicle
from scalenas_runtime.scenes.wardrobe import any_colour
from scalenas_runtime.tasks.sets import CAMVID_11, ClassSet

_STREAM = 2
_FAR = 150.0
_SKIES: Floats = np.array(
    [(250, 248, 245), (240, 215, 180), (225, 180, 130), (190, 190, 188), (235, 228, 220)], dtype=float
)
Add = Callable[..., None]
_PAINT: Floats = np.array((205.0, 210, 212))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Half the road's width and the width of each pavement, in metres, and what lines each side."""

    road: float
    pavements: tuple[float, float]
    sides: tuple[str, str]

    def edge(self, side: int) -> float:
        """Returns how far from the middle the pavement of a side ends, in metres."""
        return self.road + self.pavements[0 if side < 0 else 1]


def street_scene(seed: int, index: int, *, size: tuple[int, int] = (352, 480), classes: ClassSet = CAMVID_11) -> Scene:
    """Returns scene `index` of the endless sequence that `seed` names: a street with its class map, no joints.

    Args:
        seed: Which sequence; the same (seed, index) gives the same scene in every process.
        index: Which scene of it.
        size: Height and width of the picture, in pixels.
        classes: Which classes are labelled, found by their names; things without a class are ignored.

    Raises:
        ValueError: a negative seed or index.
    """
    rng = generator(seed, index, _STREAM)
    canvas = _empty(rng, size)
    plan = _plan(rng)
    _distance(canvas, rng)
    _ground(canvas, rng, plan)
    for _, draw in sorted(_things(canvas, rng, plan), key=lambda item: -item[0]):
        draw()
    _foreground(canvas, rng)
    picture = _surfaces(canvas, rng)
    if rng.random() < 0.3:
        picture = cv2.convertScaleAbs(picture, alpha=float(rng.uniform(0.4, 0.75)))
    none = np.zeros((0, 0, 3), np.float32)
    class_map = np.asarray(cv2.LUT(canvas.labels, label_table(classes)), np.uint8)
    seen = np.asarray(photograph(picture, rng, grey_share=0.0), np.uint8)
    return Scene(seen, none, np.zeros((0, 4), np.float32), class_map)


def _empty(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """Returns a canvas with a sky."""
    height, width = size
    sky = _SKIES[int(rng.integers(0, len(_SKIES)))]
    haze = mix(sky, np.full(3, 225.0), 0.5)
    view = View(
        width * float(rng.uniform(0.95, 1.25)),
        width * float(rng.normal(0.5, 0.07)),
        height * float(rng.uniform(0.42, 0.54)),
        float(rng.uniform(1.25, 1.7)),
        float(rng.normal(-0.9, 0.8)),
    )
    share = np.clip(np.arange(height) / view.horizon, 0, 1)[:, None]
    column = np.clip(sky + (haze - sky) * share, 0, 255).astype(np.uint8)
    picture = cv2.repeat(column[:, None], 1, width)
    return Canvas(picture, np.full(size, STUFF["sky"], np.uint8), view, haze, float(rng.uniform(120, 400)))


def _plan(rng: np.random.Generator) -> _Plan:
    kinds = ("houses", "houses", "houses", "houses", "houses", "green", "green", "fence", "open")
    left, right = (kinds[int(pick)] for pick in rng.integers(0, len(kinds), 2))
    road = float(rng.uniform(2.8, 4.4)) if rng.random() < 0.88 else float(rng.uniform(6, 10))
    pavements = rng.uniform(1.6, 4.2, 2)
    return _Plan(road, (float(pavements[0]), float(pavements[1])), (left, right))


def _distance(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draws roofs and trees along the horizon."""
    height, width = canvas.labels.shape
    x = -20.0
    while x < width:
        wide, tall = width * rng.uniform(0.04, 0.16), height * rng.uniform(0.01, 0.10)
        top = canvas.view.horizon - tall
        corners = np.array(
            [(x, top), (x + wide, top), (x + wide, canvas.view.horizon + 2), (x, canvas.view.horizon + 2)]
        )
        if rng.random() < 0.5:
            canvas.flat(corners, mix(any_colour(rng) * 0.5 + 50, canvas.haze, 0.45), "building")
        else:
            green = mix(np.array([45, 75, 62]) * rng.uniform(0.7, 1.4, 3), canvas.haze, 0.4)
            for share, size in rng.uniform([0, 0.3], [1, 0.6], (4, 2)):
                at = (int(x + share * wide), int(top + 0.5 * tall))
                for target, value in ((canvas.picture, green.tolist()), (canvas.labels, STUFF["tree"])):
                    cv2.circle(target, at, max(2, int(size * tall)), value, cv2.FILLED)
        x += wide * rng.uniform(0.6, 1.2)


def _ground(canvas: Canvas, rng: np.random.Generator, plan: _Plan) -> None:
    """Draws the road with its paint, pavements with kerbs, and grass beyond."""
    height, width = canvas.labels.shape
    row = canvas.view.horizon
    whole = np.array([(-9.0, row), (width + 9.0, row), (width + 9.0, height + 9.0), (-9.0, height + 9.0)])
    asphalt = np.array((92.0, 92, 92)) * rng.uniform(0.75, 1.35) + rng.normal(0, 4, 3)
    grass = np.array((58.0, 98, 82)) * rng.uniform(0.7, 1.2, 3)
    canvas.flat(whole, mix(asphalt, canvas.haze, 0.2), "road")
    for side in (-1, 1):
        kind = plan.sides[0 if side < 0 else 1]
        edge = plan.edge(side)
        if kind != "open":
            label, tone = ("terrain", grass) if kind == "green" else ("pavement", asphalt * 1.15)
            canvas.shape(_strip(side * edge, side * 80.0), tone, label)
        slab = asphalt * rng.uniform(1.05, 1.45) + rng.normal(0, 5, 3)
        canvas.shape(_strip(side * plan.road, side * edge), slab, "pavement")
        canvas.shape(_strip(side * plan.road, side * (plan.road + 0.16)), slab * 1.15, None)
        if rng.random() < 0.5:
            for inset in (0.25, 0.45):
                paint = np.array((90.0, 190, 205)) if rng.random() < 0.6 else _PAINT
                canvas.shape(_strip(side * (plan.road - inset), side * (plan.road - inset - 0.1)), paint, None)
    _paint(canvas, rng, plan, asphalt)


def _paint(canvas: Canvas, rng: np.random.Generator, plan: _Plan, asphalt: Floats) -> None:
    middle = float(rng.normal(0, 0.4))
    length, gap = float(rng.uniform(1.5, 4)), float(rng.uniform(2, 6))
    starts = np.arange(float(rng.uniform(2, 6)), 70.0, length + gap)
    dashes = np.array([_strip(middle - 0.07, middle + 0.07, z, z + length) for z in starts])
    canvas.shapes(dashes, _PAINT)
    if rng.random() < 0.25:
        z = float(rng.uniform(7, 25))
        bars = np.arange(-plan.road + 0.4, plan.road - 0.4, 1.1)
        canvas.shapes(np.array([_strip(x, x + 0.55, z, z + 2.6) for x in bars]), _PAINT)
    elif rng.random() < 0.3:
        z = float(rng.uniform(5, 30))
        canvas.shape(_strip(-plan.road + 0.2, middle, z, z + 0.35), _PAINT, None)
    if rng.random() < 0.35:
        side = 1 if rng.random() < 0.5 else -1
        z = float(rng.uniform(3, 14))
        reach, far = side * plan.road * float(rng.uniform(-0.6, 0.6)), z + float(rng.uniform(4, 14))
        slant = float(rng.uniform(-1, 3))
        start = side * plan.edge(side)
        canvas.shape(
            [(start, 0, z), (reach, 0, z + slant), (reach, 0, far + slant), (start, 0, far)], asphalt * 0.74, None
        )


def _strip(left: float, right: float, near: float = 0.7, far: float = _FAR) -> Floats:
    return np.array([(left, 0.0, near), (right, 0.0, near), (right, 0.0, far), (left, 0.0, far)])


def _things(canvas: Canvas, rng: np.random.Generator, plan: _Plan) -> list[tuple[float, Callable[[], None]]]:
    """Returns how far away each thing is, in metres, and how to draw it."""
    things: list[tuple[float, Callable[[], None]]] = []

    def add(z: float, draw: Callable[..., None], *arguments: object) -> None:
        things.append((z, lambda: draw(canvas, rng, *arguments)))

    for side in (-1, 1):
        _line_side(add, rng, plan, side)
    if rng.random() < 0.4:
        z, x = float(rng.uniform(35, 80)), -45.0
        while x < 45:
            wide = float(rng.uniform(8, 20))
            add(z, partial(draw_house, across=True), -1, z, (x, x + wide))
            x += wide
    _traffic(add, rng, plan)
    return things


def _line_side(add: Add, rng: np.random.Generator, plan: _Plan, side: int) -> None:
    kind = plan.sides[0 if side < 0 else 1]
    edge = plan.edge(side)
    if kind == "houses":
        z = float(rng.uniform(0.7, 6))
        while z < 60:
            long = float(rng.uniform(5, 16))
            add(z + long, draw_house, side, edge + float(rng.uniform(0, 0.6)), (z, z + long))
            z += long + (float(rng.uniform(2, 12)) if rng.random() < 0.25 else 0.0)
    elif kind in ("green", "fence"):
        high = float(rng.uniform(0.9, 2.2))
        if kind == "fence" or rng.random() < 0.4:
            z = float(rng.uniform(0.7, 5))
            ends = ((side * (edge + 0.1), z), (side * (edge + 0.1), z + float(rng.uniform(20, 60))))
            add(z + 9.0, draw_fence, ends, high)
        for z in rng.uniform(9, 70, int(rng.integers(6, 14))):
            add(float(z), draw_tree, (side * (edge + float(rng.uniform(1.5, 12))), float(z)), float(rng.uniform(5, 12)))
    else:
        for z in rng.uniform(15, 70, int(rng.integers(1, 5))):
            add(float(z), draw_tree, (side * (edge + float(rng.uniform(2, 16))), float(z)), float(rng.uniform(4, 9)))
    _roadside(add, rng, plan, side)


def _roadside(add: Add, rng: np.random.Generator, plan: _Plan, side: int) -> None:
    """Plans the posts, signs, railings, trees and people between the road and what lines it."""
    edge = plan.edge(side)
    for z in np.arange(float(rng.uniform(4, 22)), 70, float(rng.uniform(18, 34))):
        add(float(z), draw_lamp, (side * (plan.road + 0.4), float(z)))
    for z in 4 + 40 * rng.random(int(rng.integers(1, 6))) ** 1.7:
        add(float(z), draw_sign, (side * (plan.road + float(rng.uniform(0.3, 1.0))), float(z)))
    if rng.random() < 0.25:
        z = float(rng.uniform(3, 20))
        line = ((side * (plan.road + 0.25), z), (side * (plan.road + 0.25), z + float(rng.uniform(4, 14))))
        add(z, draw_fence, line, 1.0)
    if rng.random() < 0.4:
        z = float(rng.uniform(6, 30))
        add(z, draw_tree, (side * (edge - 0.4), z), float(rng.uniform(4, 8)))
    for z in 4 + 40 * rng.random(int(rng.integers(0, 6))) ** 1.4:
        add(float(z), draw_walker, (side * float(rng.uniform(plan.road + 0.3, edge)), float(z)))
    for z in 4 + 20 * rng.random(int(rng.integers(0, 4))) ** 1.3:
        add(float(z), draw_box, (side * float(rng.uniform(plan.road + 0.5, edge + 0.5)), float(z)))


def _traffic(add: Add, rng: np.random.Generator, plan: _Plan) -> None:
    def build() -> Build:
        return BUILDS[int(np.searchsorted(np.cumsum([0.32, 0.34, 0.2, 0.1]), rng.random()))]

    # People drive on the left here, as in the data; parked cars stand on both sides.
    for yaw, lane in ((0.0, -0.5), (180.0, 0.5)):
        z = float(rng.uniform(7, 40))
        for _ in range(int(rng.integers(0, 3))):
            add(
                z,
                draw_vehicle,
                (lane * plan.road + float(rng.normal(0, 0.2)), z),
                yaw + float(rng.normal(0, 2)),
                build(),
            )
            z += float(rng.uniform(8, 30))
    for side in (-1, 1):
        if rng.random() < 0.28:
            z = float(rng.uniform(5, 22))
            for _ in range(int(rng.integers(1, 5))):
                add(
                    z,
                    draw_vehicle,
                    (side * (plan.road - 1.1), z),
                    float(rng.choice([0.0, 180.0]) + rng.normal(0, 2)),
                    build(),
                )
                z += float(rng.uniform(5.5, 9))
    if rng.random() < 0.25:
        z = float(rng.uniform(15, 40))
        add(z, draw_vehicle, (float(rng.uniform(-6, 6)), z), float(rng.choice([90.0, -90.0])), build())
    if rng.random() < 0.5:
        z = float(rng.uniform(4.5, 22))
        side = -1 if rng.random() < 0.6 else 1
        add(z, draw_cyclist, (side * (plan.road - float(rng.uniform(0.6, 1.4))), z))


def _foreground(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draws the bonnet of the own car, at times."""
    height, width = canvas.labels.shape
    if rng.random() < 0.35:
        top = height * float(rng.uniform(0.87, 0.97))
        across = np.linspace(-0.05, 1.05, 12) * width
        bend = top + (height * 0.05) * (np.linspace(-1, 1, 12) ** 2) + rng.normal(0, 0.5)
        outline = np.concatenate(
            [np.stack([across, bend], axis=1), [(width * 1.05, height + 9), (-width * 0.05, height + 9)]]
        )
        canvas.flat(outline, any_colour(rng) * 0.5, "void")


_SURFACES = (
    ("blotch", ("sky",), 3.0),
    ("rough", ("road", "pavement"), 1.0),
    ("brick", ("building", "wall"), 0.35),
    ("leaf", ("terrain",), 0.5),
)


def _surfaces(canvas: Canvas, rng: np.random.Generator) -> Picture:
    """Returns the picture with the texture of clouds, asphalt, brick and grass."""
    size = canvas.labels.shape
    pattern: Picture = np.full(size, NEUTRAL, np.uint8)
    for kind, names, zoom in _SURFACES:
        chosen = np.zeros(256, np.uint8)
        chosen[[STUFF[name] for name in names]] = 255
        factor = float(np.exp(rng.uniform(-0.3, 0.5)))
        whole = scaled(kind, (size[0], size[1]), zoom * factor, rng)
        if kind in ("blotch", "brick"):
            whole = cv2.addWeighted(whole, 0.5, pattern, 0.5, 0)
        pattern = cv2.copyTo(whole, cv2.LUT(canvas.labels, chosen), pattern)
    return textured(canvas.picture, pattern)
