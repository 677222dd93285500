from __future__ import annotations

import tracemalloc
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.canonical import canonical_json
from scalenas_runtime.decode.pose import decode_heatmaps
from scalenas_runtime.errors import UserError
from scalenas_runtime.golden import decode_outputs
from scalenas_runtime.joint_shift import peak_leads
from scalenas_runtime.parity import (
    EXACT,
    TOLERANCES,
    Comparer,
    Comparison,
    ParityRecord,
    Rung,
    Tolerance,
    Verdict,
    agreement_text,
    compare,
    judge,
    tolerance_of,
)
from scalenas_runtime.records import read_record, to_plain
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe

POSE = PoseRecipe(height=64, width=64, joints=tuple(f"joint{index}" for index in range(10)))
STREET = SegmentationRecipe(height=32, width=64, classes=("a", "b"), palette=((0, 0, 0), (9, 9, 9)))
Heatmaps = NDArray[np.float32]


def blobs(count: int = 12, *, shift: float = 0.0, peak: float = 1.0) -> Heatmaps:
    """Gaussian blobs (count, 10, 16, 16) whose centres move right by `shift` heatmap pixels."""
    y, x = np.mgrid[:16, :16]
    centres = np.random.default_rng(1).uniform(5, 10, (count, 10, 2))
    squares = (x - centres[..., 0, None, None] - shift) ** 2 + (y - centres[..., 1, None, None]) ** 2
    maps: Heatmaps = (peak * np.exp(-squares / 8)).astype(np.float32)
    return maps


def test_figures_follow_their_definitions() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(3, 4, 5)).astype(np.float32)
    candidate = (reference + rng.normal(size=(3, 4, 5)) * 0.1).astype(np.float32)
    found = compare(reference, candidate)
    one, other = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    largest = np.abs(other - one).max()
    assert found.max_abs == pytest.approx(largest)
    assert found.reference_range == pytest.approx(one.max() - one.min())
    assert found.relative == pytest.approx(largest / (one.max() - one.min()))
    assert found.cosine == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert (found.pictures, found.elements) == (3, 60)


def test_taking_in_one_by_one_equals_taking_in_all() -> None:
    reference, candidate = blobs(), blobs(shift=0.3)
    comparer = Comparer(POSE)
    for index in range(len(reference)):
        comparer.update(reference[index : index + 1], candidate[index : index + 1])
    assert comparer.result() == compare(reference, candidate, POSE)


def test_joint_shift_counts_joints_with_a_reference_peak() -> None:
    reference, candidate = blobs(), blobs(shift=0.4)
    reference[0, :4] *= 0.1
    candidate[0, :4] = 0
    found = compare(reference, candidate, POSE)
    strong = reference.max(axis=(2, 3)) >= 0.2
    steps = decode_heatmaps(candidate, POSE)[0] - decode_heatmaps(reference, POSE)[0]
    shifts = np.sort(np.linalg.norm(steps[strong], axis=1))
    assert found.joints == strong.sum() == 116
    assert found.joint_shift_max == pytest.approx(shifts[-1])
    assert found.joint_shift_p99 == pytest.approx(shifts[-2])
    assert found.joint_shift_p50 == pytest.approx(shifts[58])


def two_peaks(lower: float) -> Heatmaps:
    """Maps (12, 10, 16, 16) of one peak of height 1, but the first three of each picture have a second, `lower`."""
    y, x = np.mgrid[:16, :16]
    peak, second = (np.exp(-((x - column) ** 2 + (y - row) ** 2) / 4) for column, row in ((4, 4), (12, 11)))
    maps = np.tile(peak, (12, 10, 1, 1)).astype(np.float32)
    maps[:, :3] += np.float32(1 - lower) * second.astype(np.float32)
    return maps


@pytest.mark.parametrize("stage", ["undecoded", "decoded"])
@pytest.mark.parametrize(("lower", "ambiguous"), [(0.01, 36), (0.059, 36), (0.061, 0)])
def test_joints_with_two_peaks_within_the_tolerance_have_no_shift(
    lower: float, ambiguous: int, stage: Literal["undecoded", "decoded"]
) -> None:
    reference = two_peaks(lower)
    candidate = two_peaks(-lower)
    tolerance = TOLERANCES["bf16"]
    comparer = Comparer(POSE, stage=stage, tolerance=tolerance)
    if stage == "undecoded":
        comparer.update(reference, candidate)
    else:
        comparer.update(keypoints(reference), keypoints(candidate), heatmaps=reference)
    found = comparer.result()
    assert (found.joints, found.ambiguous) == (120 - ambiguous, ambiguous)
    assert found.joint_shift_max == pytest.approx(0 if ambiguous else np.hypot(8, 7), abs=0.01)
    text = "84 joints beside 36 ambiguous ones" if ambiguous else "120 joints"
    assert agreement_text(found).rstrip(")").endswith(text)
    if not ambiguous:
        assert (
            "joint shift p99 10.6 heatmap pixels exceeds 0.5 (120 joints, largest 10.6)"
            in judge(found, tolerance).reasons[-1]
        )


@pytest.mark.parametrize("tolerance", [None, EXACT, TOLERANCES["fp32"]])
def test_joints_are_ambiguous_to_the_tolerance_alone(tolerance: Tolerance | None) -> None:
    found = compare(two_peaks(0.001), two_peaks(-0.001), POSE, tolerance=tolerance)
    assert (found.joints, found.ambiguous) == (120, None if tolerance is None else 0)
    assert not judge(found, TOLERANCES["bf16"]).passed


def test_a_joint_that_moves_on_one_hill_is_not_ambiguous() -> None:
    reference, candidate = blobs(), blobs(shift=1.0)
    found = compare(reference, candidate, POSE, tolerance=TOLERANCES["bf16"])
    assert (found.joints, found.ambiguous) == (120, 0)
    assert found.joint_shift_p50 == pytest.approx(1)


def test_without_heatmaps_no_keypoint_is_ambiguous() -> None:
    comparer = Comparer(POSE, stage="decoded", tolerance=TOLERANCES["bf16"])
    comparer.update(keypoints(two_peaks(0.01)), keypoints(two_peaks(-0.01)))
    found = comparer.result()
    assert (found.joints, found.ambiguous) == (120, None)


def test_peak_leads_equal_a_search_pixel_by_pixel() -> None:
    rng = np.random.default_rng(4)
    # Few distinct values, so that plateaus and equal peaks occur; one map is flat, one has a single peak in a corner.
    maps = rng.integers(0, 6, (40, 7, 9)).astype(np.float32)
    maps[0] = 1
    maps[1] = -np.hypot(*np.mgrid[:7, :9])
    for heatmap, lead in zip(maps, peak_leads(maps), strict=True):
        top = np.array(np.unravel_index(heatmap.argmax(), heatmap.shape))
        seconds = [-np.inf]
        for y, x in np.ndindex(heatmap.shape):
            around = heatmap[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            if np.abs(top - (y, x)).max() > 1 and heatmap[y, x] == around.max():
                seconds.append(float(heatmap[y, x]))
        assert lead == heatmap.max() - max(seconds)
    assert peak_leads(maps)[:2].tolist() == [0, np.inf]


def test_worst_is_the_picture_with_the_largest_shift() -> None:
    reference, candidate = blobs(), blobs()
    candidate[7, 3] = np.roll(candidate[7, 3], 3, axis=1)
    candidate[2] *= 1.5
    assert compare(reference, candidate, POSE).worst == 7


def test_class_agreement_is_the_share_of_pixels_after_upsampling() -> None:
    reference = np.zeros((2, 2, 8, 16), np.float32)
    reference[:, 1] = 1
    candidate = reference.copy()
    candidate[0] = candidate[0, ::-1]
    found = compare(reference, candidate, STREET)
    assert found.class_agreement == 0.5
    assert found.pixels == 2 * 32 * 64
    assert found.worst == 0


@pytest.mark.parametrize(
    ("recipe", "shape"), [(POSE, (4, 10, 16, 16)), (STREET, (4, 2, 8, 16))], ids=["pose", "segmentation"]
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_values_that_are_not_finite_fail(
    recipe: PoseRecipe | SegmentationRecipe, shape: tuple[int, ...], value: float
) -> None:
    reference = np.random.default_rng(3).uniform(0.3, 1, shape).astype(np.float32)
    candidate = reference.copy()
    candidate[1, 0, 3, 4] = value
    found = compare(reference, candidate, recipe)
    assert (found.nonfinite_reference, found.nonfinite_candidate, found.max_abs) == (0, 1, 0.0)
    assert found.worst == 1
    verdict = judge(found, TOLERANCES["bf16"])
    assert not verdict.passed
    assert "0 values of the reference and 1 of the candidate are NaN or infinite" in verdict.reasons[0]


def test_a_constant_reference_has_a_finite_relative_error() -> None:
    reference = np.full((1, 3), 2, np.float32)
    assert compare(reference, reference).relative == 0
    found = compare(reference, reference + 1)
    assert found.relative > 1e30
    canonical_json(to_plain(found))
    assert not judge(found, TOLERANCES["bf16"]).passed


@pytest.mark.parametrize(
    ("reference", "candidate", "recipe", "text"),
    [
        (np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), None, r"shapes differ: .*\(2, 3\).*\(2, 4\)"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3)), None, "dtypes differ: reference float32, candidate float64"),
        (np.zeros((2, 3), np.float32),) * 2 + (POSE, r"are \(N, 10, 16, 16\), got \(2, 3\)"),
        (np.zeros((2, 3), np.float32),) * 2 + (STREET, r"are \(N, 2, 8, 16\), got \(2, 3\)"),
        (np.zeros((0, 3), np.float32),) * 2 + (None, "nothing was compared"),
    ],
    ids=["shape", "dtype", "pose", "segmentation", "empty"],
)
def test_outputs_that_cannot_be_compared(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], recipe: PoseRecipe | None, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        compare(reference, candidate, recipe)


def figures(**changes: float) -> Comparison:
    plain = {
        **{"pictures": 16, "elements": 100, "max_abs": 0.0, "reference_range": 1.0, "relative": 0.0, "cosine": 1.0},
        **{"nonfinite_reference": 0, "nonfinite_candidate": 0, **changes},
    }
    return read_record(Comparison, plain, what="figures")


@pytest.mark.parametrize(
    ("precision", "changes", "passed"),
    [
        ("fp32", {"relative": 1e-4, "joints": 200, "joint_shift_p99": 0.05}, True),
        ("fp32", {"relative": 1.01e-4, "joints": 200, "joint_shift_p99": 0.0}, False),
        ("fp32", {"relative": 0.0, "joints": 200, "joint_shift_p99": 0.051}, False),
        ("fp32", {"class_agreement": 0.999}, True),
        ("fp32", {"class_agreement": 0.9989}, False),
        ("bf16", {"relative": 0.03, "joints": 200, "joint_shift_p99": 0.5}, True),
        ("bf16", {"relative": 0.031, "joints": 200, "joint_shift_p99": 0.5}, False),
        ("bf16", {"relative": 0.0, "joints": 200, "joint_shift_p99": 0.51}, False),
        ("fp16", {"class_agreement": 0.99}, True),
        ("fp16", {"class_agreement": 0.9899}, False),
    ],
)
def test_tolerances_are_those_of_the_precision(precision: str, changes: dict[str, float], passed: bool) -> None:
    verdict = judge(figures(**changes), tolerance_of(precision))
    assert verdict.passed is passed
    assert verdict.informative
    assert bool(verdict.reasons) is not passed


@pytest.mark.parametrize(("joints", "informative"), [(99, False), (100, True)])
def test_fewer_than_100_joints_are_not_informative(joints: int, informative: bool) -> None:
    verdict = judge(figures(joints=joints, joint_shift_p99=7.0), TOLERANCES["bf16"])
    assert verdict.informative is informative
    assert verdict.passed is not informative
    failed = judge(figures(joints=joints, joint_shift_p99=0.0, relative=0.2), TOLERANCES["bf16"])
    assert not failed.passed


def test_decoded_results_are_judged_by_agreement_alone() -> None:
    reference = np.zeros((12, 10, 3), np.float32)
    reference[..., 2] = 0.9
    reference[0, 0, 2] = 0.1
    candidate = reference.copy()
    candidate[0, 0, :2] = 50
    candidate[1, 1, 0] = 4 * 0.4
    comparer = Comparer(POSE, stage="decoded")
    comparer.update(reference, candidate)
    found = comparer.result()
    assert found.joints == 119
    assert found.joint_shift_max == pytest.approx(0.4)
    assert found.relative > 1
    assert judge(found, TOLERANCES["bf16"]).passed


def keypoints(heatmaps: Heatmaps) -> NDArray[np.float32]:
    """What the recipe makes of heatmaps: (N, 10, 3)."""
    return np.asarray(decode_outputs(heatmaps, POSE), np.float32)


def judged_decoded(right: NDArray[np.float32], made: NDArray[np.float32], heatmaps: Heatmaps | None) -> Verdict:
    comparer = Comparer(POSE, stage="decoded")
    comparer.update(right, made, heatmaps=heatmaps)
    return judge(comparer.result(), TOLERANCES["fp32"])


@pytest.mark.parametrize("peak", [1.0, 0.1], ids=["confident", "not one joint is"])
def test_scores_and_places_of_keypoints_are_judged_however_few_are_confident(peak: float) -> None:
    maps = blobs(peak=peak)
    right = keypoints(maps)
    few = "only scores and peaks were judged"
    same = judged_decoded(right, right, maps)
    assert (same.passed, same.informative) == (True, peak == 1)
    assert (few in " ".join(same.reasons)) == (peak < 1)
    scored = right.copy()
    scored[3, 4, 2] += 0.01 * peak
    wrong = judged_decoded(right, scored, maps)
    assert not wrong.passed
    assert wrong.reasons[0].startswith("score error 0.01 exceeds 0.0001 of the heatmaps' range")
    moved = right.copy()
    moved[..., :2] = np.random.default_rng(3).uniform(0, 64, moved[..., :2].shape)
    wrong = judged_decoded(right, moved, maps)
    assert not wrong.passed
    assert "of the heatmaps' range below its peak; 0.0002 is allowed" in wrong.reasons[0]
    outside = right.copy()
    outside[0, 0, 0] = 1e6
    assert not judged_decoded(right, outside, maps).passed


def test_scores_are_judged_without_heatmaps_too() -> None:
    right = keypoints(blobs(peak=0.1))
    assert "only the scores were judged" in judged_decoded(right, right, None).reasons[0]
    scored = right.copy()
    scored[0, 0, 2] *= 2
    assert not judged_decoded(right, scored, None).passed


def test_places_of_maps_without_a_peak_are_not_judged() -> None:
    maps = -np.abs(blobs()) - np.float32(0.1)
    right = keypoints(maps)
    assert judged_decoded(right, right, maps).passed


def test_equal_outputs_pass_the_exact_tolerance_and_others_do_not() -> None:
    reference = blobs()
    assert judge(compare(reference, reference, POSE), EXACT).passed
    assert not judge(compare(reference, np.nextafter(reference, 2, dtype=np.float32), POSE), EXACT).passed


def test_a_precision_without_tolerance_names_those_with_one() -> None:
    with pytest.raises(UserError, match="'int8' has no parity tolerance; those with one: fp32, bf16, fp16"):
        tolerance_of("int8")


def test_rungs_survive_json() -> None:
    comparison = compare(blobs(), blobs(shift=0.1), POSE)
    tolerance = TOLERANCES["bf16"]
    rung = Rung(
        name="engine",
        reference="fp32",
        candidate="bf16",
        inputs="blobs",
        comparison=comparison,
        tolerance=tolerance,
        verdict=judge(comparison, tolerance),
    )
    record = ParityRecord(rungs=(rung,))
    assert read_record(ParityRecord, to_plain(record), what="parity") == record


def test_many_large_pictures_need_the_memory_of_one() -> None:
    recipe = SegmentationRecipe(height=256, width=512, classes=("a", "b", "c"), palette=((0, 0, 0),) * 3)
    picture = np.random.default_rng(0).normal(size=(1, 3, 64, 128)).astype(np.float32)
    comparer = Comparer(recipe)
    comparer.update(picture, picture)
    tracemalloc.start()
    for _ in range(20):
        comparer.update(picture, picture)
    grown, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000
    assert peak < 40 * picture.nbytes
