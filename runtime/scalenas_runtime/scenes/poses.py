"""What the people do: poses as joint angles, with the limits of human joints."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.scenes.body import BONES, Floats, rotation

_SLOT = {name: index for index, name in enumerate(BONES)}
_SHORT = {"arm": "upper_arm", "elbow": "forearm", "wrist": "hand", "hip": "thigh", "knee": "shin", "foot": "foot"}

# Degrees (least, most) of bend, lift and twist, by the part of the name after left_ or right_.
_LIMITS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "pelvis": ((0, 0), (0, 0), (0, 0)),
    "spine": ((-25, 50), (-25, 25), (-30, 30)),
    "chest": ((-20, 40), (-20, 20), (-30, 30)),
    "head": ((-45, 50), (-30, 30), (-70, 70)),
    "upper_arm": ((-60, 180), (-30, 178), (-90, 90)),
    "forearm": ((0, 150), (0, 0), (-60, 60)),
    "hand": ((-60, 60), (-20, 30), (0, 0)),
    "thigh": ((-35, 130), (-25, 85), (-45, 45)),
    "shin": ((0, 150), (0, 0), (-10, 10)),
    "foot": ((-25, 60), (-15, 15), (-15, 15)),
}


def _limits() -> tuple[Floats, Floats]:
    rows = np.array([_LIMITS[name.removeprefix("left_").removeprefix("right_")] for name in BONES], dtype=float)
    return rows[:, :, 0], rows[:, :, 1]


LEAST, MOST = _limits()


@dataclass(frozen=True, slots=True)
class Pose:
    """A pose to vary.

    Attributes:
        angles: (16, 3) degrees; see `body_points`.
        share: Relative frequency.
        loose: Standard deviation of the variation, in degrees.
        pitch, roll: Typical turn of the whole body forward and in the picture's plane, in degrees.
        spread: Standard deviation of that turn; 360 stands for any direction.
        grounded: Stands, sits or lies on something below.
    """

    angles: Floats
    share: float
    loose: float
    pitch: float
    roll: float
    spread: float
    grounded: bool


def _pose(text: str, share: float = 1.0, *, loose: float = 11.0, turn: tuple[float, float, float] = (0, 0, 6)) -> Pose:
    """Reads `part bend lift twist; ...`; a part without a side means both, and missing angles are zero."""
    angles = np.zeros((len(BONES), 3))
    grounded = True
    for item in filter(None, (piece.strip() for piece in text.split(";"))):
        part, *numbers = item.split()
        if part == "flying":
            grounded = False
            continue
        side, _, name = part.rpartition(".")
        bone = _SHORT.get(name, name)
        sides = ("",) if bone in _SLOT else ((f"{side}_",) if side else ("left_", "right_"))
        for each in sides:
            angles[_SLOT[each + bone], : len(numbers)] = [float(number) for number in numbers]
    return Pose(angles, share, loose, *turn, grounded=grounded)


POSES: dict[str, Pose] = {
    "stand": _pose("arm 0 8; elbow 12; hip 0 4", 4, loose=7),
    "hands_on_hips": _pose("arm -15 45 -60; elbow 95; hip 0 7", 1, loose=6),
    "phone": _pose("arm 0 8; elbow 12; right.arm 40 15 -30; right.elbow 135; hip 0 4", 1),
    "arms_crossed": _pose("arm 30 0 -50; elbow 100; hip 0 5", 1, loose=6),
    "carry": _pose("arm 35 10 -10; elbow 75; hip 0 5; spine -4", 1),
    "walk": _pose(
        "left.hip 26; left.knee 6; right.hip -16; right.knee 28; left.arm -24 6; right.arm 24 6; elbow 25", 4
    ),
    "stride": _pose("left.hip 14; left.knee 4; right.hip 4; right.knee 52; arm 0 8; elbow 22", 2),
    "run": _pose(
        "left.hip 62; left.knee 80; right.hip -22; right.knee 32; right.foot 30; left.arm -45 10; right.arm 42 8;"
        "elbow 90; spine 8; chest 6",
        3,
    ),
    "run_push": _pose(
        "left.hip 38; left.knee 105; right.hip -10; right.knee 8; right.foot 40; left.arm -38 12; right.arm 45 5;"
        "elbow 85; spine 10",
        2,
    ),
    "sit": _pose("hip 85 8; knee 88; arm 25 8; elbow 45; spine 6", 3),
    "sit_floor": _pose("hip 88 22; knee 70; arm 20 20; elbow 35; spine 18", 1, loose=14),
    "squat": _pose("hip 105 18; knee 125; spine 22; arm 60 10; elbow 40; foot -15", 1.5),
    "lunge": _pose("left.hip 80; left.knee 85; right.hip -22; right.knee 30; arm 20 30; elbow 30", 1.5, loose=14),
    "bend": _pose("hip 60 5; knee 18; spine 45; chest 25; arm 80 5; elbow 15; head -10", 1.5, loose=13),
    "reach": _pose("arm 160 10; elbow 15; hip 0 5; chest -8", 1.5, loose=15),
    "cheer": _pose("arm 10 140 30; elbow 35; hip 0 9", 1.5, loose=15),
    "star_jump": _pose("flying; arm 0 125 20; elbow 12; hip 5 38; knee 12; foot 35", 1.5, loose=15, turn=(0, 0, 14)),
    "kick": _pose(
        "left.hip 92 10; left.knee 18; left.foot 25; right.knee 8; arm 15 55; elbow 40; chest -6", 2, loose=16
    ),
    "throw": _pose(
        "right.arm 20 95 70; right.elbow 85; left.arm 65 25; left.elbow 20; left.hip 38; left.knee 22; right.hip -22;"
        "right.knee 18; chest -8 0 -20",
        2,
        loose=15,
    ),
    "racket": _pose(
        "right.arm 40 130 40; right.elbow 55; left.arm 70 40; left.elbow 40; hip 12 14; knee 22; chest 0 -12 0",
        2,
        loose=16,
    ),
    "bat": _pose("arm 70 -8 -20; elbow 55; chest 5 0 35; spine 12; hip 24 12; knee 32", 1.5, loose=13),
    "leap": _pose(
        "flying; left.hip 85 5; left.knee 15; right.hip -32; right.knee 20; foot 35; arm 30 80; elbow 15",
        2,
        loose=16,
        turn=(0, 0, 14),
    ),
    "hurdle": _pose(
        "flying; left.hip 105; left.knee 12; right.hip 40 70; right.knee 95; left.arm 50 10; right.arm 85 5; elbow 40;"
        "spine 28",
        1.5,
        turn=(8, 0, 10),
    ),
    "tuck": _pose("flying; hip 118 8; knee 128; spine 38; chest 28; head 25; arm 65 5; elbow 45", 2, turn=(0, 0, 360)),
    "pike": _pose("flying; hip 110 5; knee 8; spine 35; chest 22; arm 95 10; elbow 12; foot 40", 1, turn=(0, 0, 360)),
    "layout": _pose(
        "flying; arm 150 20; elbow 10; hip -8 6; knee 10; chest -12; head -20; foot 35", 1.5, turn=(0, 0, 360)
    ),
    "handstand": _pose("arm 174 6; elbow 5; hip 0 12; knee 8; foot 40; head -25", 2, loose=13, turn=(0, 180, 12)),
    "cartwheel": _pose("arm 0 160; elbow 6; hip 0 52; knee 6; foot 35", 1.5, turn=(0, 0, 360)),
    "hang": _pose("flying; arm 170 8; elbow 10; hip 18 6; knee 25; foot 30", 1.5, loose=15),
    "climb": _pose(
        "left.arm 150 25; right.arm 105 35; elbow 55; left.hip 80 35; left.knee 95; right.hip 25 20; right.knee 45",
        2,
        loose=16,
    ),
    "swing": _pose("flying; arm 165 5; elbow 8; hip 60 5; knee 12; foot 35", 1, loose=14, turn=(0, 0, 70)),
    "vault": _pose(
        "left.arm 70 20; right.arm 40 70; elbow 12; hip 75 30; knee 60; spine 20", 1.5, loose=18, turn=(20, 0, 40)
    ),
    "crawl": _pose("arm 82 6; elbow 12; hip 82 6; knee 88; head -30; foot 45", 1.5, loose=12, turn=(82, 0, 8)),
    "start_block": _pose(
        "arm 92 12; elbow 6; left.hip 110; left.knee 80; right.hip 85; right.knee 70; spine 22; head -10",
        1,
        turn=(58, 0, 8),
    ),
    "push_up": _pose("arm 80 18; elbow 25; hip 5 4; knee 4; foot -20; head -15", 1, turn=(78, 0, 10)),
    "arabesque": _pose(
        "left.hip 80 10; left.knee 5; right.hip 6; right.knee 4; arm 60 70; elbow 10; spine -20; chest -15",
        1,
        loose=14,
        turn=(70, 0, 15),
    ),
    "ride": _pose(
        "left.hip 88 4; left.knee 85; right.hip 42 4; right.knee 42; arm 62 8; elbow 18; spine 22; chest 14; head -20",
        loose=5,
        turn=(0, 0, 3),
    ),
    "lie": _pose("arm 25 28; elbow 25; hip 12 10; knee 20", 1, loose=18, turn=(-80, 0, 360)),
}


@functools.cache
def _cumulative(names: tuple[str, ...]) -> NDArray[np.float64]:
    shares = np.array([POSES[name].share for name in names])
    return np.asarray(np.cumsum(shares / shares.sum()))


ANY = tuple(name for name in POSES if name != "ride")
UPRIGHT = ("stand", "hands_on_hips", "phone", "arms_crossed", "carry", "walk", "stride")
RIDING = ("ride",)


def draw_pose(
    rng: np.random.Generator, names: tuple[str, ...] = ANY, *, yaw: float | None = None
) -> tuple[str, Floats, Floats]:
    """Returns a pose's name, its (16, 3) angles in degrees within the joints' limits, and the body's rotation.

    Args:
        rng: Source of chance.
        names: Poses of `POSES` to choose from.
        yaw: Where the person faces, in degrees (`body.rotation`); None is by chance, mostly towards the camera.
    """
    cumulative = _cumulative(names)
    chance = rng.random(4)
    name = names[int(np.searchsorted(cumulative, chance[0]))]
    pose = POSES[name]
    angles = pose.angles
    if chance[1] < 0.25:
        other = POSES[names[int(np.searchsorted(cumulative, chance[2]))]].angles
        angles = angles + (other - angles) * (0.6 * chance[3])
    angles = np.clip(angles + rng.normal(0.0, pose.loose, angles.shape), LEAST, MOST)
    if rng.random() < 0.5:
        angles = mirrored(angles)
    facing, pitch, roll = rng.normal(0.0, 1.0, 3)
    turn = rng.uniform(-180.0, 180.0) if pose.spread >= 360 else pose.roll + pose.spread * roll
    if yaw is None:
        yaw = 50.0 * float(facing) if rng.random() < 0.55 else float(rng.uniform(-180.0, 180.0))
    tilt = rotation(0.0, 5.0 * float(pitch), float(turn))
    # Lean first, in the body's own frame, so that a crawling person crawls the way the yaw says.
    return name, angles, tilt @ rotation(yaw, 0.0, 0.0) @ rotation(0.0, pose.pitch, 0.0)


def mirrored(angles: Floats) -> Floats:
    """Returns the pose of the mirror image: left and right change places, sideways and twist of the trunk turn over."""
    swapped = angles[_MIRROR].copy()
    swapped[:4, 1:] *= -1
    return np.asarray(swapped)


def _mirror_name(name: str) -> str:
    side, _, part = name.partition("_")
    return f"{'right' if side == 'left' else 'left'}_{part}" if part else name


_MIRROR = [BONES.index(_mirror_name(name)) for name in BONES]
