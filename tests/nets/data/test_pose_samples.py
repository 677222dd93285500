"""Crops and heatmaps of people: the runtime's own geometry, targets that its decoders read back, and chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas.data.augmentation import PoseAugmentation, draw_view, mirrored_order, vary_colours
from scalenas.data.people import DrawnPeople, Person, PoseSamples
from scalenas.data.targets import PoseTargets, draw_heatmaps
from scalenas_runtime.decode.pose import decode_heatmaps
from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import crop_transforms, heatmap_to_picture, picture_to_crop
from scalenas_runtime.preprocess import pose_crops
from scalenas_runtime.records import read_record
from scalenas_runtime.tasks import PoseRecipe
from scalenas_runtime.tasks.sets import LSPET_14, pose_recipe

STILL = PoseAugmentation(half_body=0, scale=0, rotation=0, rotation_chance=0, flip=0)
PEOPLE = DrawnPeople(LSPET_14, seed=3, scenes=range(8), size=(160, 144))


def recipe(**fields: object) -> PoseRecipe:
    return pose_recipe(LSPET_14, size=(128, 96), **fields)


@dataclass(frozen=True)
class Dots:
    """One person whose joints are bright dots of their own colour on black."""

    joints: NDArray[np.float32]

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "dots"

    def person(self, index: int) -> Person:
        picture = np.zeros((200, 180, 3), np.uint8)
        for number, (x, y, _) in enumerate(self.joints):
            picture[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 60 + 14 * number
        return Person(picture, np.array([40, 30, 150, 170], np.float32), self.joints)


@pytest.mark.parametrize("affine", ["classic", "udp"])
@pytest.mark.parametrize("augmentation", [None, STILL], ids=["none", "all zero"])
def test_without_chance_the_crop_is_the_runtimes(affine: str, augmentation: PoseAugmentation | None) -> None:
    chosen = recipe(affine=affine)
    samples = PoseSamples(PEOPLE, chosen, augmentation=augmentation)
    for index in range(len(samples)):
        person = PEOPLE.person(index)
        expected, _ = pose_crops(person.picture, person.box[np.newaxis], chosen)
        assert np.array_equal(samples.sample(index, np.random.default_rng(index)).picture, expected[0])


@pytest.mark.parametrize(
    ("affine", "decode", "limit"),
    [("classic", "argmax", 0.71), ("classic", "dark", 0.06), ("udp", "dark-udp", 0.06)],
)
def test_decoding_the_target_gives_the_joints_back(affine: str, decode: str, limit: float) -> None:
    chosen = pose_recipe(LSPET_14, size=(256, 192), affine=affine, decode=decode, padding=1.6)
    samples = PoseSamples(PEOPLE, chosen)
    compared = 0
    for index in range(len(PEOPLE)):
        person = PEOPLE.person(index)
        sample = samples.sample(index, np.random.default_rng(0))
        assert sample.weight is not None
        points, _ = decode_heatmaps(sample.target[np.newaxis], chosen)
        transforms = crop_transforms(person.box[np.newaxis], chosen)
        found = heatmap_to_picture(points, transforms, chosen)[0]
        # Half a heatmap pixel on both axes is what rounding may cost.
        scale = 4 / transforms[0, 0, 0]
        inside = (sample.weight > 0) & (points[0] > 4).all(1) & (points[0] < [43, 59]).all(1)
        error = np.linalg.norm(found - person.joints[:, :2], axis=1)[inside] / scale
        assert error.max() <= limit
        compared += int(inside.sum())
    assert compared > 60


@pytest.mark.parametrize("method", ["rounded", "udp", "dark"])
def test_heatmaps_match_the_definition(method: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-12, -12], [36, 44], (40, 2))
    labelled = rng.random(40) < 0.8
    targets = read_record(PoseTargets, {"method": method}, what="targets")
    assert targets.method is not None
    maps, weights = draw_heatmaps(points, labelled, (32, 24), sigma=2, method=targets.method)
    for joint, (px, py) in enumerate(points):
        nx, ny = int(np.floor(px + 0.5)), int(np.floor(py + 0.5))
        cx, cy = (nx, ny) if method == "rounded" else (px, py)
        expected = np.zeros((32, 24))
        shown = labelled[joint] and nx >= -6 and ny >= -6 and nx - 6 < 24 and ny - 6 < 32
        for y in range(32):
            for x in range(24):
                if shown and (method == "dark" or (abs(x - nx) <= 6 and abs(y - ny) <= 6)):
                    expected[y, x] = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
        assert weights[joint] == shown
        np.testing.assert_allclose(maps[joint], expected, atol=1e-6)


def test_defaults_follow_the_recipe() -> None:
    targets = PoseTargets()
    assert targets.sigma_for(pose_recipe(LSPET_14, size=(256, 192))) == 2
    assert targets.sigma_for(pose_recipe(LSPET_14, size=(384, 288))) == 3
    methods = [targets.method_for(recipe(**fields)) for fields in ({}, {"affine": "udp"}, {"decode": "dark"})]
    assert methods == ["rounded", "udp", "dark"]


@pytest.mark.parametrize("affine", ["classic", "udp"])
def test_whatever_the_view_the_joint_is_where_the_picture_shows_it(affine: str) -> None:
    rng = np.random.default_rng(2)
    points = np.stack([rng.permutation(14) * 7 + 45, rng.permutation(14) * 9 + 40, np.full(14, 2)], 1)
    dots = Dots(points.astype(np.float32))
    chosen = pose_recipe(LSPET_14, size=(256, 192), affine=affine)
    samples = PoseSamples(dots, chosen, augmentation=PoseAugmentation(half_body=0.5, half_body_above=3, scale=0.2))
    order = mirrored_order(chosen)
    mirrored = seen = 0
    for seed in range(30):
        crop, heat, labelled = samples.crop(0, np.random.default_rng(seed))
        at = heat * (np.array([191, 255]) / [47, 63] if affine == "udp" else 4)
        inside = labelled & (at > 3).all(1) & (at < [188, 252]).all(1)
        colours = crop[at[inside, 1].round().astype(int), at[inside, 0].round().astype(int), 0].astype(int)
        straight = np.abs(colours - (60 + 14 * np.flatnonzero(inside))).max(initial=0) <= 6
        swapped = np.abs(colours - (60 + 14 * order[inside])).max(initial=0) <= 6
        assert straight or swapped
        mirrored += swapped
        seen += int(inside.sum())
    assert 5 < mirrored < 25
    assert seen > 150


def test_a_mirrored_crop_is_the_crop_of_the_mirrored_picture() -> None:
    person = PEOPLE.person(0)
    chosen = recipe()
    width = person.picture.shape[1]
    x1, y1, x2, y2 = person.box
    flipped = np.array([[width - 1 - x2, y1, width - 1 - x1, y2]], np.float32)
    expected, _ = pose_crops(np.ascontiguousarray(person.picture[:, ::-1]), flipped, chosen)
    always = PoseAugmentation(half_body=0, scale=0, rotation_chance=0, flip=1)
    sample = PoseSamples(PEOPLE, chosen, augmentation=always).sample(0, np.random.default_rng(0))
    assert np.abs(sample.picture.astype(int) - expected[0]).max() <= 1


def test_rotation_turns_clockwise_around_the_centre() -> None:
    chosen = recipe()
    box = np.array([[10, 20, 50, 100]], np.float32)
    transforms = crop_transforms(box, chosen, rotations=[90.0])
    right = picture_to_crop(np.array([[[30.0, 60.0], [40.0, 60.0]]]), transforms)[0]
    np.testing.assert_allclose(right[0], [48, 64])
    assert right[1][0] == pytest.approx(48)
    assert right[1][1] > 64


def test_half_bodies_show_one_half() -> None:
    person = PEOPLE.person(1)
    always = PoseAugmentation(half_body=1, half_body_above=3, scale=0, rotation_chance=0, flip=0)
    chosen = recipe()
    labelled = person.joints[:, 2] > 0
    seen = set()
    for seed in range(12):
        view = draw_view(np.random.default_rng(seed), always, box=person.box, joints=person.joints, recipe=chosen)
        points = picture_to_crop(person.joints[np.newaxis, :, :2], crop_transforms(view.box[np.newaxis], chosen))[0]
        inside = labelled & (points >= 0).all(1) & (points < [96, 128]).all(1)
        lower = inside[:6].sum() == labelled[:6].sum()
        upper = inside[6:].sum() == labelled[6:].sum()
        assert lower or upper
        seen.add("lower" if lower and not upper else "upper")
    assert seen == {"lower", "upper"}


def test_the_same_chance_gives_the_same_sample() -> None:
    samples = PoseSamples(PEOPLE, recipe(), augmentation=PoseAugmentation(colour=0.2))
    first, again, other = (samples.sample(2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.picture, again.picture)
    assert np.array_equal(first.target, again.target)
    assert not np.array_equal(first.picture, other.picture)


def test_colours_change_and_places_do_not() -> None:
    picture = PEOPLE.person(0).picture
    assert vary_colours(picture, np.random.default_rng(0), 0) is picture
    varied = vary_colours(picture, np.random.default_rng(0), 0.2)
    assert not np.array_equal(varied, picture)
    # A level becomes one level everywhere.
    for channel in range(3):
        pairs = np.unique(np.stack([picture[..., channel].ravel(), varied[..., channel].ravel()], 1), axis=0)
        assert len(pairs) == len(np.unique(picture[..., channel]))


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        (PoseAugmentation, {"flip": 1.5}, r"flip 1.5 is outside 0\.\.1"),
        (PoseAugmentation, {"scale": 1.0}, r"scale 1.0 is outside 0\.\.1"),
        (PoseAugmentation, {"rotation": 120.0}, r"rotation 120.0 is outside 0\.\.90 degrees"),
        (PoseAugmentation, {"half_body_padding": 9.0}, r"half_body_padding 9.0 is outside 0.5\.\.4"),
        (PoseAugmentation, {"rotations": 3.0}, "did you mean `rotation`"),
        (PoseTargets, {"sigma": 0.0}, "sigma 0.0 must be positive"),
        (PoseTargets, {"method": "round"}, "Invalid enum value 'round'"),
    ],
)
def test_values_that_do_not_fit(kind: type[PoseAugmentation], fields: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        read_record(kind, fields, what="augmentation")
