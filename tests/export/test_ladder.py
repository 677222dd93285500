"""The ladder's own rules: enough pictures, every slot of a batch, and failures that keep their reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_export.ladder import Ladder, golden_pictures, rung_line, session_outputs
from scalenas_runtime.errors import CheckFailed
from scalenas_runtime.parity import tolerance_of
from scalenas_runtime.session import TensorSpec
from scalenas_runtime.tasks import PoseRecipe

POSE = PoseRecipe(height=32, width=32, joints=("only",))
FP32 = tolerance_of("fp32")


def ladder(folder: Path, count: int = 4) -> Ladder:
    return Ladder(POSE, np.zeros((count, 32, 32, 3), np.uint8), lambda line: None, folder)


class Numbering:
    """A session of batch 3 that gives each slot the first value of its picture."""

    inputs = (TensorSpec("image", "uint8", (3, 32, 32, 3)),)
    outputs = (TensorSpec("first", "float32", (3,)),)

    def run(self, feeds: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
        return {"first": feeds["image"][:, 0, 0, 0].astype(np.float32)}


def test_a_batch_is_filled_with_pictures_and_gives_every_slot() -> None:
    given = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((4, 32, 32, 3), np.uint8)
    assert session_outputs(Numbering(), given).tolist() == [0, 1, 2, 3, 0, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("second", "count"), [(0.0, 112), (0.85, 160), (0.83, 112)], ids=["sure", "of two minds", "sure enough"]
)
def test_a_net_of_one_joint_gets_pictures_until_enough_joints_are_clear(second: float, count: int) -> None:
    heatmap = np.zeros((1, 8, 8), np.float32)
    heatmap[0, 2, 2], heatmap[0, 6, 6] = 0.9, second
    pictures, outputs = golden_pictures(POSE, lambda given: np.tile(heatmap, (len(given), 1, 1, 1)))
    assert len(pictures) == len(outputs) == count


def test_a_net_without_a_peak_gets_no_more_pictures() -> None:
    pictures, _ = golden_pictures(POSE, lambda given: np.full((len(given), 1, 8, 8), 0.1, np.float32))
    assert len(pictures) == 16


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "failures"), r"\[Errno 13\] Permission denied: 'failures'"),
        (KeyError(), "KeyError"),
    ],
    ids=["folder", "bug"],
)
def test_a_failure_that_cannot_be_located_keeps_its_reason(error: Exception, text: str, tmp_path: Path) -> None:
    def culprit(picture: int) -> str:
        raise error

    right = np.zeros((4, 1, 8, 8), np.float32)
    wrong = right + np.float32(1)
    with pytest.raises(CheckFailed, match=rf"engine: b does not agree with a: .* \(could not be located: {text}\)"):
        ladder(tmp_path).climb("engine", ("a", "b"), (right, wrong), tolerance=FP32, culprit=culprit)


def test_the_culprit_is_asked_about_a_picture_that_is_there(tmp_path: Path) -> None:
    right = np.zeros((6, 1, 8, 8), np.float32)
    wrong = right.copy()
    wrong[5] = 1
    with pytest.raises(CheckFailed, match=r"picture 1$"):
        ladder(tmp_path).climb(
            "engine", ("a", "b"), (right, wrong), tolerance=FP32, culprit=lambda picture: f"picture {picture}"
        )


def test_a_rung_of_few_joints_says_what_was_judged(tmp_path: Path) -> None:
    right = np.zeros((4, 1, 3), np.float32)
    rung = ladder(tmp_path).climb("end2end", ("a", "b"), (right, right), tolerance=FP32, stage="decoded")
    assert "ok, joints not informative: scores 0.00e+00" in rung_line(rung)
