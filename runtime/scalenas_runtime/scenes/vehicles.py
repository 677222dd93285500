"""Cars, vans and buses as two blocks each, with glass, wheels and lights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scalenas_runtime.scenes.body import Floats
from scalenas_runtime.scenes.stage import Canvas
from scalenas_runtime.scenes.wardrobe import any_colour


@dataclass(frozen=True, slots=True)
class Build:
    """Measures of a kind of vehicle, in metres; z runs from the tail (0) to the nose.

    Attributes:
        label: What it is in `STUFF`.
        size: Width, height, length.
        belt: Height where the glass begins.
        cabin: z of the glass block's foot at tail and nose, and of its roof at tail and nose.
    """

    label: str
    size: tuple[float, float, float]
    belt: float
    cabin: tuple[float, float, float, float]


BUILDS = (
    Build("car", (1.72, 1.45, 3.9), 0.88, (0.05, 2.95, 0.45, 2.2)),
    Build("car", (1.78, 1.42, 4.5), 0.90, (0.55, 3.30, 1.15, 2.6)),
    Build("car", (1.85, 1.75, 4.5), 1.02, (0.02, 3.30, 0.20, 2.7)),
    Build("truck", (2.00, 2.40, 5.2), 1.30, (0.00, 4.60, 0.05, 4.1)),
    Build("bus", (2.50, 3.60, 10.0), 1.40, (0.00, 10.0, 0.00, 9.9)),
)
_GLASS: Floats = np.array((58.0, 50.0, 44.0))
_DARK: Floats = np.array((26.0, 26.0, 28.0))
_CORNERS = {
    "rear": (0, 1, 5, 4),
    "nose": (3, 2, 6, 7),
    "left": (0, 3, 7, 4),
    "right": (1, 2, 6, 5),
    "top": (4, 5, 6, 7),
}
_ORDER = np.array(list(_CORNERS.values()))
_YZX, _ZXY = [1, 2, 0], [2, 0, 1]
_LIGHT = {"rear": 0.82, "nose": 0.9, "left": 0.72, "right": 0.95, "top": 1.18}


def draw_vehicle(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float], yaw: float, build: Build) -> None:
    """Draws a vehicle.

    Args:
        canvas: What to draw on.
        rng: Source of chance.
        at: x, z of the middle of its floor, in metres.
        yaw: 0 drives away from the camera, 180 towards it, in degrees.
        build: Its kind.
    """
    wide, high, long = build.size
    paint = any_colour(rng) * 0.9
    turn = np.radians(yaw)
    axes = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
    place = np.array([at[0], 0.0, at[1]])

    def world(points: Floats) -> Floats:
        return np.asarray((points - [0, 0, long / 2]) @ axes + place)

    eye = np.array([canvas.view.across, canvas.view.height, 0.0])
    half = wide / 2
    rim = half * 1.1
    ground = world(np.array([(-rim, 0.02, -0.1), (rim, 0.02, -0.1), (rim, 0.02, long + 0.1), (-rim, 0.02, long + 0.1)]))
    canvas.shape(ground, _DARK, None)
    under = _block(half * 0.94, 0.12, 0.5, (0.1, long - 0.1), (0.1, long - 0.1), half * 0.94)
    body = _block(half, 0.32, build.belt, (0.0, long), (0.0, long), half)
    tail, nose, roof_tail, roof_nose = build.cabin
    cabin = _block(half, build.belt, high, (tail, nose), (roof_tail, roof_nose), half * (0.96 if high > 2 else 0.78))
    for block, tone in ((under, _DARK), (body, paint), (cabin, paint)):
        corners = world(block)
        for face in _facing(corners, eye):
            canvas.shape(corners[list(_CORNERS[face])], tone * _LIGHT[face], build.label)
            if block is cabin and face != "top":
                canvas.shape(_inset(corners[list(_CORNERS[face])], build), _GLASS, None)
            if block is body:
                _details(canvas, world, face, build, paint)


def _block(
    half: float, low: float, high: float, foot: tuple[float, float], roof: tuple[float, float], top: float
) -> Floats:
    """Returns the 8 corners of a block whose roof may be smaller than its foot: foot first, tail left first."""
    rows = [(low, half, *foot), (high, top, *roof)]
    return np.array([[x, y, z] for y, h, z0, z1 in rows for x, z in ((-h, z0), (h, z0), (h, z1), (-h, z1))])


def _facing(corners: Floats, eye: Floats) -> list[str]:
    """Returns the faces of a block that an eye at (x, y, z) metres sees; the roof last."""
    outlines = corners[_ORDER]
    first, second = outlines[:, 1] - outlines[:, 0], outlines[:, 3] - outlines[:, 0]
    normals = first[:, _YZX] * second[:, _ZXY] - first[:, _ZXY] * second[:, _YZX]
    centres = outlines.sum(axis=1) / 4
    outward = (normals * (centres - corners.sum(axis=0) / 8)).sum(axis=1)
    towards = (normals * (eye - centres)).sum(axis=1)
    return [face for face, seen in zip(_CORNERS, outward * towards > 0, strict=True) if seen]


def _inset(outline: Floats, build: Build) -> Floats:
    """Returns the glass within a face of the cabin; vans have it in the upper half, and buses all along."""
    centre = outline.mean(axis=0)
    inner: Floats = centre + (outline - centre) * [0.86, 0.74, 0.86]
    if build.label != "car":
        inner[:, 1] = centre[1] + (outline[:, 1] - centre[1]) * 0.45 + 0.12 * build.size[1]
    return inner


def _details(canvas: Canvas, world: Callable[[Floats], Floats], face: str, build: Build, paint: Floats) -> None:
    wide, _, long = build.size
    if face in ("left", "right"):
        side = (wide / 2 + 0.01) * (1 if face == "right" else -1)
        angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        for z in (0.19 * long, 0.81 * long):
            for radius, tone in ((0.34, _DARK), (0.19, np.array((150.0, 150, 152)))):
                wheel = np.stack(
                    [np.full(14, side), 0.33 + radius * np.sin(angles), z + radius * np.cos(angles)], axis=1
                )
                canvas.shape(world(wheel), tone, build.label if radius > 0.3 else None)
        return
    if face == "top":
        return
    z = -0.01 if face == "rear" else long + 0.01
    lamp = np.array((40.0, 40, 205)) if face == "rear" else np.array((215.0, 230, 235))
    for left, right, low, high, tone in (
        (-0.95, -0.66, 0.62, 0.9, lamp),
        (0.66, 0.95, 0.62, 0.9, lamp),
        (-0.26, 0.26, 0.5, 0.64, np.array((70.0, 190, 215)) if face == "rear" else np.array((225.0, 228, 228))),
        (-1.0, 1.0, 0.34, 0.46, paint * 0.5),
    ):
        x = wide / 2
        y = build.belt
        canvas.shape(
            world(
                np.array(
                    [(left * x, low * y, z), (right * x, low * y, z), (right * x, high * y, z), (left * x, high * y, z)]
                )
            ),
            tone,
            None,
        )
