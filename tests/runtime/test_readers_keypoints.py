"""COCO keypoint files: what comes out, and one clear line for each way a file can be wrong."""

from __future__ import annotations

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from scalenas_runtime.errors import UserError
from scalenas_runtime.readers import read_detections, read_keypoints, synthetic_keypoints
from scalenas_runtime.tasks.sets import COCO_17, LSPET_14

DATA = os.environ.get("SCALENAS_DATA")
VALUE: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.png", "width": 40, "height": 30},
        {"id": 3, "file_name": "a.png", "width": 20, "height": 10},
        {"id": 9, "file_name": "c.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 10, 20], "keypoints": [5, 6, 2, 0, 0, 0]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [0] * 6, "area": 50},
        {"id": 3, "image_id": 3, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1, "segmentation": {"counts": []}},
        {"id": 4, "image_id": 3, "category_id": 2, "bbox": [0, 0, 5, 5]},
    ],
    "categories": [
        {"id": 2, "name": "ball"},
        {"id": 1, "name": "person", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in (("a", (10, 20)), ("b", (30, 40)), ("c", (8, 8))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((*size, 3), 90, np.uint8))
    (tmp_path / "people.json").write_text(json.dumps(VALUE))
    return tmp_path


def test_pictures_come_by_id_with_their_people(folder: Path) -> None:
    data = read_keypoints(folder / "people.json")
    assert (data.joints, data.edges, len(data)) == (("nose", "tail"), ((0, 1),), 3)
    first, second, third = data
    assert [first.id, second.id, third.id] == [3, 7, 9]
    np.testing.assert_array_equal(second.boxes, [[1, 2, 11, 22], [0, 0, 9, 9]])
    np.testing.assert_array_equal(second.joints[0], [[5, 6, 2], [0, 0, 0]])
    np.testing.assert_array_equal(second.areas, [200, 50])
    np.testing.assert_array_equal(second.labelled, [True, False])
    np.testing.assert_array_equal(first.crowd, [True])
    assert not first.labelled.any()
    assert third.joints.shape == (0, 2, 3)
    assert second.read().shape == (30, 40, 3)
    assert data.counts == {
        "pictures": 3,
        "people": 3,
        "crowds": 1,
        "people_without_joints": 1,
        "pictures_without_people": 1,
        "missing_pictures": 0,
    }
    assert [picture.id for picture in data] == [3, 7, 9]


@pytest.mark.parametrize(
    ("skeleton", "edges"), [([[1, 2]], ((0, 1),)), ([[0, 1]], ((0, 1),)), ([[2, 1], [1, 3], [-1, 2]], ((1, 0),))]
)
def test_skeletons_count_from_one_or_from_zero_and_keep_what_names_joints(
    folder: Path, skeleton: list[list[int]], edges: tuple[tuple[int, int], ...]
) -> None:
    value = copy.deepcopy(VALUE)
    value["categories"][1]["skeleton"] = skeleton
    (folder / "people.json").write_text(json.dumps(value))
    assert read_keypoints(folder / "people.json").edges == edges


def test_a_missing_picture_is_named_or_skipped_and_counted(folder: Path) -> None:
    (folder / "b.png").unlink()
    with pytest.raises(UserError, match=r"its picture b.png is not in .*; name the folder of the pictures"):
        read_keypoints(folder / "people.json")
    data = read_keypoints(folder / "people.json", missing="skip")
    assert [picture.id for picture in data] == [3, 9]
    assert data.counts["missing_pictures"] == 1
    with pytest.raises(UserError, match=r"its picture a.png is not in .*and 2 more"):
        read_keypoints(folder / "people.json", folder / "elsewhere")


def broken(change: str) -> object:
    value = copy.deepcopy(VALUE)
    person = value["annotations"][0]
    match change:
        case "short":
            person["keypoints"] = [1, 2, 2]
        case "stranger":
            person["image_id"] = 100
        case "box":
            person["bbox"] = [1, 2, 3]
        case "no list":
            value["images"] = None
        case "boxes only":
            value["categories"] = [{"id": 1, "name": "person"}]
        case "list":
            return value["annotations"]
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("short", r"annotation 1 has 3 numbers in `keypoints`, 6 fit its 2 joints"),
        ("stranger", r"annotation 1 belongs to picture 100, which is not in `images`"),
        ("box", r"entry 0 of `annotations`: .*bbox"),
        ("no list", r"`images` must be a list, got NoneType"),
        ("boxes only", r"no category has `keypoints`"),
        ("list", r"`images` must be a list"),
    ],
)
def test_a_file_that_does_not_fit_says_where(folder: Path, change: str, message: str) -> None:
    (folder / "people.json").write_text(json.dumps(broken(change)))
    with pytest.raises(UserError, match=message):
        read_keypoints(folder / "people.json")


def test_a_file_that_is_no_json_or_absent_says_so(folder: Path) -> None:
    (folder / "people.json").write_text("{")
    with pytest.raises(UserError, match=r"people.json is not JSON"):
        read_keypoints(folder / "people.json")
    with pytest.raises(UserError, match=r"nothing.json cannot be read: No such file"):
        read_keypoints(folder / "nothing.json")


def test_a_picture_of_another_size_or_damaged_is_refused_when_read(folder: Path) -> None:
    cv2.imwrite(str(folder / "b.png"), np.zeros((31, 40, 3), np.uint8))
    (folder / "a.png").write_bytes(b"no picture")
    first, second, _ = read_keypoints(folder / "people.json")
    with pytest.raises(UserError, match=r"b.png is 40 x 31 pixels, its annotations are for 40 x 30"):
        second.read()
    with pytest.raises(UserError, match=r"a.png"):
        first.read()


def test_detections_by_picture(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(
        json.dumps(
            [
                {"image_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 1},
                {"image_id": 5, "bbox": [0, 0, 3, 4], "score": 0.9},
                {"image_id": 6, "bbox": [0, 0, 3, 4], "category_id": 17},
            ]
        )
    )
    found = read_detections(path)
    assert set(found) == {5}
    np.testing.assert_array_equal(found[5].boxes, [[1, 2, 4, 6], [0, 0, 3, 4]])
    np.testing.assert_allclose(found[5].scores, [0.5, 0.9])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([{"image_id": 5, "bbox": [1, 2, 0, 4]}], r"entry 0: bbox \[1, 2, 0, 4\] has no area"),
        ([{"image_id": "a", "bbox": [1, 2, 3, 4]}], "entry 0: image_id must be a whole number, got 'a'"),
        ([{"image_id": 5, "bbox": [1, 2, 3, 4], "score": math.nan}], "entry 0: score must be a finite number, got nan"),
        ({"annotations": []}, "must hold a list of detections"),
    ],
    ids=["no area", "text as id", "NaN as score", "no list"],
)
def test_detections_that_cannot_be_used_are_named(document: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=message):
        read_detections(path)


def test_synthetic_scenes_are_a_data_set() -> None:
    data = synthetic_keypoints(LSPET_14, seed=2, count=3, size=(160, 128))
    pictures = list(data)
    assert [picture.id for picture in pictures] == [1, 2, 3]
    for picture in pictures:
        assert picture.read().shape == (160, 128, 3)
        assert picture.joints.shape[1:] == (14, 3)
        assert picture.labelled[0]
        np.testing.assert_allclose(picture.areas, (picture.boxes[:, 2:] - picture.boxes[:, :2]).prod(axis=1), rtol=1e-6)


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="SCALENAS_DATA names no folder of real pictures")
@pytest.mark.parametrize(
    ("file", "pictures", "joints", "counts"),
    [
        ("lspet/person_keypoints_val.json", "lspet/val", LSPET_14.joints, (500, 500)),
        ("coco_mini/person_keypoints_val2017.json", "coco_mini/val", COCO_17.joints, (48, None)),
    ],
    ids=["lspet", "coco"],
)
def test_real_files(file: str, pictures: str, joints: tuple[str, ...], counts: tuple[int, int | None]) -> None:
    data = read_keypoints(Path(str(DATA)) / file, Path(str(DATA)) / pictures)
    assert data.joints == joints
    assert len(data) == counts[0]
    assert counts[1] in (None, data.counts["people"])
    for _, picture in zip(range(10), data, strict=False):
        height, width = picture.read().shape[:2]
        seen = picture.joints[picture.joints[:, :, 2] > 0]
        assert ((seen[:, :2] > -3) & (seen[:, :2] < [width + 3, height + 3])).all()


@pytest.mark.parametrize("area", [0, -1, None], ids=["zero", "negative", "null"])
def test_a_person_without_an_outline_has_the_area_of_the_box(area: float | None, folder: Path) -> None:
    value = copy.deepcopy(VALUE)
    value["annotations"][0]["area"] = area
    (folder / "people.json").write_text(json.dumps(value))
    _, second, _ = read_keypoints(folder / "people.json")
    np.testing.assert_array_equal(second.areas, [200, 50])
    np.testing.assert_array_equal(second.labelled, [True, False])
