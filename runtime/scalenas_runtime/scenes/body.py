"""A jointed body in three dimensions: from joint angles to points, in units of the body's height.

Frame of the body: x to the person's own left, y up, z the way the person faces. Seen by a camera in front of an
unturned person, x is right in the picture and z comes towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Bones in an order where parents come first: (name, parent, origin in the parent's frame). Proportions follow the
# median limb to trunk ratios of labelled athletes; where eyes and annotators put hips is wider than anatomy does.
_BONES: tuple[tuple[str, int, tuple[float, float, float]], ...] = (
    ("pelvis", -1, (0.0, 0.0, 0.0)),
    ("spine", 0, (0.0, 0.05, 0.0)),
    ("chest", 1, (0.0, 0.11, 0.0)),
    ("head", 2, (0.0, 0.135, -0.005)),
    ("left_upper_arm", 2, (0.105, 0.115, 0.0)),
    ("left_forearm", 4, (0.0, -0.175, 0.0)),
    ("left_hand", 5, (0.0, -0.155, 0.0)),
    ("right_upper_arm", 2, (-0.105, 0.115, 0.0)),
    ("right_forearm", 7, (0.0, -0.175, 0.0)),
    ("right_hand", 8, (0.0, -0.155, 0.0)),
    ("left_thigh", 0, (0.065, 0.0, 0.0)),
    ("left_shin", 10, (0.0, -0.245, 0.0)),
    ("left_foot", 11, (0.0, -0.245, 0.0)),
    ("right_thigh", 0, (-0.065, 0.0, 0.0)),
    ("right_shin", 13, (0.0, -0.245, 0.0)),
    ("right_foot", 14, (0.0, -0.245, 0.0)),
)
BONES = tuple(name for name, _, _ in _BONES)
_PARENTS = tuple(parent for _, parent, _ in _BONES)


def _levels() -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Returns the bones whose parents are placed, and those parents, one step away from the pelvis after the other."""
    parents = np.array(_PARENTS)
    levels, placed = [], [0]
    while placed:
        placed = [bone for bone, parent in enumerate(_PARENTS) if parent in placed]
        if placed:
            levels.append((np.array(placed), parents[placed]))
    return levels


_LEVELS = _levels()
_ORIGINS: Floats = np.array([origin for _, _, origin in _BONES])
# Bending forward is a positive turn about x for the trunk, the shins and the feet, a negative one for the rest.
_BEND: Floats = np.array(
    [1.0 if name in ("pelvis", "spine", "chest", "head") or name.endswith(("shin", "foot")) else -1.0 for name in BONES]
)
_SIDE: Floats = np.array([-1.0 if name.startswith("right") else 1.0 for name in BONES])

# Points on the body, the superset that every joint set draws from: (bone, place in the bone's frame).
_SIDED = {
    "hip": ("thigh", (0.0, 0.0, 0.0)),
    "knee": ("shin", (0.0, 0.0, 0.0)),
    "ankle": ("foot", (0.0, 0.0, 0.0)),
    "heel": ("foot", (0.0, -0.035, -0.03)),
    "toe": ("foot", (0.0, -0.04, 0.095)),
    "shoulder": ("upper_arm", (0.0, 0.0, 0.0)),
    "elbow": ("forearm", (0.0, 0.0, 0.0)),
    "wrist": ("hand", (0.0, 0.0, 0.0)),
    "fingers": ("hand", (0.0, -0.065, 0.0)),
}
_MIDDLE: dict[str, tuple[str, tuple[float, float, float]]] = {
    "pelvis": ("pelvis", (0.0, 0.0, 0.0)),
    "waist": ("chest", (0.0, -0.02, 0.0)),
    "chest": ("chest", (0.0, 0.06, 0.005)),
    "thorax": ("chest", (0.0, 0.115, 0.0)),
    "neck": ("head", (0.0, 0.0, 0.0)),
    "upper_neck": ("head", (0.0, 0.045, 0.01)),
    "head_top": ("head", (0.0, 0.172, 0.01)),
    "cranium": ("head", (0.0, 0.113, 0.012)),
    "hair": ("head", (0.0, 0.122, -0.002)),
    "crown": ("head", (0.0, 0.135, 0.012)),
    "face": ("head", (0.0, 0.095, 0.03)),
    "cheek": ("head", (0.0, 0.088, 0.045)),
    "jaw": ("head", (0.0, 0.070, 0.034)),
    "mouth": ("head", (0.0, 0.066, 0.068)),
    "nose": ("head", (0.0, 0.088, 0.08)),
    "left_eye": ("head", (0.02, 0.105, 0.064)),
    "right_eye": ("head", (-0.02, 0.105, 0.064)),
    "left_ear": ("head", (0.05, 0.097, 0.012)),
    "right_ear": ("head", (-0.05, 0.097, 0.012)),
}
_PLACES = {
    **_MIDDLE,
    **{f"{side}_{name}": (f"{side}_{bone}", at) for side in ("left", "right") for name, (bone, at) in _SIDED.items()},
}
POINTS = tuple(_PLACES)
POINT_INDEX = {name: index for index, name in enumerate(POINTS)}
_POINT_BONES = np.array([BONES.index(bone) for bone, _ in _PLACES.values()])
_POINT_PLACES: Floats = np.array([place for _, place in _PLACES.values()])


@dataclass(frozen=True, slots=True)
class Proportions:
    """How a body differs from the median one: factors on the lengths of its parts (1 = median)."""

    arms: float = 1.0
    legs: float = 1.0
    trunk: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0
    head: float = 1.0
    girth: float = 1.0


def body_points(angles: Floats, root: Floats, proportions: Proportions) -> tuple[Floats, Floats]:
    """Returns all points of a posed body, and the turned frame of its head.

    Args:
        angles: (16, 3) per bone of `BONES`, in degrees: bend forward (knees backward, toes down), lift sideways
            away from the body, twist about the bone's own length. Left and right mean the same by mirroring.
        root: (3, 3) rotation from the body's frame to the world's.
        proportions: Lengths of the parts.

    Returns:
        points: (len(POINTS), 3) in units of the body's height, around the pelvis.
        head: (3, 3), columns are the head's left, up and forward in the world's frame.
    """
    origins, places = _sized(proportions)
    turns = _turns(angles)
    frames = np.empty((len(BONES), 3, 3))
    starts = np.zeros((len(BONES), 3))
    frames[0] = root @ turns[0]
    for bones, parents in _LEVELS:
        outer = frames[parents]
        frames[bones] = outer @ turns[bones]
        starts[bones] = (outer @ origins[bones, :, None])[:, :, 0] + starts[parents]
    points = starts[_POINT_BONES] + (frames[_POINT_BONES] @ places[:, :, None])[:, :, 0]
    return points, frames[3]


def rotation(yaw: float, pitch: float, roll: float) -> Floats:
    """Returns the rotation that turns a body to its left by `yaw`, then forward, then in the picture's plane.

    Args:
        yaw: Degrees about the vertical; 0 faces the camera, 90 looks to the picture's right.
        pitch: Degrees forward, towards the camera.
        roll: Degrees counter-clockwise as seen in the picture.
    """
    (cy, cp, cr), (sy, sp, sr) = (f(np.radians([yaw, pitch, roll])) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y)


def _sized(size: Proportions) -> tuple[Floats, Floats]:
    origins, places = _ORIGINS.copy(), _POINT_PLACES.copy()
    origins[1:4] *= size.trunk
    origins[[4, 7], 0] *= size.shoulders
    origins[[4, 7], 1] *= size.trunk
    origins[[5, 6, 8, 9]] *= size.arms
    origins[[10, 13], 0] *= size.hips
    origins[[11, 12, 14, 15]] *= size.legs
    places[_POINT_BONES == 3] *= size.head
    return origins, places


def _turns(angles: Floats) -> Floats:
    radians = np.radians(angles) * np.stack([_BEND, _SIDE, _SIDE], axis=1)
    (cx, cz, cy), (sx, sz, sy) = np.cos(radians).T, np.sin(radians).T
    # R = Rx(bend) Rz(lift) Ry(twist), written out for all bones at once.
    rows = [
        [cz * cy, -sz, cz * sy],
        [cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy],
        [sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy],
    ]
    return np.moveaxis(np.array(rows), 2, 0)
