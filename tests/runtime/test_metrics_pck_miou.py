"""PCK and mIoU against loops that do what the definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.metrics import Confusion, Pck, interval
from scalenas_runtime.tasks.sets import COCO_17, LSPET_14, MPII_16

TORSO = LSPET_14.joints.index("right_hip"), LSPET_14.joints.index("left_shoulder")


def people(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns predictions (N, 14, 2) and labels (N, 14, 3) of which some are not labelled."""
    truth = np.concatenate([rng.uniform(0, 200, (count, 14, 2)), 2 * (rng.random((count, 14, 1)) < 0.8)], axis=2)
    return truth[:, :, :2] + rng.normal(0, 20, (count, 14, 2)), truth


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5])
def test_pck_is_what_counting_gives(alpha: float) -> None:
    rng = np.random.default_rng(7)
    metric = Pck(LSPET_14.joints, alpha=alpha)
    right = labelled = skipped = 0
    for _ in range(20):
        predicted, truth = people(rng, int(rng.integers(0, 4)))
        metric.update(predicted, truth)
        for mine, label in zip(predicted, truth, strict=True):
            if not (label[TORSO[0], 2] and label[TORSO[1], 2]):
                skipped += 1
                continue
            reach = alpha * np.linalg.norm(label[TORSO[0], :2] - label[TORSO[1], :2])
            for joint in range(14):
                if label[joint, 2]:
                    labelled += 1
                    right += bool(np.linalg.norm(mine[joint] - label[joint, :2]) <= reach)
    result = metric.result()
    assert result.value == metric.value() == right / labelled
    assert result.skipped == skipped > 0
    assert sum(count for _, count in result.bands.values()) == labelled


def test_labels_as_predictions_are_perfect() -> None:
    _, truth = people(np.random.default_rng(0), 9)
    metric = Pck(LSPET_14.joints, alpha=1e-9)
    metric.update(truth[:, :, :2], truth)
    result = metric.result()
    assert result.value == result.mean_of_joints == 1
    assert {share for share in result.joints.values() if share is not None} == {1.0}


@pytest.mark.parametrize("inside", [True, False])
def test_the_bound_itself_counts(inside: bool) -> None:
    truth = np.zeros((1, 14, 3))
    truth[0, TORSO[0]] = (0, 0, 2)
    truth[0, TORSO[1]] = (0, 50, 2)
    predicted = truth[:, :, :2].copy()
    predicted[0, TORSO[1], 0] = 10 if inside else 10.001
    metric = Pck(LSPET_14.joints)
    metric.update(predicted, truth)
    assert metric.value() == (1.0 if inside else 0.5)


def test_a_torso_without_length_is_skipped() -> None:
    truth = np.full((1, 14, 3), 2.0)
    metric = Pck(LSPET_14.joints)
    metric.update(truth[:, :, :2], truth)
    assert metric.result().skipped == 1
    assert np.isnan(metric.value())


@pytest.mark.parametrize(
    ("names", "neck"), [(LSPET_14.joints, "neck"), (MPII_16.joints, "upper_neck")], ids=["lspet", "mpii"]
)
def test_pckh_measures_by_the_head(names: tuple[str, ...], neck: str) -> None:
    truth = np.zeros((1, len(names), 3))
    truth[0, names.index("head_top")] = (10, 10, 2)
    truth[0, names.index(neck)] = (10, 30, 2)
    truth[0, names.index("left_hip")] = (50, 100, 2)
    metric = Pck(names, alpha=0.5, reference="head")
    metric.update(truth[:, :, :2] + [9.9, 0], truth)
    assert metric.value() == 1
    metric.update(truth[:, :, :2] + [10.1, 0], truth)
    assert metric.value() == 0.5


def test_people_are_counted_by_their_size() -> None:
    truth = np.zeros((3, 14, 3))
    truth[:, TORSO[0]] = (0, 0, 2)
    truth[:, TORSO[1]] = (0, 50, 2)
    metric = Pck(LSPET_14.joints)
    metric.update(truth[:, :, :2], truth, [32**2 - 1, 32**2, 200**2])
    counts = {name: count for name, (_, count) in metric.result().bands.items()}
    assert counts == {"0-32 px": 2, "32-64 px": 2, "64-96 px": 0, "96-144 px": 0, "144 px and more": 2}


def test_pck_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(UserError, match="PCK by head needs the joints head_top and upper_neck or neck"):
        Pck(COCO_17.joints, reference="head")
    with pytest.raises(UserError, match="alpha 0 must be positive"):
        Pck(LSPET_14.joints, alpha=0)
    with pytest.raises(ValueError, match=r"PCK takes \(N, 14, 2\) and \(N, 14, 3\)"):
        Pck(LSPET_14.joints).update(np.zeros((1, 14, 2)), np.zeros((2, 14, 3)))


def test_miou_is_what_counting_gives() -> None:
    rng = np.random.default_rng(1)
    metric = Confusion(("a", "b", "c", "never", "ghost"), ignore=9)
    pairs = []
    for _ in range(5):
        truth = rng.choice([0, 1, 2, 9], (20, 30), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
        predicted = np.where(rng.random((20, 30)) < 0.7, truth % 9, rng.choice([0, 1, 2, 4], (20, 30))).astype(np.uint8)
        pairs.append((predicted, truth))
        metric.update(predicted, truth)
    predicted, truth = (np.stack(each) for each in zip(*pairs, strict=True))
    counted = truth != 9
    ious = []
    for label in range(5):
        mine, theirs = (predicted == label) & counted, truth == label
        if (mine | theirs).any():
            ious.append((mine & theirs).sum() / (mine | theirs).sum())
    result = metric.result()
    assert result.value == pytest.approx(np.mean(ious))
    assert metric.value() == pytest.approx(result.value)
    assert result.classes["never"] is None
    assert result.classes["ghost"] == 0
    assert result.pixel_accuracy == pytest.approx((predicted == truth)[counted].mean())
    assert result.pixels + result.ignored == truth.size
    assert metric.matrix.dtype == np.int64


def test_labels_as_class_maps_are_perfect() -> None:
    truth = np.random.default_rng(0).integers(0, 4, (16, 16)).astype(np.uint8)
    truth[0] = 255
    metric = Confusion("abcd")
    metric.update(np.where(truth == 255, 0, truth), truth)
    result = metric.result()
    assert result.value == result.pixel_accuracy == result.mean_accuracy == 1


def test_confusion_refuses_what_is_no_class() -> None:
    metric = Confusion("ab")
    with pytest.raises(ValueError, match=r"a label lies outside 0..1: 3..3"):
        metric.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8))
    with pytest.raises(ValueError, match=r"a predicted class lies outside 0..1: 2..2"):
        metric.update(np.full((2, 2), 2, np.uint8), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="differ in shape"):
        metric.update(np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.uint8))


def test_empty_metrics_are_nan() -> None:
    assert np.isnan(Confusion("ab").value())
    assert np.isnan(Confusion("ab").result().value)
    assert np.isnan(Pck(LSPET_14.joints).result().value)


def test_the_interval_narrows_with_more_pictures() -> None:
    rng = np.random.default_rng(5)
    widths = []
    for count in (20, 320):
        metric = Pck(LSPET_14.joints)
        for _ in range(count):
            metric.update(*people(rng, 2))
        bounds = interval(metric)
        assert bounds is not None
        assert bounds[0] < metric.value() < bounds[1]
        widths.append(bounds[1] - bounds[0])
    assert 2 < widths[0] / widths[1] < 8
