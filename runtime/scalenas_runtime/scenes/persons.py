"""Scenes of people: one to several of them, at strongly varying sizes, in front of and behind things."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.scenes.backdrop import draw_backdrop, draw_thing, shadow
from scalenas_runtime.scenes.body import POINT_INDEX
from scalenas_runtime.scenes.figure import Figure, Stance, draw_figure
from scalenas_runtime.scenes.scene import Picture, Scene, generator, paste, photograph
from scalenas_runtime.tasks.sets import COCO_17, ClassSet, JointSet

_STREAM = 1
# A person of whom fewer joints can be seen is not labelled.
_LEAST_SEEN = 2
_PERSON_CLASSES = ("person", "pedestrian", "human", "people")
# Other words for points of the body, as data sets use them.
_ALIASES: Mapping[str, str] = {"top_head": "head_top", "headtop": "head_top", "head": "head_top", "hips": "pelvis"}


def person_scene(
    seed: int,
    index: int,
    *,
    size: tuple[int, int] = (256, 192),
    joints: JointSet = COCO_17,
    classes: ClassSet | None = None,
    portrait: bool = False,
) -> Scene:
    """Returns scene `index` of the endless sequence that `seed` names: people doing things, somewhere.

    Args:
        seed: Which sequence; the same (seed, index) gives the same scene in every process.
        index: Which scene of it.
        size: Height and width of the picture, in pixels.
        joints: Which joints are labelled. Their names say which points of the body they are.
        classes: Where given, people carry the label of its class `person` or `pedestrian` and all else its ignored
            label; otherwise people are 1 and all else is 0.
        portrait: One person fills most of the picture and stands first in `joints` and `boxes`, others are chance.

    Raises:
        UserError: a joint that the body has no point for, or a class set without people.
        ValueError: a negative seed or index.
    """
    points = joint_points(joints.joints)
    labels = _labels(classes)
    rng = generator(seed, index, _STREAM)
    picture, horizon = draw_backdrop(rng, size)
    stances = _stances(rng, size, horizon, portrait=portrait)
    class_map = np.full(size, labels[0], np.uint8)
    tables: list[tuple[int, NDArray[np.float32], NDArray[np.float32]]] = []
    for order, stance in stances:
        figure = draw_figure(rng, stance)
        if stance.ground is not None:
            wide = 0.18 * stance.height
            shadow(picture, (float(figure.points[:, 0].mean()), stance.ground), (wide, wide * 0.3), 0.5)
        covered = paste(picture, figure.picture, figure.alpha, figure.corner)
        if covered is None:
            continue
        rows, columns, alpha = covered
        mask = cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)[1]
        class_map[rows, columns][mask > 0] = labels[1]
        hidden = np.zeros(size, np.uint8)
        hidden[rows, columns] = mask
        _hide([table for _, table, _ in tables], hidden)
        table, box = _label(figure, points, size)
        tables.append((order, table, box))
    if rng.random() < 0.3:
        _occlude(picture, class_map, rng, [table for _, table, _ in tables], labels[0])
    kept = sorted(
        (item for item in tables if item[0] == 0 or (item[1][:, 2] == 2).sum() >= _LEAST_SEEN), key=lambda item: item[0]
    )
    return Scene(
        np.asarray(photograph(picture, rng), np.uint8),
        np.array([table for _, table, _ in kept], np.float32).reshape(-1, len(points), 3),
        np.array([box for _, _, box in kept], np.float32).reshape(-1, 4),
        class_map,
    )


def joint_points(joints: tuple[str, ...]) -> NDArray[np.intp]:
    """Returns which point of the body each joint is, by name.

    Raises:
        UserError: a name that no point has.
    """
    found = []
    for joint in joints:
        name = joint.casefold().replace(" ", "_").replace("-", "_")
        point = POINT_INDEX.get(_ALIASES.get(name, name))
        if point is None:
            raise UserError(f"synthetic people have no joint {joint!r}; they have: {', '.join(sorted(POINT_INDEX))}")
        found.append(point)
    return np.array(found, dtype=np.intp)


def _labels(classes: ClassSet | None) -> tuple[int, int]:
    if classes is None:
        return 0, 1
    for name in _PERSON_CLASSES:
        if name in classes.classes:
            return classes.ignore, classes.classes.index(name)
    raise UserError(f"class set {classes.name} has none of the classes {', '.join(_PERSON_CLASSES)}")


def _stances(
    rng: np.random.Generator, size: tuple[int, int], horizon: float, *, portrait: bool
) -> list[tuple[int, Stance]]:
    """Returns (number, stance) of all people, the smallest (farthest) first; number 0 is the main person."""
    height, width = size
    light = rng.normal([0, -1.2], 1)
    light = light / max(0.3, float(np.hypot(*light)))
    shares = (0.55, 0.8, 0.94) if portrait else (0.3, 0.63, 0.88)
    others = (0, 1, 2, 4)[bisect(shares, rng.random())]
    people = []
    for number in range(1 + others):
        main = portrait and number == 0
        tall = height * (rng.uniform(0.5, 0.85) if main else float(np.exp(rng.uniform(np.log(0.14), np.log(1.1)))))
        spot = rng.normal(0.5, 0.05, 2) if main else rng.uniform([0.0, 0.2], [1.0, 0.8])
        centre = (float(spot[0] * width), float(spot[1] * height))
        ground = None
        if not main and rng.random() < 0.6:
            ground = min(1.2 * height, float(max(horizon, 0.3 * height) + 0.9 * tall * rng.uniform(0.4, 1.1)))
        distance = float(np.exp(rng.uniform(np.log(2.6), np.log(12))))
        stance = Stance(float(tall), centre, distance, (float(light[0]), float(light[1])), ground=ground)
        people.append((number, stance))
    return sorted(people, key=lambda item: item[1].height + (1e6 if portrait and item[0] == 0 else 0))


def _label(
    figure: Figure, points: NDArray[np.intp], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    height, width = size
    at = figure.points[points]
    inside = (at >= 0).all(axis=1) & (at[:, 0] <= width - 1) & (at[:, 1] <= height - 1)
    table = np.concatenate([at, np.where(figure.seen[points], 2, 1)[:, None]], axis=1) * inside[:, None]
    reach = np.concatenate([figure.box.reshape(2, 2), at[inside]])
    low, high = reach.min(axis=0), reach.max(axis=0)
    box = np.clip([*low, *high], 0, [width, height, width, height])
    return table.astype(np.float32), box.astype(np.float32)


def _hide(tables: list[NDArray[np.float32]], mask: Picture) -> None:
    """Turns joints under the mask from seen to hidden."""
    for table in tables:
        x, y = np.rint(table[:, :2]).astype(int).T
        table[(table[:, 2] == 2) & (mask[y, x] > 0), 2] = 1


def _occlude(
    picture: Picture, class_map: Picture, rng: np.random.Generator, tables: list[NDArray[np.float32]], background: int
) -> None:
    """Puts one to three things in front."""
    height, width = class_map.shape
    mask = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        draw_thing(picture, mask, rng, rng.uniform(0, 1, 2) * [width, height], float(height * rng.uniform(0.03, 0.18)))
    class_map[mask > 0] = background
    _hide(tables, mask)
