"""A street in perspective: a camera above the road, and a canvas that keeps colours and labels together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.scenes.body import Floats
from scalenas_runtime.scenes.scene import Picture, mix
from scalenas_runtime.tasks.sets import ClassSet

# What streets hold, each with the class names of data sets that mean it, the closest first.
_MEANINGS: dict[str, tuple[str, ...]] = {
    "void": (),
    "sky": ("sky",),
    "building": ("building",),
    "wall": ("wall", "building"),
    "pole": ("pole", "column_pole"),
    "road": ("road",),
    "pavement": ("pavement", "sidewalk"),
    "terrain": ("terrain", "grass", "vegetation", "tree"),
    "tree": ("tree", "vegetation"),
    "sign": ("sign", "traffic sign", "signsymbol", "sign symbol"),
    "light": ("traffic light", "sign", "signsymbol", "sign symbol"),
    "fence": ("fence",),
    "car": ("car", "vehicle"),
    "truck": ("truck", "car", "vehicle"),
    "bus": ("bus", "car", "vehicle"),
    "pedestrian": ("pedestrian", "person"),
    "rider": ("rider", "bicyclist", "person"),
    "bicycle": ("bicycle", "bicyclist"),
}
STUFF = {name: number for number, name in enumerate(_MEANINGS)}
NEAR = 0.6


def label_table(classes: ClassSet) -> NDArray[np.uint8]:
    """Returns, for each thing of `STUFF`, its label in a class set; things without a class get the ignored label."""
    known = {name.casefold(): label for label, name in enumerate(classes.classes)}
    table = np.full(256, classes.ignore, np.uint8)
    for name, number in STUFF.items():
        table[number] = next((known[word] for word in _MEANINGS[name] if word in known), classes.ignore)
    return table


@dataclass(frozen=True, slots=True)
class View:
    """A camera over the road that looks along z; metres: x right, y up from the road, z ahead.

    Attributes:
        focal: Pixels.
        middle: Column where the road vanishes.
        horizon: Row of the horizon.
        height: Metres of the camera above the road.
        across: x of the camera, metres to the right of the road's middle.
    """

    focal: float
    middle: float
    horizon: float
    height: float
    across: float

    def project(self, points: Floats) -> Floats:
        """Returns (..., 2) x, y in pixels of (..., 3) points in metres; points must lie ahead of the camera."""
        ahead = np.maximum(points[..., 2], NEAR)
        flat = np.empty((*points.shape[:-1], 2))
        flat[..., 0] = self.middle + self.focal * (points[..., 0] - self.across) / ahead
        flat[..., 1] = self.horizon + self.focal * (self.height - points[..., 1]) / ahead
        return flat

    def scale(self, ahead: float) -> float:
        """Returns pixels per metre at a distance in metres."""
        return self.focal / max(ahead, NEAR)


@dataclass(frozen=True, slots=True)
class Canvas:
    """Picture and labels that are drawn on together.

    Attributes:
        picture: (H, W, 3) uint8 BGR.
        labels: (H, W) uint8 numbers of `STUFF`.
        view: The camera.
        haze: BGR that far things fade to.
        thick: Metres over which a third of a colour fades.
    """

    picture: Picture
    labels: Picture
    view: View
    haze: Floats
    thick: float

    def shape(self, points: Floats | Sequence[Sequence[float] | Floats], tone: Floats, label: str | None) -> None:
        """Fills a flat convex outline of (n, 3) points in metres, its colour fading with distance.

        Args:
            points: Corners in order; parts behind the camera are cut off.
            tone: BGR.
            label: What it is, or None to leave the labels as they are.
        """
        corners = _ahead(np.asarray(points, dtype=np.float64))
        if len(corners) >= 3:
            self.flat(self.view.project(corners), self.faded(tone, _mean(corners[:, 2])), label)

    def shapes(self, outlines: Floats, tone: Floats) -> None:
        """Fills many (m, n, 3) outlines in metres with one colour, leaving the labels; those too near are left out."""
        kept = outlines[(outlines[:, :, 2] > 2 * NEAR).all(axis=1)]
        if len(kept):
            colour = self.faded(tone, _mean(kept[:, :, 2]))
            cv2.fillPoly(self.picture, list(_cells(self.view.project(kept), _FINE)), _bgr(colour), cv2.LINE_AA, _FINE)

    def flat(self, corners: Floats, tone: Floats, label: str | None) -> None:
        """Fills a convex outline of (n, 2) x, y in pixels."""
        cv2.fillConvexPoly(self.picture, _cells(corners, _FINE), _bgr(tone), cv2.LINE_AA, _FINE)
        if label is not None:
            cv2.fillConvexPoly(self.labels, _cells(corners, _FINE), STUFF[label], cv2.LINE_8, _FINE)

    def line(
        self, points: Floats | Sequence[Sequence[float] | Floats], wide: float, tone: Floats, label: str | None
    ) -> None:
        """Draws a line through (n, 3) points in metres, `wide` metres wide but at least a pixel."""
        corners = _ahead(np.asarray(points, dtype=np.float64))
        if len(corners) < 2:
            return
        ahead = _mean(corners[:, 2])
        thick = max(1, round(wide * self.view.scale(ahead)))
        cells = _cells(self.view.project(corners), _FINE)
        cv2.polylines(self.picture, [cells], False, _bgr(self.faded(tone, ahead)), thick, cv2.LINE_AA, _FINE)
        if label is not None:
            cv2.polylines(self.labels, [cells], False, STUFF[label], thick, cv2.LINE_8, _FINE)

    def faded(self, tone: Floats, ahead: float) -> Floats:
        """Returns a colour as it looks at a distance in metres."""
        return mix(tone, self.haze, 1 - float(np.exp(-max(0.0, ahead) / self.thick)))


_FINE = 3
_FAR_OUT = 1 << 14


def _cells(points: Floats, shift: int) -> NDArray[np.int32]:
    kept: Floats = np.maximum(np.minimum(points, _FAR_OUT), -_FAR_OUT)
    return np.rint(kept * (1 << shift)).astype(np.int32)


def _mean(values: Floats) -> float:
    return float(values.sum()) / values.size


def _bgr(tone: Floats) -> tuple[float, float, float]:
    blue, green, red = tone.tolist()
    return blue, green, red


def _ahead(corners: Floats) -> Floats:
    """Returns an outline without its part behind the camera (Sutherland-Hodgman against one plane)."""
    if (corners[:, 2] >= NEAR).all():
        return corners
    kept = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if start[2] >= NEAR:
            kept.append(start)
        if (start[2] >= NEAR) != (end[2] >= NEAR):
            kept.append(start + (end - start) * ((NEAR - start[2]) / (end[2] - start[2])))
    return np.array(kept).reshape(-1, 3)
