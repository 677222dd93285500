"""`PoseResult`: checked at birth, indexed, filtered, written as JSON and in COCO's format."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from scalenas_runtime.errors import UserError
from scalenas_runtime.results import PoseResult, SegmentationResult, no_persons
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe

RECIPE = PoseRecipe(height=64, width=64, joints=("nose", "left_hand", "right_hand"))


def result(count: int = 3, *, ids: NDArray[np.int64] | None = None) -> PoseResult:
    rng = np.random.default_rng(0)
    return PoseResult(
        keypoints=rng.uniform(0, 100, (count, 3, 2)).astype(np.float32),
        scores=np.linspace(0.05, 0.9, count * 3, dtype=np.float32).reshape(count, 3),
        boxes=np.tile(np.array([[1, 2, 30, 40]], np.float32), (count, 1)),
        box_scores=np.linspace(1, 0.5, count, dtype=np.float32),
        recipe=RECIPE,
        ids=ids,
    )


def test_persons_are_chosen_by_number_slice_list_and_mask() -> None:
    three = result(ids=np.array([7, 8, 9]))
    assert len(three) == 3
    np.testing.assert_array_equal(three[1].keypoints, three.keypoints[1:2])
    np.testing.assert_array_equal(three[-1].boxes, three.boxes[2:])
    assert three[2].ids is not None
    chosen: tuple[Any, ...] = (slice(0, 2), [0, 1], np.array([True, True, False]))
    for choice in chosen:
        part = three[choice]
        assert len(part) == 2
        assert part.ids is not None
        assert part.ids.tolist() == [7, 8]
    assert [len(person) for person in three] == [1, 1, 1]
    with pytest.raises(IndexError, match="person 3 of 3"):
        three[3]


def test_a_persons_score_is_box_score_times_mean_of_found_joints() -> None:
    one = result(3)
    for index in range(3):
        above = [score for score in one.scores[index].tolist() if score > 0.2]
        expected = one.box_scores[index] * (sum(above) / len(above) if above else 0)
        assert one.person_scores[index] == pytest.approx(expected, rel=1e-6)
    assert len(one.filter(float(one.person_scores[1]))) == 2
    assert len(one.filter(0.99)) == 0


def test_nobody_found_scores_zero() -> None:
    low = PoseResult(
        np.zeros((1, 3, 2), np.float32),
        np.full((1, 3), 0.2, np.float32),
        np.ones((1, 4), np.float32),
        np.ones(1, np.float32),
        RECIPE,
    )
    assert low.person_scores.tolist() == [0]


def test_json_names_every_joint_and_is_json() -> None:
    document = json.loads(json.dumps(result(2, ids=np.array([4, 5])).to_json()))
    assert document["task"] == "pose"
    first = document["persons"][0]
    assert first["id"] == 4
    assert [point["name"] for point in first["keypoints"]] == list(RECIPE.joints)
    assert first["keypoints"][0]["x"] == pytest.approx(float(result(2).keypoints[0, 0, 0]), abs=1e-3)
    assert no_persons(RECIPE).to_json() == {"task": "pose", "persons": []}
    assert no_persons(RECIPE).to_coco(5) == []
    assert len(no_persons(RECIPE).filter(0.1)) == 0


def test_coco_results_are_read_by_cocos_own_tool() -> None:
    names = [f"joint{index}" for index in range(17)]
    recipe = PoseRecipe(height=64, width=64, joints=tuple(names))
    points = np.random.default_rng(1).uniform(10, 90, (2, 17, 2)).astype(np.float32)
    persons = PoseResult(
        points, np.full((2, 17), 0.8, np.float32), np.ones((2, 4), np.float32), np.ones(2, np.float32), recipe
    )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 5}],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
        "annotations": [
            {
                "id": index + 1,
                "image_id": 5,
                "category_id": 1,
                "iscrowd": 0,
                "area": 6400.0,
                "bbox": [10, 10, 80, 80],
                "num_keypoints": 17,
                "keypoints": np.concatenate([points[index], np.full((17, 1), 2)], 1).reshape(-1).tolist(),
            }
            for index in range(2)
        ],
    }
    truth.createIndex()
    entries = persons.to_coco(5)
    assert set(entries[0]) == {"image_id", "category_id", "keypoints", "score"}
    evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(entries))), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "keypoints",
            np.zeros((2, 4, 2), np.float32),
            r"keypoints must be float32 \(2, 3, 2\), got float32 \(2, 4, 2\)",
        ),
        ("scores", np.zeros((2, 3)), "scores must be float32 .*got float64"),
        ("box_scores", np.zeros(3, np.float32), r"box_scores must be float32 \(2,\)"),
        ("ids", np.zeros(2, np.int32), "ids must be int64"),
    ],
)
def test_other_shapes_and_dtypes_are_refused_at_birth(field: str, value: Any, message: str) -> None:
    good = result(2)
    fields = {name: getattr(good, name) for name in ("keypoints", "scores", "boxes", "box_scores", "recipe", "ids")}
    with pytest.raises(ValueError, match=message):
        PoseResult(**{**fields, field: value})


def test_drawing_needs_a_picture() -> None:
    with pytest.raises(UserError, match="draw needs the picture"):
        result().draw()


def test_class_shares_sum_to_one_and_go_into_json() -> None:
    recipe = SegmentationRecipe(height=32, width=32, classes=("road", "sky"), palette=((1, 2, 3), (4, 5, 6)))
    one = SegmentationResult(np.array([[0, 1], [1, 1]], np.uint8), recipe)
    assert one.shares() == {"road": 0.25, "sky": 0.75}
    assert json.loads(json.dumps(one.to_json()))["shares"] == {"road": 0.25, "sky": 0.75}
    with pytest.raises(ValueError, match=r"class_map must be uint8 \(H, W\), got int64"):
        SegmentationResult(np.zeros((2, 2), np.int64), recipe)
