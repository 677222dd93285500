"""The tracker keeps ids, needs its detector only now and then, drops who is lost, and smooths as the paper says."""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.boxes import Detections
from scalenas_runtime.one_euro import OneEuroFilter
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.results import PoseResult
from scalenas_runtime.tracking import PoseTracker, TrackerOptions
from tests.runtime.dots import dot_picture, dot_recipe, dot_session

SIZE = (180, 320)
SHAPE = np.array([[-25.0, 20], [25, 20], [0, -25]])
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    return PoseEstimator(dot_session(tmp_path_factory.mktemp("dots")), dot_recipe())


def persons(*centres: tuple[float, float], size: tuple[int, int] = SIZE) -> Picture:
    places = np.array([SHAPE + centre for centre in centres]).reshape(-1, 3, 2)
    return dot_picture(places, size=size, sigma=5)


class Boxes:
    """A detector that knows where the persons are, and counts how often it is asked."""

    def __init__(self) -> None:
        self.centres: list[tuple[float, float]] = []
        self.calls = 0

    def __call__(self, picture: Picture) -> Detections:
        self.calls += 1
        boxes = [[x - 38, y - 38, x + 38, y + 33] for x, y in self.centres]
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32))


def walk(tracker: PoseTracker, boxes: Boxes, paths: list[list[tuple[float, float]]]) -> list[PoseResult]:
    results = []
    for centres in paths:
        boxes.centres = centres
        results.append(tracker(persons(*centres)))
    return results


def ids(result: PoseResult) -> list[int]:
    assert result.ids is not None
    return [int(number) for number in result.ids]


def test_ids_stay_while_people_walk_and_the_detector_rests(estimator: PoseEstimator) -> None:
    boxes = Boxes()
    tracker = PoseTracker(estimator, boxes, options=TrackerOptions(every=5, smooth=False))
    path = [[(60 + 3.0 * step, 90.0), (250 - 2.0 * step, 80.0)] for step in range(12)]
    for step, result in enumerate(walk(tracker, boxes, path)):
        assert ids(result) == [1, 2]
        wanted = np.array([SHAPE + centre for centre in path[step]])
        np.testing.assert_allclose(result.keypoints, wanted, atol=1)
    assert boxes.calls == 3


def test_a_newcomer_gets_the_next_id_when_the_detector_looks(estimator: PoseEstimator) -> None:
    boxes = Boxes()
    tracker = PoseTracker(estimator, boxes, options=TrackerOptions(every=4))
    results = walk(tracker, boxes, [[(60.0, 90.0)]] * 2 + [[(60.0, 90.0), (250.0, 90.0)]] * 4)
    assert [ids(result) for result in results] == [[1]] * 4 + [[1, 2]] * 2


def test_who_is_lost_is_dropped_and_comes_back_as_somebody_new(estimator: PoseEstimator) -> None:
    boxes = Boxes()
    tracker = PoseTracker(estimator, boxes, options=TrackerOptions(every=3, patience=4))
    here, gone = [(60.0, 90.0), (250.0, 90.0)], [(60.0, 90.0)]
    results = walk(tracker, boxes, [here] * 3 + [gone] * 6 + [here] * 3)
    assert [ids(result) for result in results] == [[1, 2]] * 3 + [[1]] * 6 + [[1, 3]] * 3


def test_a_short_gap_keeps_the_id(estimator: PoseEstimator) -> None:
    boxes = Boxes()
    tracker = PoseTracker(estimator, boxes, options=TrackerOptions(every=3, patience=4))
    here, gone = [(60.0, 90.0), (250.0, 90.0)], [(60.0, 90.0)]
    results = walk(tracker, boxes, [here] * 3 + [gone] * 2 + [here] * 3)
    assert [ids(result) for result in results] == [[1, 2]] * 3 + [[1]] * 2 + [[1, 2]] * 3


def test_two_boxes_on_one_person_become_one(estimator: PoseEstimator) -> None:
    def double(_: Picture) -> Detections:
        boxes = np.array([[22, 52, 98, 123], [40, 62, 98, 123]], np.float32)
        return Detections(boxes, np.ones(2, np.float32))

    tracker = PoseTracker(estimator, double)
    results = [tracker(persons((60, 90))) for _ in range(3)]
    assert [ids(result) for result in results] == [[1], [1], [1]]


def test_without_a_detector_the_whole_picture_is_the_first_box(estimator: PoseEstimator) -> None:
    tracker = PoseTracker(estimator, options=TrackerOptions(smooth=False))
    results = [tracker(persons((70 + 2.0 * step, 60.0), size=(120, 160))) for step in range(4)]
    assert [ids(result) for result in results] == [[1]] * 4
    np.testing.assert_array_equal(results[0].boxes, [[0, 0, 160, 120]])
    assert (results[1].boxes[0, 2:] - results[1].boxes[0, :2]).max() < 90
    np.testing.assert_allclose(results[3].keypoints[0], SHAPE + np.array([76, 60]), atol=1)


def test_an_empty_scene_gives_empty_results_with_ids(estimator: PoseEstimator) -> None:
    for detector in (None, Boxes()):
        result = PoseTracker(estimator, detector)(np.zeros((60, 80, 3), np.uint8))
        assert ids(result) == []
        assert result.keypoints.shape == (0, 3, 2)


def test_the_same_frames_give_the_same_results(estimator: PoseEstimator) -> None:
    rng = np.random.default_rng(0)
    path = [[(60 + 3.0 * step + rng.normal(), 90.0), (250 - 2.0 * step, 80.0)] for step in range(8)]
    boxes = Boxes()
    tracker = PoseTracker(estimator, boxes)
    first = walk(tracker, boxes, path)
    tracker.reset()
    for one, other in zip(first, walk(tracker, boxes, path), strict=True):
        assert ids(one) == ids(other)
        np.testing.assert_array_equal(one.keypoints, other.keypoints)


def test_smoothing_calms_a_shaking_person(estimator: PoseEstimator) -> None:
    rng = np.random.default_rng(1)
    path = [[(150 + rng.normal(0, 1.5), 90 + rng.normal(0, 1.5))] for _ in range(30)]
    spread = []
    for smooth in (False, True):
        boxes = Boxes()
        tracker = PoseTracker(estimator, boxes, options=TrackerOptions(smooth=smooth))
        points = np.array([result.keypoints[0] for result in walk(tracker, boxes, path)])
        spread.append(np.diff(points[5:], axis=0).std())
    assert spread[1] < 0.5 * spread[0]


def test_a_stream_carries_frames_and_ids(estimator: PoseEstimator, tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), persons((70 + 3.0 * index, 60), size=(120, 160)))
    results = list(PoseTracker(estimator).stream(tmp_path))
    assert [(result.frame.name, ids(result)) for result in results if result.frame] == [
        ("0.png", [1]),
        ("1.png", [1]),
        ("2.png", [1]),
    ]


def test_time_must_grow(estimator: PoseEstimator) -> None:
    tracker = PoseTracker(estimator)
    tracker(persons((150, 90)), 1.0)
    with pytest.raises(ValueError, match=r"time must grow from frame to frame, got 1.0 after 1.0"):
        tracker(persons((150, 90)), 1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"match_iou": 0}, "match_iou must be in 0..1"),
        ({"rate": 0}, "rate must be positive"),
    ],
)
def test_options_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrackerOptions(**fields)


class ScalarOneEuro:
    """The filter as the paper's appendix writes it, for one number."""

    def __init__(self, rate: float, mincutoff: float, beta: float, dcutoff: float) -> None:
        self.rate, self.mincutoff, self.beta, self.dcutoff = rate, mincutoff, beta, dcutoff
        self.hat: float | None = None
        self.dhat = 0.0
        self.last = 0.0

    def alpha(self, cutoff: float) -> float:
        period, tau = 1.0 / self.rate, 1.0 / (2 * math.pi * cutoff)
        return 1.0 / (1.0 + tau / period)

    def filter(self, x: float, passed: float) -> float:
        if self.hat is None:
            self.hat = x
            return x
        self.rate = 1.0 / passed
        dx = (x - self.hat) * self.rate
        a = self.alpha(self.dcutoff)
        self.dhat = a * dx + (1 - a) * self.dhat
        a = self.alpha(self.mincutoff + self.beta * abs(self.dhat))
        self.hat = a * x + (1 - a) * self.hat
        return self.hat


def test_the_filter_is_the_papers() -> None:
    rng = np.random.default_rng(2)
    passed = rng.uniform(0.01, 0.1, 50)
    values = np.cumsum(rng.normal(0, 1, (50, 3, 2)), axis=0)
    smoother = OneEuroFilter(min_cutoff=0.7, beta=0.2, speed_cutoff=1.3)
    scalars = {place: ScalarOneEuro(30, 0.7, 0.2, 1.3) for place in np.ndindex(3, 2)}
    for value, time, step in zip(values, np.cumsum(passed), passed, strict=True):
        smooth = smoother(value, float(time))
        for place, scalar in scalars.items():
            assert smooth[place] == pytest.approx(scalar.filter(float(value[place]), float(step)), rel=1e-9)


def test_an_unknown_value_passes_through_and_starts_afresh() -> None:
    smoother = OneEuroFilter(min_cutoff=0.1)
    known, hidden = np.array([True, True]), np.array([True, False])
    smoother(np.array([0.0, 0.0]), 0.0, known=known)
    assert smoother(np.array([1.0, 50.0]), 0.1, known=hidden)[1] == 50
    third = smoother(np.array([1.0, 9.0]), 0.2, known=known)
    assert third[1] == 9
    assert 0 < third[0] < 0.5


def test_the_filter_refuses_time_that_stands_and_bad_constants() -> None:
    smoother = OneEuroFilter()
    smoother(np.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"time must grow, got 1.0 after 1.0"):
        smoother(np.zeros(2), 1.0)
    with pytest.raises(ValueError, match="cut-offs must be positive and beta not negative"):
        OneEuroFilter(min_cutoff=0)
