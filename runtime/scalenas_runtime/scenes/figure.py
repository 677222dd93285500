"""Draws one posed person: limbs as shaded, clothed capsules in order of depth, and which joints can be seen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.scenes.body import POINT_INDEX, POINTS, Floats, Proportions, body_points
from scalenas_runtime.scenes.poses import ANY, draw_pose
from scalenas_runtime.scenes.scene import faded
from scalenas_runtime.scenes.textures import NEUTRAL, Grey, cut
from scalenas_runtime.scenes.wardrobe import Outfit, draw_outfit

_SHIFT = 4
# Smaller people are drawn at twice the size and reduced: their limbs are a few pixels wide.
_FINE_BELOW = 140
_HALF = np.linspace(np.pi / 2, 3 * np.pi / 2, 6)
_ARC: Floats = np.stack([np.cos(_HALF), np.sin(_HALF)], axis=1)
_CIRCLE = np.linspace(0, 2 * np.pi, 12, endpoint=False)
_UNIT: Floats = np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], axis=1)

# Round bodies as steps of light: share of the radius, shift towards the light in radii, brightness (128 = as coloured).
_LIMB_LAYERS = ((1.0, 0.0, 88), (0.78, 0.16, 118), (0.42, 0.36, 142))
_TRUNK_LAYERS = ((1.0, 0.0, 92), (0.8, 0.12, 116), (0.5, 0.3, 138))

# Parts of the picture by what is worn there; the outfit gives each a colour.
PARTS = (
    "nothing", "torso", "pelvis", "neck", "head", "hair", "eye", "mouth", "belt",
    "left_upper_arm", "left_sleeve", "left_forearm", "left_hand",
    "right_upper_arm", "right_sleeve", "right_forearm", "right_hand",
    "left_thigh", "left_leg", "left_shin", "left_foot",
    "right_thigh", "right_leg", "right_shin", "right_foot",
)  # fmt: skip
PART_INDEX = {name: index for index, name in enumerate(PARTS)}

# Capsules: part, from point, radius there, to point, radius there, share of the way that it covers.
_CAPSULES: list[tuple[str, str, float, str, float, tuple[float, float]]] = [
    (part.replace("*", side), start.replace("*", side), r0, end.replace("*", side), r1, reach)
    for side in ("left", "right")
    for part, start, r0, end, r1, reach in (
        ("*_thigh", "*_hip", 0.054, "*_knee", 0.036, (0.0, 1.0)),
        ("*_leg", "*_hip", 0.060, "*_knee", 0.044, (0.0, 0.6)),
        ("*_shin", "*_knee", 0.036, "*_ankle", 0.023, (0.0, 1.0)),
        ("*_shin", "*_knee", 0.040, "*_ankle", 0.030, (0.16, 0.55)),
        ("*_foot", "*_heel", 0.023, "*_toe", 0.019, (0.0, 1.0)),
        ("*_foot", "*_ankle", 0.026, "*_toe", 0.018, (0.0, 0.75)),
        ("*_upper_arm", "*_shoulder", 0.033, "*_elbow", 0.025, (0.0, 1.0)),
        ("*_sleeve", "*_shoulder", 0.039, "*_elbow", 0.033, (0.0, 0.62)),
        ("*_forearm", "*_elbow", 0.026, "*_wrist", 0.018, (0.0, 1.0)),
        ("*_hand", "*_wrist", 0.018, "*_fingers", 0.016, (0.0, 0.9)),
    )
]
_CAPSULES.append(("neck", "thorax", 0.031, "cranium", 0.031, (0.0, 0.75)))
_CAPSULE_PARTS = [PART_INDEX[item[0]] for item in _CAPSULES]
_CAPSULE_ENDS = np.array([[POINT_INDEX[item[1]], POINT_INDEX[item[3]]] for item in _CAPSULES])
_CAPSULE_RADII: Floats = np.array([[item[2], item[4]] for item in _CAPSULES])
_CAPSULE_REACH: Floats = np.array([item[5] for item in _CAPSULES])
# Clothes lie over the limb they share their ends with.
_CAPSULE_LIFT: Floats = np.array([0.004 if "leg" in item[0] or "sleeve" in item[0] else 0.0 for item in _CAPSULES])

_TORSO = (("left_shoulder", 0.036), ("right_shoulder", 0.036), ("neck", 0.034), ("chest", 0.085), ("waist", 0.072))
_PELVIS = (("waist", 0.070), ("left_hip", 0.056), ("right_hip", 0.056), ("pelvis", 0.068))
_HULLS = {name: (np.array([POINT_INDEX[point] for point, _ in hull]), np.array([r for _, r in hull])) for name, hull in
          (("torso", _TORSO), ("pelvis", _PELVIS))}  # fmt: skip

_FACE = ("head", "hair", "eye", "mouth")
_AROUND = {
    "shoulder": ("torso", "{}_upper_arm", "{}_sleeve"),
    "elbow": ("{}_upper_arm", "{}_sleeve", "{}_forearm"),
    "wrist": ("{}_forearm", "{}_hand"),
    "hip": ("pelvis", "torso", "belt", "{}_thigh", "{}_leg"),
    "knee": ("{}_thigh", "{}_leg", "{}_shin"),
    "ankle": ("{}_shin", "{}_foot"),
    "eye": _FACE,
    "ear": _FACE,
}
_SHIRT = np.array([part == "torso" or "sleeve" in part or "arm" in part for part in PARTS])
_TROUSERS = np.array([part == "pelvis" or any(word in part for word in ("leg", "thigh", "shin")) for part in PARTS])
_TRUNK = ("torso", "pelvis", "neck", "belt")
_MIDDLE = {
    "nose": _FACE,
    "neck": (*_TRUNK, *_FACE),
    "thorax": (*_TRUNK, *_FACE),
    "upper_neck": (*_TRUNK, *_FACE),
    "head_top": _FACE,
    "pelvis": (*_TRUNK, "left_leg", "right_leg", "left_thigh", "right_thigh"),
}


def _shows() -> NDArray[np.bool_]:
    """Returns (points, parts): whether a point counts as seen where that part is the one in front."""
    table = np.zeros((len(POINTS), len(PARTS)), bool)
    table[:, 0] = True
    for index, name in enumerate(POINTS):
        side, _, rest = name.partition("_")
        parts = _MIDDLE.get(name) or tuple(part.format(side) for part in _AROUND.get(rest, ()))
        table[index, [PART_INDEX[part] for part in parts]] = True
    return table


_SHOWS = _shows()


@dataclass(frozen=True, slots=True)
class Figure:
    """A person, drawn.

    Attributes:
        picture: (h, w, 3) uint8 BGR, multiplied with its alpha.
        alpha: (h, w) uint8, 255 inside the person.
        corner: x, y of the patch's top left pixel in the scene.
        points: (len(POINTS), 2) in pixels of the scene.
        seen: (len(POINTS),) whether the person's own body leaves the point in view.
        box: x1, y1, x2, y2 around the silhouette, in pixels of the scene.
    """

    picture: Grey
    alpha: Grey
    corner: tuple[int, int]
    points: Floats
    seen: NDArray[np.bool_]
    box: Floats


@dataclass(frozen=True, slots=True)
class Stance:
    """Where and how a person stands before the camera.

    Attributes:
        height: Pixels of the scene per body height.
        centre: x, y of the pelvis in pixels of the scene.
        distance: Camera distance in body heights; near cameras foreshorten.
        light: x, y direction the light comes from, in the picture.
        poses: Names of the poses to choose from.
        yaw: Where the person faces, in degrees; None is by chance.
        ground: Row that the lowest point touches; None leaves the pelvis at `centre`.
    """

    height: float
    centre: tuple[float, float]
    distance: float = 6.0
    light: tuple[float, float] = (-0.6, -0.8)
    poses: tuple[str, ...] = ANY
    yaw: float | None = None
    ground: float | None = None


def draw_figure(rng: np.random.Generator, stance: Stance) -> Figure:
    """Returns a random person, posed, dressed and drawn as `stance` says."""
    proportions = _proportions(rng)
    _, angles, root = draw_pose(rng, stance.poses, yaw=stance.yaw)
    world, head = body_points(angles, root, proportions)
    magnify = stance.distance / (stance.distance - np.clip(world[:, 2], None, 0.6 * stance.distance))
    flat = world[:, :2] * [stance.height, -stance.height] * magnify[:, None]
    radii = stance.height * magnify * proportions.girth
    foot = flat[:, 1].max() + 0.02 * stance.height
    offset = np.array([stance.centre[0], stance.centre[1] if stance.ground is None else stance.ground - foot])
    points = flat + offset

    fine = 2 if stance.height < _FINE_BELOW else 1
    margin = 0.1 * float(radii.max()) + 2
    low = np.floor(points.min(axis=0) - margin)
    size = np.ceil(points.max(axis=0) + margin - low).astype(int)
    outfit = draw_outfit(rng, PARTS)
    local = (points - low + 0.5) * fine - 0.5
    labels, shade = _paint(
        local, world[:, 2], radii * fine, head, outfit, (int(size[1]) * fine, int(size[0]) * fine), stance.light
    )
    picture, alpha = _dress(labels, shade, outfit, rng)
    if fine == 1:
        alpha = cv2.min(alpha, cv2.blur(alpha, (3, 3)))
        picture = faded(picture, alpha)
    else:
        whole = (int(size[0]), int(size[1]))
        picture = cv2.resize(picture, whole, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, whole, interpolation=cv2.INTER_AREA)
    seen = _seen(labels, local, head)
    x, y, w, h = cv2.boundingRect(alpha)
    box = np.array([x, y, x + w, y + h]) + np.tile(low, 2)
    return Figure(picture, alpha, (int(low[0]), int(low[1])), points, seen, box)


def _proportions(rng: np.random.Generator) -> Proportions:
    varied = 1 + np.clip(rng.normal(0, 1, 7), -2, 2) * [0.05, 0.05, 0.05, 0.07, 0.08, 0.07, 0.11]
    child = 1.25 if rng.random() < 0.08 else 1.0
    arms, legs, trunk, shoulders, hips, head, girth = (float(value) for value in varied)
    return Proportions(arms, legs, trunk, shoulders, hips, head * child, girth)


def _paint(
    local: Floats,
    depth: Floats,
    radii: Floats,
    head: Floats,
    outfit: Outfit,
    size: tuple[int, int],
    light: tuple[float, float],
) -> tuple[Grey, Grey]:
    """Draws parts from far to near into a map of part numbers and a map of brightness (128 = as coloured)."""
    labels, shade = np.zeros(size, np.uint8), np.full(size, NEUTRAL, np.uint8)
    ends = local[_CAPSULE_ENDS]
    reach = _CAPSULE_REACH[:, :, None]
    tips = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * reach
    widths = _CAPSULE_RADII * radii[_CAPSULE_ENDS]
    light_at = np.array(light)
    lit = light_at * widths[:, :, None]
    outlines = _capsules(
        np.concatenate([tips + lit * toward for _, toward, _ in _LIMB_LAYERS]),
        np.concatenate([widths * share for share, _, _ in _LIMB_LAYERS]),
    ).reshape(len(_LIMB_LAYERS), len(_CAPSULES), -1, 2)
    order = depth[_CAPSULE_ENDS].mean(axis=1) + _CAPSULE_LIFT
    queue: list[tuple[float, int]] = [(float(order[i]), i) for i in range(len(order))]
    trunk = {name: float(depth[points].mean()) for name, (points, _) in _HULLS.items()}
    queue += [(trunk["torso"], -1), (trunk["pelvis"] - 0.002, -2), (float(depth[POINT_INDEX["cranium"]]), -3)]
    for _, item in sorted(queue):
        if item == -3:
            _head(labels, shade, local, radii, head, outfit)
        elif item < 0:
            name = "torso" if item == -1 else "pelvis"
            _hull(labels, shade, name, local, radii, light_at)
        else:
            part = _CAPSULE_PARTS[item]
            if ("sleeve" in PARTS[part] and not outfit.sleeves) or ("leg" in PARTS[part] and not outfit.legs):
                continue
            cv2.fillConvexPoly(labels, outlines[0, item], part, cv2.LINE_8, _SHIFT)
            for layer, (_, _, tone) in enumerate(_LIMB_LAYERS):
                cv2.fillConvexPoly(shade, outlines[layer, item], tone, cv2.LINE_8, _SHIFT)
    soft = max(3, int(0.012 * float(radii.mean())) * 2 + 1)
    return labels, cv2.blur(shade, (soft, soft))


def _capsules(ends: Floats, radii: Floats) -> NDArray[np.int32]:
    """Returns (n, 12, 2) outlines in fixed point of capsules between (n, 2, 2) ends with (n, 2) radii."""
    along = ends[:, 1] - ends[:, 0]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    way = along / length
    across = np.stack([-way[:, 1], way[:, 0]], axis=1)
    # The half circle at the start; the one at the end is its opposite.
    arc = _ARC[:, :1] * way[:, None] + _ARC[:, 1:] * across[:, None]
    rings = np.stack([arc, -arc], axis=1) * radii[:, :, None, None]
    return _fixed((ends[:, :, None] + rings).reshape(len(ends), -1, 2))


def _fixed(points: Floats) -> NDArray[np.int32]:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _hull(labels: Grey, shade: Grey, name: str, local: Floats, radii: Floats, light: Floats) -> None:
    points, widths = _HULLS[name]
    widths = (widths * radii[points])[:, None, None]
    spots = local[points][:, None]
    middle = spots.mean(axis=0)
    for share, toward, tone in _TRUNK_LAYERS:
        centres = middle + (spots - middle) * (0.6 + 0.4 * share)
        rings = _fixed(centres + (light * toward + _UNIT * share) * widths)
        outline = cv2.convexHull(rings.reshape(-1, 2))
        if share == 1:
            cv2.fillConvexPoly(labels, outline, PART_INDEX[name], cv2.LINE_8, _SHIFT)
        cv2.fillConvexPoly(shade, outline, tone, cv2.LINE_8, _SHIFT)


def _head(labels: Grey, shade: Grey, local: Floats, radii: Floats, head: Floats, outfit: Outfit) -> None:
    """Draws skull, face and hair; the one that faces the camera comes last."""

    def disc(point: str, radius: float, part: str, tone: int) -> None:
        index = POINT_INDEX[point]
        at = _fixed(local[index])
        size = round(radius * float(radii[index]) * (1 << _SHIFT))
        for canvas, value in ((labels, PART_INDEX[part]), (shade, tone)):
            cv2.circle(canvas, (int(at[0]), int(at[1])), size, value, cv2.FILLED, cv2.LINE_8, _SHIFT)

    facing = float(head[2, 2])
    if facing < -0.3:
        disc("jaw", 0.038, "head", 112)
        disc("cranium", 0.055, "head", 116)
        if outfit.hair:
            disc("hair", outfit.hair, "hair", 112)
            disc("hair", outfit.hair * 0.6, "hair", 132)
        return
    if outfit.hair:
        disc("hair", outfit.hair, "hair", 106)
        disc("crown", outfit.hair * 0.8, "hair", 126)
    else:
        disc("cranium", 0.056, "head", 112)
    for side in ("left_ear", "right_ear"):
        disc(side, 0.013, "head", 100)
    disc("jaw", 0.039, "head", 116)
    disc("face", 0.046, "head", 122)
    disc("cheek", 0.030, "head", 134)
    disc("nose", 0.010, "head", 142)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        if facing + 0.45 * float(head[2, 0]) * sign > 0.1:
            disc(f"{side}_eye", 0.0078, "eye", NEUTRAL)
    disc("mouth", 0.010, "mouth", NEUTRAL)


def _dress(labels: Grey, shade: Grey, outfit: Outfit, rng: np.random.Generator) -> tuple[Grey, Grey]:
    """Returns the coloured picture of a map of parts, and its alpha."""
    height, width = labels.shape
    table = np.zeros((256, 1, 3), np.uint8)
    table[1 : len(PARTS), 0] = outfit.colours[1:]
    picture = cv2.LUT(cv2.cvtColor(labels, cv2.COLOR_GRAY2BGR), table)
    pattern = cut("grain", 4, (height, width), rng).copy()
    dressed = (outfit.colours != outfit.colours[PART_INDEX["head"]]).any(axis=1)
    for cloth, garment in ((outfit.shirt, _SHIRT), (outfit.trousers, _TROUSERS)):
        worn = np.zeros(256, np.uint8)
        worn[: len(PARTS)][garment & dressed] = 255
        cv2.copyTo(cut("cloth", cloth, (height, width), rng), cv2.LUT(labels, worn), pattern)
    lit = cv2.multiply(shade, pattern, scale=1 / NEUTRAL)
    picture = cv2.multiply(picture, cv2.cvtColor(lit, cv2.COLOR_GRAY2BGR), scale=1 / 120)
    return picture, cv2.threshold(labels, 0, 255, cv2.THRESH_BINARY)[1]


def _seen(labels: Grey, local: Floats, head: Floats) -> NDArray[np.bool_]:
    cells = np.rint(local).astype(int)
    inside = np.clip(cells, 0, [labels.shape[1] - 1, labels.shape[0] - 1])
    seen: NDArray[np.bool_] = _SHOWS[np.arange(len(POINTS)), labels[inside[:, 1], inside[:, 0]]]
    facing, sideways = float(head[2, 2]), float(head[2, 0])
    seen[POINT_INDEX["nose"]] &= facing > -0.1
    for side, sign in (("left", 1.0), ("right", -1.0)):
        seen[POINT_INDEX[f"{side}_eye"]] &= facing + 0.45 * sign * sideways > 0.1
        seen[POINT_INDEX[f"{side}_ear"]] &= sign * sideways > -0.35
    return seen
