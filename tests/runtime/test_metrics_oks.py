"""COCO AP against pycocotools, on random people and on COCO's own annotations."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenas_runtime.errors import UserError
from scalenas_runtime.metrics import CocoOks, interval, oks_nms
from scalenas_runtime.metrics.oks import Truth
from scalenas_runtime.readers import read_keypoints
from scalenas_runtime.tasks.sets import COCO_17

DATA = os.environ.get("SCALENAS_DATA")


def theirs(people: list[dict[str, Any]], detections: list[dict[str, Any]], pictures: list[int]) -> list[float]:
    """Returns pycocotools' ten figures."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": number} for number in pictures],
            "annotations": people,
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_17.joints)}],
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(detections), "keypoints")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats]


def random_set(seed: int, *, count: int = 12) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns labelled and predicted people: crowds, no joints, duplicates, equal scores, many a picture."""
    rng = np.random.default_rng(seed)
    people: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for picture in range(1, count + 1):
        for _ in range(rng.integers(0, 6)):
            wide, high = np.exp(rng.uniform(np.log(12), np.log(220), 2))
            x, y = rng.uniform(0, 400, 2)
            joints = np.concatenate(
                [rng.uniform([x, y], [x + wide, y + high], (17, 2)), rng.integers(0, 3, (17, 1))], 1
            )
            kind = rng.random()
            if kind < 0.12:
                joints[:] = 0
            joints[joints[:, 2] == 0] = 0
            person = {
                "id": len(people) + 1,
                "image_id": picture,
                "category_id": 1,
                "bbox": [x, y, wide, high],
                "area": wide * high * rng.uniform(0.3, 0.9),
                "iscrowd": int(0.06 < kind < 0.2),
                "keypoints": joints.ravel().tolist(),
                "num_keypoints": int((joints[:, 2] > 0).sum()),
            }
            people.append(person)
            for _ in range(rng.integers(0, 4)):
                spread = np.sqrt(person["area"]) * rng.choice([0.0, 0.02, 0.06, 0.15])
                found = joints[:, :2] + rng.normal(0, 1, (17, 2)) * spread
                detections.append(_detection(picture, found, rng))
        for _ in range(rng.integers(0, 30) if picture % 5 == 0 else rng.integers(0, 3)):
            detections.append(_detection(picture, rng.uniform(0, 500, (17, 2)), rng))
    rng.shuffle(detections)
    return people, detections


def _detection(picture: int, found: np.ndarray[Any, Any], rng: np.random.Generator) -> dict[str, Any]:
    points = np.concatenate([found, np.ones((17, 1))], axis=1)
    score = float(rng.choice([0.3, 0.5, 0.5, 0.9, rng.random()]))
    return {"image_id": picture, "category_id": 1, "keypoints": points.ravel().tolist(), "score": score}


def ours(people: list[dict[str, Any]], detections: list[dict[str, Any]], pictures: list[int]) -> CocoOks:
    metric = CocoOks(COCO_17.sigmas)
    # Any order of pictures must do.
    for picture in reversed(pictures):
        mine = [person for person in people if person["image_id"] == picture]
        found = [detection for detection in detections if detection["image_id"] == picture]
        corners = np.array([person["bbox"] for person in mine], float).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        truth = Truth(
            np.array([person["keypoints"] for person in mine], float).reshape(-1, 17, 3),
            corners,
            np.array([person["area"] for person in mine], float),
            np.array([person["iscrowd"] for person in mine], bool),
        )
        keypoints = np.array([each["keypoints"] for each in found], float).reshape(-1, 17, 3)[:, :, :2]
        metric.update(picture, keypoints, [each["score"] for each in found], truth)
    return metric


@pytest.mark.parametrize("seed", range(12))
def test_random_people_score_as_in_pycocotools(seed: int) -> None:
    people, detections = random_set(seed)
    pictures = list(range(1, 13))
    expected = theirs(people, detections, pictures)
    found = astuple(ours(people, detections, pictures).result())[:10]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert 0.05 < expected[0] < 1


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="SCALENAS_DATA names no folder of real pictures")
@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])
def test_coco_annotations_score_as_in_pycocotools(spread: float) -> None:
    import json

    path = Path(str(DATA)) / "coco_mini" / "person_keypoints_val2017.json"
    data = read_keypoints(path, path.parent / "val")
    rng = np.random.default_rng(0)
    metric = CocoOks(COCO_17.sigmas)
    dump: list[dict[str, Any]] = []
    for picture in data:
        chosen = picture.labelled
        reach = np.sqrt(picture.areas[chosen])[:, None, None] * spread
        found = picture.joints[chosen][:, :, :2] + rng.normal(0, 1, (int(chosen.sum()), 17, 2)) * reach
        scores = rng.choice([0.5, 0.7, 0.9], int(chosen.sum()))
        truth = Truth(picture.joints.astype(float), picture.boxes.astype(float), picture.areas, picture.crowd)
        metric.update(picture.id, found, scores, truth)
        points = np.concatenate([found, np.ones((*found.shape[:2], 1))], axis=2).reshape(len(found), -1)
        dump += [
            {"image_id": picture.id, "category_id": 1, "keypoints": row, "score": float(score)}
            for row, score in zip(points.tolist(), scores, strict=True)
        ]
    value = json.loads(path.read_text())
    expected = theirs(value["annotations"], dump, [image["id"] for image in value["images"]])
    np.testing.assert_allclose(astuple(metric.result())[:10], expected, atol=1e-6)
    if spread == 0:
        assert metric.value() == pytest.approx(1)


def test_nobody_to_find_is_minus_one_as_in_coco() -> None:
    metric = CocoOks(COCO_17.sigmas)
    nobody = Truth(np.zeros((0, 17, 3)), np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
    metric.update(1, np.zeros((1, 17, 2)), [0.5], nobody)
    assert metric.result().ap == -1
    assert np.isnan(metric.value())
    assert interval(metric) is None


def test_pictures_can_be_drawn_anew() -> None:
    people, detections = random_set(3)
    metric = ours(people, detections, list(range(1, 13)))
    doubled = metric.value(np.full(12, 2))
    assert doubled == pytest.approx(metric.value(), abs=0.02)
    bounds = interval(metric, rounds=50)
    assert bounds is not None
    assert bounds[0] < metric.value() < bounds[1]
    assert bounds == interval(metric, rounds=50)


def test_nms_drops_the_weaker_of_two_alike() -> None:
    rng = np.random.default_rng(0)
    person = rng.uniform(0, 100, (17, 2))
    people = np.stack([person, person + 0.5, person + 60, rng.uniform(0, 100, (17, 2))])
    areas = np.full(4, 1e4)
    assert oks_nms(people, np.array([0.5, 0.9, 0.3, 0.4]), areas, COCO_17.sigmas) == [1, 3, 2]
    assert oks_nms(people[:0], np.zeros(0), areas[:0], COCO_17.sigmas) == []
    every = oks_nms(people, np.array([0.5, 0.9, 0.3, 0.4]), areas, COCO_17.sigmas, threshold=1.0)
    assert sorted(every) == [0, 1, 2, 3]


def test_oks_without_sigmas_or_with_other_shapes_is_refused() -> None:
    with pytest.raises(UserError, match="OKS needs a sigma for each joint"):
        CocoOks([])
    nobody = Truth(np.zeros((0, 17, 3)), np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
    with pytest.raises(ValueError, match=r"OKS takes \(M, 17, 2\)"):
        CocoOks(COCO_17.sigmas).update(1, np.zeros((1, 14, 2)), [0.5], nobody)
