"""Named sets of joints and classes, and the recipes that they give by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scalenas_runtime.errors import UserError
from scalenas_runtime.records import read_record
from scalenas_runtime.tasks.pose import PoseRecipe
from scalenas_runtime.tasks.segmentation import SegmentationRecipe

# OKS constants by what a joint's name holds; COCO's own for its joints (eye .025 ... hip .107). The head and trunk
# points that COCO lacks take the constant of the COCO joint that annotators place about as precisely.
_SIGMA_BY_WORD = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
    "neck": 0.079,
    "head": 0.079,
    "thorax": 0.079,
    "pelvis": 0.107,
}
_SIGMA_OTHERWISE = 0.089

# DARK's authors blur heatmaps of 128x96 crops by a kernel of 3, those of 256x192 and larger ones by 11.
_DARK_WIDE, _DARK_NARROW_BLUR = 192, 3


@dataclass(frozen=True, slots=True)
class JointSet:
    """The joints that a data set labels.

    Attributes:
        name: How the set is asked for, such as `coco-17`.
        joints: Names in the order of the data set.
        edges: Pairs of joint indices that a skeleton drawing connects.
        flip_pairs: Pairs of joint indices that change places in a mirrored picture.
        sigmas: OKS constant of each joint, as in COCO (object keypoint similarity).
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ClassSet:
    """The classes that a segmentation data set labels.

    Attributes:
        name: How the set is asked for, such as `camvid-11`.
        classes: Names by label value.
        palette: (R, G, B) of each class, 0..255.
        ignore: Label value of pixels that count nowhere.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore: int


def flip_pairs_of(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of indices of joints whose names differ in left and right alone, ordered by first index.

    The word may stand anywhere in the name: `left_hip`, `hip_left` and `Left Hip` all pair with their right one.
    """
    names = [joint.casefold() for joint in joints]
    index = {name: position for position, name in enumerate(names)}
    pairs = []
    for position, name in enumerate(names):
        other = index.get(name.replace("left", "right")) if "left" in name else None
        if other is not None:
            pairs.append((min(position, other), max(position, other)))
    return tuple(sorted(pairs))


def sigmas_of(joints: Sequence[str]) -> tuple[float, ...]:
    """Returns an OKS constant for each joint by its name; names that hold no known word get 0.089."""

    def sigma(joint: str) -> float:
        name = joint.casefold()
        return next((value for word, value in _SIGMA_BY_WORD.items() if word in name), _SIGMA_OTHERWISE)

    return tuple(sigma(joint) for joint in joints)


def _joint_set(name: str, joints: tuple[str, ...], edges: Sequence[tuple[str, str]]) -> JointSet:
    pairs = tuple((joints.index(first), joints.index(second)) for first, second in edges)
    return JointSet(name, joints, pairs, flip_pairs_of(joints), sigmas_of(joints))


_LIMBS = [
    (f"{side}_{first}", f"{side}_{second}")
    for side in ("left", "right")
    for first, second in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
]

COCO_17 = _joint_set(
    "coco-17",
    (
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    [
        *_LIMBS,
        ("left_shoulder", "right_shoulder"),
        ("left_hip", "right_hip"),
        ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"),
        ("nose", "left_eye"),
        ("nose", "right_eye"),
        ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"),
        ("right_ear", "right_shoulder"),
    ],
)

LSPET_14 = _joint_set(
    "lspet-14",
    (
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "neck",
        "head_top",
    ),
    [
        *_LIMBS,
        ("left_hip", "right_hip"),
        ("left_shoulder", "neck"),
        ("right_shoulder", "neck"),
        ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"),
        ("neck", "head_top"),
    ],
)

MPII_16 = _joint_set(
    "mpii-16",
    (
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "pelvis",
        "thorax",
        "upper_neck",
        "head_top",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
    ),
    [
        *_LIMBS,
        ("left_hip", "pelvis"),
        ("right_hip", "pelvis"),
        ("pelvis", "thorax"),
        ("left_shoulder", "thorax"),
        ("right_shoulder", "thorax"),
        ("thorax", "upper_neck"),
        ("upper_neck", "head_top"),
    ],
)

CAMVID_11 = ClassSet(
    "camvid-11",
    (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore=11,
)

CITYSCAPES_19 = ClassSet(
    "cityscapes-19",
    (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    (
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
    ignore=255,
)

JOINT_SETS: Mapping[str, JointSet] = {each.name: each for each in (COCO_17, LSPET_14, MPII_16)}
CLASS_SETS: Mapping[str, ClassSet] = {each.name: each for each in (CAMVID_11, CITYSCAPES_19)}

S = TypeVar("S")


def joint_set(name: str) -> JointSet:
    """Returns the joint set of that name, such as `coco-17`; case, `-` and `_` do not matter.

    Raises:
        UserError: no set has that name.
    """
    return _named(JOINT_SETS, name, "joint set")


def class_set(name: str) -> ClassSet:
    """Returns the class set of that name, such as `camvid-11`; case, `-` and `_` do not matter.

    Raises:
        UserError: no set has that name.
    """
    return _named(CLASS_SETS, name, "class set")


def pose_recipe(joints: JointSet | str, *, size: tuple[int, int] = (256, 192), **fields: object) -> PoseRecipe:
    """Returns the recipe of top-down pose with a joint set's names, edges, flip pairs and sigmas.

    Args:
        joints: A set or its name.
        size: Height and width of the crop, in pixels.
        fields: Any other field of `PoseRecipe`, such as `decode="dark"`. Where a DARK decoder is named and `blur` is
            not, the kernel is 11, or 3 for crops less than 192 pixels wide, whose heatmaps have narrower peaks (the
            published configurations of Zhang et al., CVPR 2020).

    Raises:
        UserError: unknown set, unknown field, or a value out of range.
    """
    chosen = joint_set(joints) if isinstance(joints, str) else joints
    if fields.get("decode") in ("dark", "dark-udp") and size[1] < _DARK_WIDE:
        fields.setdefault("blur", _DARK_NARROW_BLUR)
    values: dict[str, object] = {
        "task": "pose",
        "height": size[0],
        "width": size[1],
        "joints": chosen.joints,
        "edges": chosen.edges,
        "flip_pairs": chosen.flip_pairs,
        "sigmas": chosen.sigmas,
    }
    return read_record(PoseRecipe, {**values, **fields}, what="pose recipe")


def segmentation_recipe(
    classes: ClassSet | str, *, size: tuple[int, int] = (352, 480), **fields: object
) -> SegmentationRecipe:
    """Returns the recipe of segmentation with a class set's names, palette and ignored label.

    Args:
        classes: A set or its name.
        size: Height and width of the net's input, in pixels.
        fields: Any other field of `SegmentationRecipe`, such as `fit="sliding"`.

    Raises:
        UserError: unknown set, unknown field, or a value out of range.
    """
    chosen = class_set(classes) if isinstance(classes, str) else classes
    values: dict[str, object] = {
        "task": "segmentation",
        "height": size[0],
        "width": size[1],
        "classes": chosen.classes,
        "palette": chosen.palette,
        "ignore": chosen.ignore,
    }
    return read_record(SegmentationRecipe, {**values, **fields}, what="segmentation recipe")


def _named(sets: Mapping[str, S], name: str, what: str) -> S:
    found = sets.get(name.casefold().replace("_", "-"))
    if found is None:
        raise UserError(f"no {what} is called {name!r}; known: {', '.join(sets)}")
    return found
