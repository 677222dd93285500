"""The estimator finds the dots of a real tiny net: whole pictures, boxes, batches, flips, streams, bad input."""

import threading
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import psutil
import pytest

from scalenas_runtime.boxes import Detections
from scalenas_runtime.errors import UserError
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.session import Session, TensorSpec
from tests.resident import growth_per_call
from tests.runtime.dots import dot_picture, dot_recipe, dot_session

# Two persons well apart; their boxes hold the three dots each.
PLACES = np.array([[[60.3, 80.7], [120.2, 90.1], [90.6, 40.4]], [[300.8, 200.2], [350.4, 120.5], [320.9, 160.3]]])
BOXES = np.array([[30, 20, 150, 130], [280, 90, 380, 230]], np.float32)
PICTURE = dot_picture(PLACES, size=(260, 420))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return dot_session(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return dot_session(tmp_path_factory.mktemp("four"), 4)


def test_joints_are_found_in_their_boxes(one: Session) -> None:
    result = PoseEstimator(one, dot_recipe()).estimate(PICTURE, BOXES)
    np.testing.assert_allclose(result.keypoints, PLACES, atol=0.25)
    assert (result.scores > 0.7).all()
    np.testing.assert_array_equal(result.boxes, BOXES)
    np.testing.assert_array_equal(result.box_scores, [1, 1])


@pytest.mark.parametrize("decode", ["argmax", "quarter", "dark"])
def test_the_decode_method_is_the_recipes(one: Session, decode: Literal["argmax", "quarter", "dark"]) -> None:
    result = PoseEstimator(one, dot_recipe(decode=decode)).estimate(PICTURE, BOXES)
    # A heatmap pixel is 5.7 and 7.3 picture pixels in these boxes.
    limit = {"argmax": 0.5, "quarter": 0.3, "dark": 0.05}[decode] * 7.3
    np.testing.assert_allclose(result.keypoints, PLACES, atol=limit)


def test_without_boxes_the_whole_picture_is_one(one: Session) -> None:
    picture = PICTURE[:130, :160]
    result = PoseEstimator(one, dot_recipe())(picture)
    np.testing.assert_array_equal(result.boxes, [[0, 0, 160, 130]])
    np.testing.assert_allclose(result.keypoints[0], PLACES[0], atol=0.5)


def test_no_boxes_give_an_empty_result(one: Session) -> None:
    nothing: tuple[Any, ...] = ([], np.zeros((0, 4), np.float32))
    for boxes in nothing:
        result = PoseEstimator(one, dot_recipe()).estimate(PICTURE, boxes)
        assert len(result) == 0
        assert result.keypoints.shape == (0, 3, 2)
        assert result.to_json() == {"task": "pose", "persons": []}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 11])
@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_batches_give_what_single_crops_give(one: Session, four: Session, count: int, flip: bool) -> None:
    boxes = np.random.default_rng(count).uniform((0, 0, 200, 150), (60, 60, 260, 210), (count, 4)).astype(np.float32)
    recipe = dot_recipe(flip_test=flip)
    single = PoseEstimator(one, recipe).estimate(PICTURE, boxes)
    for sessions in (four, [one, four]):
        batched = PoseEstimator(sessions, recipe).estimate(PICTURE, boxes)
        np.testing.assert_allclose(batched.keypoints, single.keypoints, atol=1e-3)
        np.testing.assert_allclose(batched.scores, single.scores, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "plan"),
    [(1, [1]), (2, [1, 1]), (3, [4]), (4, [4]), (5, [4, 1]), (6, [4, 1, 1]), (7, [4, 4]), (8, [4, 4])],
)
def test_the_last_batch_is_padded_when_more_than_half_full(
    one: Session, four: Session, count: int, plan: list[int]
) -> None:
    estimator = PoseEstimator([four, one], dot_recipe())
    assert estimator.batches == (1, 4)
    assert estimator._plan(count) == plan
    assert PoseEstimator(four, dot_recipe())._plan(count) == [4] * -(-count // 4)


def test_the_flip_test_changes_nothing_on_a_mirror_proof_net(one: Session) -> None:
    # Channels stay channels in the mirror, so the joints have no pairs; the shifted copy is a quarter pixel off.
    plain = PoseEstimator(one, dot_recipe()).estimate(PICTURE, BOXES)
    flipped = PoseEstimator(one, dot_recipe(flip_test=True)).estimate(PICTURE, BOXES)
    difference = flipped.keypoints - plain.keypoints
    scale = np.array([7.33, 7.33])
    np.testing.assert_allclose(difference[..., 0] / scale[0], 0.125, atol=0.05)
    np.testing.assert_allclose(difference[..., 1], 0, atol=0.1)


def test_box_scores_enter_the_persons_scores(one: Session) -> None:
    result = PoseEstimator(one, dot_recipe()).estimate(PICTURE, BOXES, box_scores=[0.5, 0.25])
    np.testing.assert_allclose(result.person_scores, result.scores.mean(1) * [0.5, 0.25], rtol=1e-6)
    for wrong in ([0.5], [0.5, float("nan")]):
        with pytest.raises(UserError, match="box_scores must be 2 finite numbers"):
            PoseEstimator(one, dot_recipe()).estimate(PICTURE, BOXES, box_scores=wrong)


@pytest.mark.parametrize(
    ("box", "message"),
    [([0, 0, float("nan"), 4], "is not finite"), ([4, 4, 4, 9], "has no area"), ([500, 0, 600, 9], "lies outside")],
)
def test_bad_boxes_are_named(one: Session, box: list[float], message: str) -> None:
    with pytest.raises(UserError, match=rf"box 2 \[.*{message}"):
        PoseEstimator(one, dot_recipe()).estimate(PICTURE, [*BOXES.tolist(), box])


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((1, 900, 3), np.uint8),
        np.zeros((40, 30), np.uint8),
        np.zeros((40, 30, 4), np.uint16),
    ],
    ids=["1x1", "1x900", "grey", "16-bit alpha"],
)
def test_odd_pictures_go_through(one: Session, picture: Any) -> None:
    result = PoseEstimator(one, dot_recipe()).estimate(picture)
    assert len(result) == 1
    assert np.isfinite(result.keypoints).all()
    assert not result.found.any()


def test_a_floating_point_picture_is_refused(one: Session) -> None:
    with pytest.raises(UserError, match="uint8 or uint16, got float64"):
        PoseEstimator(one, dot_recipe()).estimate(np.zeros((40, 30, 3)))


def test_times_are_split(one: Session) -> None:
    result, timing = PoseEstimator(one, dot_recipe()).estimate_timed(PICTURE, BOXES)
    assert len(result) == 2
    assert min(timing.pre_ms, timing.infer_ms, timing.post_ms) > 0
    assert timing.total_ms == pytest.approx(timing.pre_ms + timing.infer_ms + timing.post_ms)


def test_a_stream_yields_results_with_their_frames(one: Session, tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"p{index}.png"), np.roll(PICTURE, 10 * index, axis=1))
    (tmp_path / "notes.txt").write_text("no picture")
    estimator = PoseEstimator(one, dot_recipe())
    whole = list(estimator.stream(tmp_path))
    assert [result.frame.name for result in whole if result.frame] == ["p0.png", "p1.png", "p2.png"]
    assert [len(result) for result in whole] == [1, 1, 1]
    found = list(estimator.stream(tmp_path, detector=lambda _: Detections(BOXES, np.array([0.9, 0.8], np.float32))))
    np.testing.assert_allclose(found[0].keypoints, PLACES, atol=0.25)
    np.testing.assert_array_equal(found[0].box_scores, np.array([0.9, 0.8], np.float32))
    assert found[0].draw().shape == PICTURE.shape


def test_several_threads_may_share_an_estimator(one: Session, four: Session) -> None:
    estimator = PoseEstimator([one, four], dot_recipe())
    wanted = estimator.estimate(PICTURE, BOXES)
    failures: list[str] = []

    def work() -> None:
        for _ in range(10):
            if not np.array_equal(estimator.estimate(PICTURE, BOXES).keypoints, wanted.keypoints):
                failures.append("another result")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_many_frames_leave_no_memory_and_no_threads(one: Session) -> None:
    estimator = PoseEstimator(one, dot_recipe(flip_test=True))
    process = psutil.Process()
    estimator.estimate(PICTURE, BOXES)
    threads = process.num_threads()
    assert growth_per_call(lambda: estimator.estimate(PICTURE, BOXES), calls=1_500, warm=200) < 5_000
    assert process.num_threads() <= threads


class Given(Session):
    """A session of any shapes, for the checks at birth."""

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        super().__init__(inputs, outputs)

    def _infer(self, feeds: Any, out: Any) -> None:
        for array in out.values():
            array.fill(np.nan)

    def _close(self) -> None:
        pass


IMAGE, MAPS = TensorSpec("image", "uint8", (1, 128, 96, 3)), TensorSpec("heatmaps", "float32", (1, 3, 32, 24))


def test_a_net_that_gives_nan_is_an_error() -> None:
    with pytest.raises(UserError, match="joint left_hand holds NaN"):
        PoseEstimator(Given((IMAGE,), (MAPS,)), dot_recipe()).estimate(PICTURE, BOXES)


@pytest.mark.parametrize(
    ("image", "maps", "message"),
    [
        (TensorSpec("image", "uint8", (1, 96, 128, 3)), MAPS, r"takes one input uint8 \(B, 128, 96, 3\)"),
        (TensorSpec("image", "float32", (1, 128, 96, 3)), MAPS, "takes one input uint8"),
        (IMAGE, TensorSpec("heatmaps", "float32", (1, 4, 32, 24)), r"one output heatmaps \(1, 3, 32, 24\)"),
    ],
    ids=["size", "dtype", "joints"],
)
def test_a_session_that_does_not_fit_the_recipe_is_refused(image: TensorSpec, maps: TensorSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PoseEstimator(Given((image,), (maps,)), dot_recipe())


def test_sessions_are_one_a_batch_size_and_at_least_one(one: Session) -> None:
    with pytest.raises(ValueError, match="two sessions of batch 1"):
        PoseEstimator([one, one], dot_recipe())
    with pytest.raises(ValueError, match="at least one session"):
        PoseEstimator([], dot_recipe())


def test_closing_closes_the_engines(tmp_path: Path) -> None:
    with PoseEstimator(dot_session(tmp_path), dot_recipe()) as estimator:
        estimator.estimate(PICTURE)
    with pytest.raises(ValueError, match="closed"):
        estimator.estimate(PICTURE)
