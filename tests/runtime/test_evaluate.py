"""Evaluation: the truth as prediction is perfect, errors cost what they should, and everything left out is counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from scalenas_runtime.boxes import Detections
from scalenas_runtime.errors import UserError
from scalenas_runtime.evaluate import (
    PoseQuestion,
    classes_of,
    default_metric,
    evaluate_pose,
    evaluate_segmentation,
    joints_of,
)
from scalenas_runtime.geometry import check_boxes
from scalenas_runtime.pictures import Picture
from scalenas_runtime.readers import (
    KeypointData,
    KeypointPicture,
    LabelledPicture,
    PairData,
    synthetic_keypoints,
    synthetic_pairs,
)
from scalenas_runtime.results import PoseResult, SegmentationResult
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe
from scalenas_runtime.tasks.sets import COCO_17, LSPET_14, ClassSet, pose_recipe, segmentation_recipe

COCO = pose_recipe("coco-17", size=(128, 96))
LSPET = pose_recipe("lspet-14", size=(128, 96))
STREET = segmentation_recipe("camvid-11", size=(96, 128))


class Oracle:
    """Gives the labelled joints of the boxes it is asked about, moved right by `shift` pixels."""

    def __init__(self, data: KeypointData, recipe: PoseRecipe, shift: float = 0.0) -> None:
        order = [data.joints.index(joint) for joint in recipe.joints if joint in data.joints]
        self.recipe, self.shift = recipe, shift
        self.known = {
            tuple(box.tolist()): joints[order, :2]
            for picture in data
            for box, joints in zip(picture.boxes, picture.joints, strict=True)
        }

    def __call__(self, picture: Picture, boxes: ArrayLike, *, box_scores: ArrayLike) -> PoseResult:
        given = np.asarray(boxes, np.float32).reshape(-1, 4)
        keypoints = np.zeros((len(given), len(self.recipe.joints), 2), np.float32)
        for number, box in enumerate(given):
            keypoints[number] = self.known[tuple(box.tolist())] + np.array([self.shift, 0], np.float32)
        scores = np.ones(keypoints.shape[:2], np.float32)
        return PoseResult(keypoints, scores, given, np.asarray(box_scores, np.float32), self.recipe)


@pytest.fixture(scope="module")
def people() -> KeypointData:
    drawn = synthetic_keypoints(COCO_17, seed=4, count=8, size=(160, 144))
    pictures = list(drawn)
    return replace(drawn, pictures=lambda: iter(pictures))


@pytest.mark.parametrize("metric", ["pck", "oks"])
def test_the_truth_is_perfect(people: KeypointData, metric: str) -> None:
    question = PoseQuestion("pck" if metric == "pck" else "oks")
    done = evaluate_pose(Oracle(people, COCO), COCO, people, question=question)
    assert done.value == pytest.approx(1)
    assert done.counts["pictures_judged"] == 8
    assert done.counts["people_predicted"] == len(done.detections)
    assert done.interval == pytest.approx((1, 1))
    json.dumps(done.to_json(), allow_nan=False)


def test_a_large_shift_finds_nothing(people: KeypointData) -> None:
    oracle = Oracle(people, COCO, shift=500)
    for metric in (PoseQuestion("pck"), PoseQuestion("oks")):
        assert evaluate_pose(oracle, COCO, people, question=metric).value == 0


def test_a_shift_within_alpha_is_found(people: KeypointData) -> None:
    oracle = Oracle(people, COCO, shift=4)
    values = [
        evaluate_pose(oracle, COCO, people, question=PoseQuestion("pck", alpha)).value for alpha in (0.01, 0.2, 5.0)
    ]
    assert values[0] < values[1] < values[2] == 1


def test_joints_are_matched_by_name(people: KeypointData) -> None:
    data = synthetic_keypoints(LSPET_14, seed=4, count=4, size=(160, 144))
    order = tuple(reversed(LSPET.joints))
    recipe = PoseRecipe(height=128, width=96, joints=order)
    done = evaluate_pose(Oracle(data, recipe), recipe, data, question=PoseQuestion("pck"))
    assert done.value == 1
    assert done.counts["joints_not_in_data"] == 0
    fewer = evaluate_pose(_Still(LSPET), LSPET, people, question=PoseQuestion("pck"))
    assert fewer.counts["joints_not_in_data"] == 2
    stranger = PoseRecipe(height=128, width=96, joints=("tail",))
    with pytest.raises(UserError, match=r"labels none of the net's joints tail, but nose, left_eye"):
        evaluate_pose(_Still(stranger), stranger, people, question=PoseQuestion("pck"))


class _Still:
    """Says that every joint lies in the corner."""

    def __init__(self, recipe: PoseRecipe) -> None:
        self.recipe = recipe

    def __call__(self, picture: Picture, boxes: ArrayLike, *, box_scores: ArrayLike) -> PoseResult:
        given = np.asarray(boxes, np.float32).reshape(-1, 4)
        shape = (len(given), len(self.recipe.joints))
        points, scores = np.zeros((*shape, 2), np.float32), np.full(shape, 0.5, np.float32)
        return PoseResult(points, scores, given, np.asarray(box_scores, np.float32), self.recipe)


class _Careful(_Still):
    """Checks boxes as `PoseEstimator` does."""

    def __call__(self, picture: Picture, boxes: ArrayLike, *, box_scores: ArrayLike) -> PoseResult:
        return super().__call__(picture, check_boxes(boxes, *picture.shape[:2]), box_scores=box_scores)


def test_detected_boxes_are_judged_by_oks_alone_and_duplicates_go(people: KeypointData) -> None:
    found = {
        picture.id: Detections(np.repeat(picture.boxes, 2, axis=0), np.full(2 * len(picture.boxes), 0.9, np.float32))
        for picture in people
    }
    oracle = Oracle(people, COCO)
    done = evaluate_pose(oracle, COCO, people, question=PoseQuestion("oks", detections=found))
    assert done.value == pytest.approx(1, abs=0.02)
    assert done.counts["people_suppressed"] >= sum(len(picture.boxes) for picture in people)
    with pytest.raises(UserError, match="--metric pck compares labelled people one by one, so it needs --boxes gt"):
        evaluate_pose(oracle, COCO, people, question=PoseQuestion("pck", detections=found))


def test_crowds_and_people_without_box_are_left_out_and_counted(people: KeypointData) -> None:
    first = next(iter(people))
    joints = np.repeat(first.joints[:1], 3, axis=0)
    boxes = np.repeat(first.boxes[:1], 3, axis=0)
    boxes[1, 2:] = boxes[1, :2]
    odd = KeypointPicture(1, "odd", first.read, boxes, joints, np.full(3, 900.0), np.array([False, False, True]))
    data = replace(people, count=1, pictures=lambda: iter([odd]))
    done = evaluate_pose(Oracle(data, COCO), COCO, data, question=PoseQuestion("pck"))
    assert done.counts["people_predicted"] == 1
    assert done.counts["people_without_box"] == 1
    assert done.interval is None


def test_a_box_outside_its_picture_counts_as_none_and_an_error_names_the_picture(people: KeypointData) -> None:
    first = next(iter(people))
    joints, boxes = np.repeat(first.joints[:1], 2, axis=0), np.repeat(first.boxes[:1], 2, axis=0)
    boxes[1, [0, 2]] += 1000
    odd = KeypointPicture(1, "odd", first.read, boxes, joints, np.full(2, 900.0), np.zeros(2, np.bool_), (160, 144))
    data = replace(people, count=1, pictures=lambda: iter([odd]))
    done = evaluate_pose(_Careful(COCO), COCO, data, question=PoseQuestion("pck"))
    assert (done.counts["people_predicted"], done.counts["people_without_box"]) == (1, 1)
    # Without the size in the data set only the picture itself tells.
    unsized = replace(data, pictures=lambda: iter([replace(odd, size=None)]))
    with pytest.raises(UserError, match=r"^odd: box 1 \[.*\] lies outside the picture of 144 x 160"):
        evaluate_pose(_Careful(COCO), COCO, unsized, question=PoseQuestion("pck"))


def test_the_limit_and_the_progress_see_each_picture_once(people: KeypointData) -> None:
    seen = []

    def watch(pictures: Iterable[KeypointPicture]) -> Iterator[KeypointPicture]:
        for picture in pictures:
            seen.append(picture.id)
            yield picture

    done = evaluate_pose(Oracle(people, COCO), COCO, people, question=PoseQuestion(limit=3), progress=watch)
    assert seen == [1, 2, 3]
    assert done.counts["pictures_judged"] == 3


def test_class_maps_of_the_truth_are_perfect_and_shifted_ones_are_not() -> None:
    data = synthetic_pairs(classes_of(STREET), seed=1, count=4, size=(96, 128))
    truth = {pair.read().tobytes(): pair.read_labels() for pair in data}

    def segment(shift: int, picture: Picture) -> SegmentationResult:
        labels: NDArray[np.uint8] = truth[picture.tobytes()]
        return SegmentationResult(np.roll(np.where(labels == 11, 0, labels).astype(np.uint8), shift, axis=1), STREET)

    perfect = evaluate_segmentation(lambda picture: segment(0, picture), STREET, data)
    assert perfect.value == 1
    assert perfect.figures["pixel_accuracy"] == 1
    shifted = evaluate_segmentation(lambda picture: segment(6, picture), STREET, data)
    assert 0.1 < shifted.value < 0.9
    assert shifted.interval is not None
    assert shifted.interval[0] <= shifted.value <= shifted.interval[1]


def test_classes_are_matched_by_name_whatever_their_numbers() -> None:
    names = ("road", "sky", "car")
    theirs = ClassSet("theirs", names, ((1, 1, 1), (2, 2, 2), (3, 3, 3)), 9)
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 9], np.uint8), (8, 8))
    pair = LabelledPicture("one", lambda: np.zeros((8, 8, 3), np.uint8), lambda: labels)
    data = PairData("theirs", 1, {}, lambda: iter([pair]), theirs)
    for own in (("car", "sky", "road"), ("car", "road", "tree", "wall")):
        recipe = SegmentationRecipe(height=32, width=32, classes=own, palette=((0, 0, 0),) * len(own), ignore=200)
        right = np.array([own.index(name) if name in own else 0 for name in (*names, *["none"] * 7)], np.uint8)[labels]
        done = evaluate_segmentation(partial(_said, SegmentationResult(right, recipe)), recipe, data)
        assert done.value == 1
        ignored = int((labels == 9).sum() + (0 if "sky" in own else (labels == 1).sum()))
        assert done.counts["pixels_ignored"] == ignored
    recipe = SegmentationRecipe(height=32, width=32, classes=("red", "blue"), palette=((0, 0, 0), (1, 1, 1)))
    with pytest.raises(UserError, match="theirs has the classes road, sky, car, none of red, blue"):
        evaluate_segmentation(partial(_said, SegmentationResult(labels, recipe)), recipe, data)


def _said(result: SegmentationResult, picture: Picture) -> SegmentationResult:
    return result


def test_a_mask_of_another_size_is_refused() -> None:
    data = synthetic_pairs(classes_of(STREET), seed=1, count=1, size=(96, 128))
    (pair,) = data
    small = replace(pair, read_labels=lambda: np.zeros((4, 5), np.uint8))
    with pytest.raises(UserError, match=r"synthetic-1-0 is \(96, 128\) pixels, its mask \(4, 5\)"):
        evaluate_segmentation(
            lambda picture: SegmentationResult(np.zeros((96, 128), np.uint8), STREET),
            STREET,
            replace(data, pictures=lambda: iter([small])),
        )


def test_the_default_metric_follows_task_and_joints() -> None:
    assert default_metric(COCO) == "oks"
    assert default_metric(LSPET) == "pck"
    assert default_metric(STREET) == "miou"
    own = PoseRecipe(height=64, width=64, joints=("tail", "left_wrist"), sigmas=(0.1, 0.1))
    assert default_metric(own) == "oks"
    assert default_metric(PoseRecipe(height=64, width=64, joints=own.joints)) == "pck"


def test_a_metric_of_the_other_task_is_refused(people: KeypointData) -> None:
    with pytest.raises(UserError, match="metric miou is for segmentation; a pose bundle takes pck, pckh or oks"):
        evaluate_pose(_Still(COCO), COCO, people, question=PoseQuestion("miou"))


def test_recipes_without_sigmas_get_them_by_name() -> None:
    bare = PoseRecipe(height=128, width=96, joints=LSPET_14.joints)
    assert joints_of(bare).sigmas == LSPET_14.sigmas
    assert joints_of(LSPET).sigmas == LSPET.sigmas
