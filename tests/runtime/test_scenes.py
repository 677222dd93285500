"""Synthetic scenes: the same for everyone, and labels that agree with each other and with the picture."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from scalenas_runtime import scenes
from scalenas_runtime.errors import UserError
from scalenas_runtime.scenes.body import POINT_INDEX, POINTS, Proportions, body_points, rotation
from scalenas_runtime.scenes.figure import Stance, draw_figure
from scalenas_runtime.scenes.poses import LEAST, MOST, POSES, RIDING, UPRIGHT, draw_pose, mirrored
from scalenas_runtime.scenes.stage import STUFF, label_table
from scalenas_runtime.tasks.sets import (
    CAMVID_11,
    CITYSCAPES_19,
    COCO_17,
    JOINT_SETS,
    LSPET_14,
    ClassSet,
    JointSet,
    class_set,
    flip_pairs_of,
    joint_set,
    pose_recipe,
    segmentation_recipe,
    sigmas_of,
)

DIGESTS = """
import hashlib
from scalenas_runtime import scenes
for seed, index in ((0, 0), (0, 7), (3, 1), (2**40, 5)):
    for scene in (scenes.person_scene(seed, index), scenes.street_scene(seed, index, size=(96, 128))):
        parts = (scene.picture, scene.joints, scene.boxes, scene.class_map)
        print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


@pytest.fixture(scope="module")
def people() -> list[scenes.Scene]:
    return [scenes.person_scene(11, index) for index in range(120)]


@pytest.fixture(scope="module")
def streets() -> list[scenes.Scene]:
    return [scenes.street_scene(5, index, size=(176, 240)) for index in range(80)]


def test_scenes_are_the_same_in_every_process() -> None:
    def digests(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    first = digests("1")
    assert first == digests("2")
    assert len(set(first.split())) == 8


def test_scenes_do_not_depend_on_the_order_of_calls() -> None:
    alone = scenes.person_scene(4, 9).picture.copy()
    scenes.person_scene(4, 10)
    scenes.street_scene(4, 9, size=(96, 128))
    np.testing.assert_array_equal(scenes.person_scene(4, 9).picture, alone)


@pytest.mark.parametrize("call", [scenes.person_scene, scenes.street_scene], ids=["people", "street"])
def test_negative_seeds_are_refused(call: type) -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1 and 0"):
        call(-1, 0)


def test_types_and_shapes(people: list[scenes.Scene]) -> None:
    for scene in people:
        count = len(scene.joints)
        assert scene.picture.shape == (256, 192, 3)
        assert scene.joints.shape == (count, 17, 3)
        assert scene.boxes.shape == (count, 4)
        assert scene.class_map.shape == (256, 192)
        kinds = [part.dtype for part in (scene.picture, scene.joints, scene.boxes, scene.class_map)]
        assert kinds == [np.uint8, np.float32, np.float32, np.uint8]


def test_joints_outside_the_picture_are_zero_and_the_others_inside_their_box(people: list[scenes.Scene]) -> None:
    for scene in people:
        outside = scene.joints[scene.joints[:, :, 2] == 0]
        assert not outside.any()
        for table, (x1, y1, x2, y2) in zip(scene.joints, scene.boxes, strict=True):
            x, y, _ = table[table[:, 2] > 0].T
            assert ((x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)).all()
            assert 0 <= x1 < x2 <= 192
            assert 0 <= y1 < y2 <= 256


def test_seen_joints_lie_on_people(people: list[scenes.Scene]) -> None:
    seen = np.concatenate(
        [
            scene.class_map[tuple(np.rint(scene.joints[scene.joints[:, :, 2] == 2][:, 1::-1]).astype(int).T)]
            for scene in people
        ]
    )
    assert seen.size > 1000
    # The tip of the nose and the top of the head lie on the silhouette's edge, so a few pixels miss it.
    assert seen.mean() > 0.96


def test_a_share_of_joints_is_hidden(people: list[scenes.Scene]) -> None:
    values = np.concatenate([scene.joints[:, :, 2].ravel() for scene in people])
    shares = np.bincount(values.astype(int), minlength=3) / values.size
    assert 0.05 < shares[0] < 0.4
    assert 0.1 < shares[1] < 0.5
    assert shares[2] > 0.35


def test_people_come_in_strongly_varying_sizes(people: list[scenes.Scene]) -> None:
    heights = np.concatenate([scene.boxes[:, 3] - scene.boxes[:, 1] for scene in people])
    low, high = np.percentile(heights, [10, 90])
    assert high / low > 3.5
    counts = [len(scene.boxes) for scene in people]
    assert max(counts) >= 3


def test_a_portrait_puts_its_person_first_and_large() -> None:
    for index in range(40):
        scene = scenes.person_scene(2, index, size=(320, 288), portrait=True)
        x1, y1, x2, y2 = scene.boxes[0]
        assert (scene.joints[0, :, 2] > 0).sum() >= 9
        assert max(x2 - x1, y2 - y1) > 60


@pytest.mark.parametrize("name", sorted(JOINT_SETS))
def test_every_joint_set_labels_the_same_people(name: str) -> None:
    reference = scenes.person_scene(8, 3)
    joints = joint_set(name)
    scene = scenes.person_scene(8, 3, joints=joints)
    np.testing.assert_array_equal(scene.picture, reference.picture)
    for side in ("left", "right"):
        for part in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder"):
            mine = scene.joints[:, joints.joints.index(f"{side}_{part}")]
            np.testing.assert_array_equal(mine, reference.joints[:, COCO_17.joints.index(f"{side}_{part}")])


def test_an_unknown_joint_is_refused_by_name() -> None:
    tail = JointSet("dogs", ("tail",), (), (), (0.1,))
    with pytest.raises(UserError, match=r"no joint 'tail'; they have: .*left_ankle"):
        scenes.person_scene(0, 0, joints=tail)


def test_left_is_the_persons_own_left() -> None:
    points, _ = body_points(POSES["stand"].angles, np.eye(3), Proportions())
    for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        # A person who faces the camera has the left side on the right of the picture.
        assert points[POINT_INDEX[f"left_{part}"], 0] > points[POINT_INDEX[f"right_{part}"], 0]
    back, _ = body_points(POSES["stand"].angles, rotation(180, 0, 0), Proportions())
    assert back[POINT_INDEX["left_hip"], 0] < back[POINT_INDEX["right_hip"], 0]


@pytest.mark.parametrize("height", [40, 130, 150, 300], ids=lambda height: f"{height}px")
def test_a_figure_ends_at_its_outline(height: int) -> None:
    for seed in range(5):
        figure = draw_figure(np.random.default_rng(seed), Stance(height, (0.0, 0.0)))
        assert not figure.picture[figure.alpha == 0].any()
        assert figure.picture[figure.alpha == 255].any()
        x1, y1, x2, y2 = figure.box - np.tile(figure.corner, 2)
        assert (figure.alpha[int(y1) : int(y2), int(x1) : int(x2)] > 0).sum() == (figure.alpha > 0).sum()


def test_limbs_keep_their_lengths_in_every_pose() -> None:
    rng = np.random.default_rng(0)
    limbs = [("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")]
    for _ in range(100):
        _, angles, root = draw_pose(rng)
        points, _ = body_points(angles, root, Proportions(arms=1.1, legs=0.95))
        for first, second in limbs:
            left, right = (
                np.linalg.norm(points[POINT_INDEX[f"{side}_{first}"]] - points[POINT_INDEX[f"{side}_{second}"]])
                for side in ("left", "right")
            )
            factor = 0.95 if first in ("hip", "knee") else 1.1
            length = {"hip": 0.245, "knee": 0.245, "shoulder": 0.175, "elbow": 0.155}[first]
            assert left == pytest.approx(right)
            assert left == pytest.approx(length * factor)


def test_a_mirrored_pose_gives_the_mirrored_body() -> None:
    rng = np.random.default_rng(1)
    flip = np.diag([-1.0, 1.0, 1.0])
    pairs = dict(flip_pairs_of(POINTS))
    swap = np.array([pairs.get(i, {b: a for a, b in pairs.items()}.get(i, i)) for i in range(len(POINTS))])
    for _ in range(20):
        _, angles, root = draw_pose(rng)
        points, _ = body_points(angles, root, Proportions())
        other, _ = body_points(mirrored(angles), flip @ root @ flip, Proportions())
        np.testing.assert_allclose(other, (points @ flip)[swap], atol=1e-12)


@pytest.mark.parametrize("names", [tuple(POSES), UPRIGHT, RIDING], ids=["all", "upright", "riding"])
def test_poses_respect_the_limits_of_joints(names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        name, angles, root = draw_pose(rng, names)
        assert name in names
        assert ((angles >= LEAST) & (angles <= MOST)).all()
        np.testing.assert_allclose(root @ root.T, np.eye(3), atol=1e-12)


def test_the_class_map_names_people_in_a_class_set() -> None:
    binary = scenes.person_scene(1, 2)
    labelled = scenes.person_scene(1, 2, classes=CITYSCAPES_19)
    person = CITYSCAPES_19.classes.index("person")
    np.testing.assert_array_equal(labelled.class_map, np.where(binary.class_map == 1, person, 255))
    roads = ClassSet("roads", ("road", "rest"), ((0, 0, 0), (1, 1, 1)), 255)
    with pytest.raises(UserError, match="class set roads has none of the classes person, pedestrian"):
        scenes.person_scene(1, 2, classes=roads)


def test_streets_hold_every_class_in_about_the_shares_of_camvid(streets: list[scenes.Scene]) -> None:
    counts = np.sum([np.bincount(scene.class_map.ravel(), minlength=12) for scene in streets], axis=0)
    shares = dict(zip((*CAMVID_11.classes, "void"), counts / counts.sum(), strict=True))
    camvid = {
        "sky": 0.17, "building": 0.23, "pole": 0.010, "road": 0.32, "pavement": 0.045, "tree": 0.097, "sign": 0.012,
        "fence": 0.011, "car": 0.059, "pedestrian": 0.006, "bicyclist": 0.003, "void": 0.040,
    }  # fmt: skip
    for name, share in camvid.items():
        assert share / 3 < shares[name] < share * 3, name


def test_streets_of_cityscapes_are_the_same_pictures(streets: list[scenes.Scene]) -> None:
    scene = scenes.street_scene(5, 0, size=(176, 240), classes=CITYSCAPES_19)
    np.testing.assert_array_equal(scene.picture, streets[0].picture)
    road = scene.class_map == CITYSCAPES_19.classes.index("road")
    np.testing.assert_array_equal(road, streets[0].class_map == CAMVID_11.classes.index("road"))
    assert set(np.unique(scene.class_map).tolist()) <= {*range(19), 255}


def test_the_closest_class_is_chosen_by_name() -> None:
    camvid, cityscapes = label_table(CAMVID_11), label_table(CITYSCAPES_19)
    assert camvid[STUFF["bus"]] == CAMVID_11.classes.index("car")
    assert cityscapes[STUFF["bus"]] == CITYSCAPES_19.classes.index("bus")
    assert camvid[STUFF["rider"]] == camvid[STUFF["bicycle"]] == CAMVID_11.classes.index("bicyclist")
    assert cityscapes[STUFF["rider"]] != cityscapes[STUFF["bicycle"]]
    assert camvid[STUFF["void"]] == 11
    assert cityscapes[STUFF["void"]] == 255


def test_pictures_have_the_size_of_the_recipe() -> None:
    pose = scenes.pictures(pose_recipe("lspet-14", size=(128, 96)), seed=0, count=3)
    streets = scenes.pictures(segmentation_recipe("cityscapes-19", size=(96, 192)), seed=0, count=2)
    assert pose.shape == (3, 128, 96, 3)
    assert streets.shape == (2, 96, 192, 3)
    assert pose.dtype == streets.dtype == np.uint8
    assert len({hashlib.sha256(picture.tobytes()).digest() for picture in pose}) == 3
    assert min(picture.std() for picture in (*pose, *streets)) > 8


def test_pictures_start_the_same_for_every_count() -> None:
    recipe = pose_recipe("coco-17", size=(128, 96))
    few, many = (scenes.pictures(recipe, seed=3, count=count) for count in (2, 4))
    np.testing.assert_array_equal(few, many[:2])
    with pytest.raises(ValueError, match="must not be negative, got -2"):
        scenes.pictures(recipe, seed=3, count=-2)


def test_sets_are_found_by_name_in_any_spelling() -> None:
    assert joint_set("COCO_17") is COCO_17
    assert class_set("CamVid-11") is CAMVID_11
    with pytest.raises(UserError, match=r"no joint set is called 'coco'; known: coco-17, lspet-14, mpii-16"):
        joint_set("coco")
    with pytest.raises(UserError, match="no class set is called 'ade'; known: camvid-11, cityscapes-19"):
        class_set("ade")


@pytest.mark.parametrize("joints", JOINT_SETS.values(), ids=lambda joints: joints.name)
def test_flip_pairs_are_left_and_right(joints: JointSet) -> None:
    for first, second in joints.flip_pairs:
        names = {joints.joints[first], joints.joints[second]}
        assert len({name.replace("left", "right") for name in names}) == 1
    paired = {index for pair in joints.flip_pairs for index in pair}
    unpaired = {joint for index, joint in enumerate(joints.joints) if index not in paired}
    assert not any("left" in joint or "right" in joint for joint in unpaired)


def test_sigmas_of_coco_are_the_published_ones() -> None:
    published = [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89]
    assert sigmas_of(COCO_17.joints) == pytest.approx([value / 10 for value in published])
    assert sigmas_of(("paw",)) == (0.089,)
    assert len(LSPET_14.sigmas) == 14


def test_recipes_take_other_fields_and_refuse_unknown_ones() -> None:
    assert pose_recipe("coco-17", size=(384, 288), decode="dark").decode == "dark"
    # The kernels in the published configurations of DARK.
    published = {(128, 96): 3, (256, 192): 11, (384, 288): 11}
    assert {size: pose_recipe("coco-17", size=size, decode="dark").blur for size in published} == published
    assert pose_recipe("coco-17", size=(128, 96), decode="dark", blur=7).blur == 7
    assert pose_recipe("coco-17", size=(128, 96)).blur == 11, "no DARK, so the default of the format"
    assert segmentation_recipe(CITYSCAPES_19, size=(512, 1024), fit="sliding").ignore == 255
    with pytest.raises(UserError, match=r"unknown field `decoder`.*did you mean `decode`"):
        pose_recipe("coco-17", decoder="dark")
    with pytest.raises(UserError, match="height 250 is not a positive multiple of 32"):
        segmentation_recipe("camvid-11", size=(250, 480))
