"""Skeletons are drawn where the joints are, in side colours, in a size that follows the person's."""

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.draw import LEFT, MIDDLE, RIGHT, draw_pose, line_thickness, side_colour
from scalenas_runtime.results import PoseResult, no_persons
from scalenas_runtime.tasks import PoseRecipe

RECIPE = PoseRecipe(height=64, width=64, joints=("nose", "left_hand", "right_hand"), edges=((0, 1), (0, 2)))
GREY = np.full((200, 300, 3), 128, np.uint8)
BOX = (50, 20, 250, 180)


def person(
    points: list[list[float]], scores: list[float], *, ids: NDArray[np.int64] | None = None, box: tuple[int, ...] = BOX
) -> PoseResult:
    return PoseResult(
        np.array([points], np.float32),
        np.array([scores], np.float32),
        np.array([box], np.float32),
        np.ones(1, np.float32),
        RECIPE,
        ids,
    )


POINTS = [[150.0, 50.0], [220.0, 150.0], [80.0, 150.0]]


def test_limbs_and_joints_have_their_sides_colours() -> None:
    overlay = draw_pose(GREY, person(POINTS, [0.9, 0.9, 0.9]), boxes=False)
    assert tuple(overlay[50, 150].tolist()) == MIDDLE
    assert tuple(overlay[150, 220].tolist()) == LEFT
    assert tuple(overlay[150, 80].tolist()) == RIGHT
    assert tuple(overlay[100, 185].tolist()) == LEFT
    assert tuple(overlay[100, 115].tolist()) == RIGHT
    assert (GREY == 128).all()


def test_joints_below_the_threshold_are_not_drawn() -> None:
    overlay = draw_pose(GREY, person(POINTS, [0.9, 0.9, 0.2]), boxes=False)
    assert (overlay[:, :140] == 128).all()
    assert (draw_pose(GREY, person(POINTS, [0.1, 0.1, 0.1]), boxes=False) == 128).all()


def test_boxes_ids_and_scores_are_drawn_on_demand() -> None:
    one = person(POINTS, [0.9, 0.9, 0.9], ids=np.array([3]))
    bare = draw_pose(GREY, one, boxes=False, ids=False)
    variants = [
        draw_pose(GREY, one, ids=False),
        draw_pose(GREY, one, boxes=False),
        draw_pose(GREY, one, boxes=False, ids=False, show_scores=True),
    ]
    for overlay in variants:
        assert (overlay != bare).any()
    assert (variants[0][20, 60:240] != 128).any()
    other = draw_pose(GREY, person(POINTS, [0.9, 0.9, 0.9], ids=np.array([4])), boxes=False)
    assert (other != variants[1]).any()


@pytest.mark.parametrize(
    ("name", "colour"),
    [("left_eye", LEFT), ("right-hip", RIGHT), ("R_wrist", RIGHT), ("nose", MIDDLE), ("upright", MIDDLE)],
)
def test_the_side_comes_from_the_name(name: str, colour: tuple[int, int, int]) -> None:
    assert side_colour(name) == colour


def test_thickness_follows_the_visible_person() -> None:
    boxes = [(0, 0, 20, 40), (0, 0, 100, 300), (0, 0, 600, 1000), (-5000, -5000, 9000, 9000)]
    sizes = [line_thickness(np.array(box, np.float32), (1000, 1000)) for box in boxes]
    assert sizes == [1, 3, 11, 11]


def test_far_away_joints_and_labels_at_the_edge_do_no_harm() -> None:
    far = person([[1e9, -1e9], [150, 50], [float("nan"), 0]], [0.9, 0.9, 0.9], ids=np.array([12]), box=(-50, -9, 2, 3))
    assert draw_pose(GREY, far, show_scores=True).shape == GREY.shape
    tiny = np.zeros((1, 1, 3), np.uint8)
    assert draw_pose(tiny, far, show_scores=True).shape == (1, 1, 3)


def test_an_empty_result_leaves_the_picture() -> None:
    overlay = no_persons(RECIPE).draw(GREY)
    np.testing.assert_array_equal(overlay, GREY)
    assert overlay is not GREY
