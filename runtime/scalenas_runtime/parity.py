"""Whether two runs of one net agree: on the undecoded outputs, then on what the task makes of them.

The figures are those of the parity ladder: largest absolute difference, the same over the reference's range, cosine,
and the task's agreement (joint shift in heatmap pixels, or the share of pixels whose class agrees).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.joint_shift import PEAK, JointShifts
from scalenas_runtime.keypoint_parity import SMALLEST_RANGE, KeypointParity
from scalenas_runtime.records import Record
from scalenas_runtime.session import Array
from scalenas_runtime.tasks import PoseRecipe, Recipe, SegmentationRecipe

Stage = Literal["undecoded", "decoded"]
MIN_JOINTS = 100


class Tolerance(Record, frozen=True):
    """What a candidate may differ by.

    Attributes:
        relative: Largest absolute difference over the reference's range (its maximum minus its minimum).
        joint_shift_p99: 99th percentile of the joint shift, heatmap pixels.
        class_agreement: Least share of pixels whose class agrees, 0..1.
        reason: Why this differs from the table of its precision; empty where it does not.
    """

    relative: float
    joint_shift_p99: float
    class_agreement: float
    reason: str = ""

    @property
    def peak_loss(self) -> float:
        """How far below its peak a joint's place may lie, over the heatmaps' range: two errors may add up."""
        return 2 * self.relative


EXACT = Tolerance(relative=0.0, joint_shift_p99=0.0, class_agreement=1.0)
_HALF = Tolerance(relative=0.03, joint_shift_p99=0.5, class_agreement=0.99)
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(relative=1e-4, joint_shift_p99=0.05, class_agreement=0.999),
    "bf16": _HALF,
    "fp16": _HALF,
}


class Comparison(Record, frozen=True):
    """How far a candidate is from its reference, over all pictures compared.

    Attributes:
        stage: What was compared: `undecoded` outputs, or results `decoded` by the task.
        pictures: Number of pictures; one that fills up a batch counts again.
        elements: Number of output values.
        max_abs: Largest absolute difference over values that are finite on both sides.
        reference_range: Maximum minus minimum of the reference's finite values.
        relative: `max_abs` over `reference_range`; the range of a constant reference counts as 2**-126.
        cosine: Cosine between all values of both, as two long vectors; 1 where both are zero.
        nonfinite_reference, nonfinite_candidate: How many values are NaN or infinite.
        joints: Joints whose reference peak is at least 0.2, without the ambiguous ones (pose; None otherwise).
        ambiguous: Joints with such a peak whose heatmap has a second one so near in height that errors within the
            tolerance may swap them (pose compared with a tolerance and heatmaps; None otherwise). They have no shift.
        joint_shift_p50, joint_shift_p99, joint_shift_max: Distance between both decoded positions of those
            joints, heatmap pixels; None where no joint counts. A percentile is the next larger sample.
        score_error: Largest difference of a decoded score, over the range of the reference's heatmaps, or of its
            scores and 0 where no heatmaps were given (decoded pose; None otherwise).
        peak_shortfall: How far the reference's heatmaps lie, at the pixels that the candidate decoded, below their
            peaks at most, over their range (pose decoded by `argmax` or `quarter` with heatmaps; None otherwise).
        pixels: Pixels of the class maps compared (segmentation; None otherwise).
        class_agreement: Share of those whose class agrees, 0..1.
        worst: Index of the picture that agrees least: not finite, then by the task's measure, then by absolute
            difference.
    """

    pictures: int
    elements: int
    max_abs: float
    reference_range: float
    relative: float
    cosine: float
    nonfinite_reference: int
    nonfinite_candidate: int
    stage: Stage = "undecoded"
    joints: int | None = None
    ambiguous: int | None = None
    joint_shift_p50: float | None = None
    joint_shift_p99: float | None = None
    joint_shift_max: float | None = None
    score_error: float | None = None
    peak_shortfall: float | None = None
    pixels: int | None = None
    class_agreement: float | None = None
    worst: int = 0


class Verdict(Record, frozen=True):
    """What a tolerance makes of a comparison.

    Attributes:
        passed: No figure exceeds its tolerance.
        informative: The task's agreement could be judged too.
        reasons: One sentence for each figure that failed or could not be judged.
    """

    passed: bool
    informative: bool
    reasons: tuple[str, ...] = ()


class Rung(Record, frozen=True):
    """One step of the parity ladder.

    Attributes:
        name: The step ("simplified", "engine openvino:cpu/bf16", ...).
        reference, candidate: What was compared with what.
        inputs: What both were fed with.
    """

    name: str
    reference: str
    candidate: str
    inputs: str
    comparison: Comparison
    tolerance: Tolerance
    verdict: Verdict


class ParityRecord(Record, frozen=True):
    """All rungs of one export, as they stand in a bundle's `records/parity.json`."""

    rungs: tuple[Rung, ...]
    schema: Literal["scalenas.parity/1"] = "scalenas.parity/1"


class Comparer:
    """Compares outputs picture by picture, so that a set of any length needs the memory of one.

    Args:
        recipe: The task whose agreement is measured; None compares values alone.
        stage: `undecoded` for heatmaps (N, K, h, w) or logits (N, C, h, w); `decoded` for keypoints (N, K, 3), x and
            y in pixels of the input crop and a score, or class maps (N, H, W).
        tolerance: What the comparison will be judged by; joints that it makes ambiguous are left out of the joint
            shift. None leaves none out.
    """

    def __init__(
        self, recipe: Recipe | None = None, *, stage: Stage = "undecoded", tolerance: Tolerance | None = None
    ) -> None:
        self._recipe = recipe
        self._stage = stage
        self._peak_loss = None if tolerance is None else tolerance.peak_loss
        self._elements = 0
        self._max_abs: list[float] = []
        self._lowest, self._highest = np.inf, -np.inf
        self._products = np.zeros(3)
        self._nonfinite = [0, 0]
        self._damaged: list[bool] = []
        self._shifts = JointShifts(recipe, stage) if isinstance(recipe, PoseRecipe) else None
        self._scores = KeypointParity(recipe) if isinstance(recipe, PoseRecipe) and stage == "decoded" else None
        self._agreeing: list[int] = []
        self._pixels = 0

    def update(self, reference: Array, candidate: Array, *, heatmaps: Array | None = None) -> None:
        """Takes in the outputs of one or more pictures, first axis pictures.

        Args:
            reference: What counts as right.
            candidate: The same shape and dtype.
            heatmaps: For decoded keypoints: the heatmaps (N, K, h, w) that the reference was decoded from. With them
                scores and places are judged however few joints there are.

        Raises:
            ValueError: the two differ in shape or dtype, or do not fit the recipe.
        """
        self._check(reference, candidate)
        for index, (one, other) in enumerate(zip(reference, candidate, strict=True)):
            finite = self._values(one, other)
            if self._shifts is not None:
                self._joints(one, other, None if heatmaps is None else heatmaps[index], self._shifts, finite=finite)
            elif isinstance(self._recipe, SegmentationRecipe):
                self._agreeing.append(self._agreement(one, other, self._recipe) if finite else 0)
                self._pixels += self._recipe.height * self._recipe.width

    def result(self) -> Comparison:
        """Returns the comparison of everything taken in so far.

        Raises:
            ValueError: nothing was taken in.
        """
        if not self._max_abs:
            raise ValueError("nothing was compared: update() was never called with a picture")
        reference_range = max(float(self._highest - self._lowest), 0.0)
        max_abs = max(self._max_abs)
        product, square, other = (float(value) for value in self._products)
        length = float(np.sqrt(square) * np.sqrt(other))
        cosine = min(product / length, 1.0) if length > 0 else float(square == other)
        shifts = None if self._shifts is None else self._shifts.result(self._least_lead(reference_range))
        moved = np.empty(0) if shifts is None else shifts.all
        return Comparison(
            stage=self._stage,
            pictures=len(self._max_abs),
            elements=self._elements,
            max_abs=max_abs,
            reference_range=reference_range,
            relative=max_abs / max(reference_range, SMALLEST_RANGE),
            cosine=cosine,
            nonfinite_reference=self._nonfinite[0],
            nonfinite_candidate=self._nonfinite[1],
            joints=None if shifts is None else len(moved),
            ambiguous=None if shifts is None else shifts.ambiguous,
            joint_shift_p50=_quantile(moved, 0.5),
            joint_shift_p99=_quantile(moved, 0.99),
            joint_shift_max=_quantile(moved, 1.0),
            score_error=None if self._scores is None else self._scores.error,
            peak_shortfall=None if self._scores is None else self._scores.shortfall,
            pixels=self._pixels or None,
            class_agreement=sum(self._agreeing) / self._pixels if self._pixels else None,
            worst=self._worst([] if shifts is None else shifts.by_picture),
        )

    def _check(self, reference: Array, candidate: Array) -> None:
        if reference.shape != candidate.shape:
            raise ValueError(f"shapes differ: reference {reference.shape}, candidate {candidate.shape}")
        if reference.dtype != candidate.dtype:
            raise ValueError(f"dtypes differ: reference {reference.dtype}, candidate {candidate.dtype}")
        recipe = self._recipe
        if recipe is None:
            return
        if isinstance(recipe, PoseRecipe):
            inner: tuple[int, ...] = (len(recipe.joints), *recipe.heatmap_size)
            decoded: tuple[int, ...] = (len(recipe.joints), 3)
        else:
            inner = (len(recipe.classes), *recipe.logits_size)
            decoded = (recipe.height, recipe.width)
        wanted = inner if self._stage == "undecoded" else decoded
        if reference.shape[1:] != wanted:
            raise ValueError(f"{self._stage} outputs of this recipe are (N, {_join(wanted)}), got {reference.shape}")

    def _values(self, reference: Array, candidate: Array) -> bool:
        one, other = (np.asarray(array, np.float32).ravel() for array in (reference, candidate))
        finite_one, finite_other = np.isfinite(one), np.isfinite(other)
        bad = [one.size - int(np.count_nonzero(finite)) for finite in (finite_one, finite_other)]
        self._elements += one.size
        self._damaged.append(any(bad))
        self._nonfinite = [total + new for total, new in zip(self._nonfinite, bad, strict=True)]
        if any(bad):
            both = finite_one & finite_other
            one, other = one[both], other[both]
        if one.size == 0:
            self._max_abs.append(0.0)
            return False
        self._lowest, self._highest = min(self._lowest, one.min()), max(self._highest, one.max())
        self._max_abs.append(float(np.abs(other.astype(np.float64) - one).max()))
        self._products += [_dot(one, other), _dot(one, one), _dot(other, other)]
        return not any(bad)

    def _joints(
        self, reference: Array, candidate: Array, heatmaps: Array | None, shifts: JointShifts, *, finite: bool
    ) -> None:
        if not finite:
            shifts.skip()
            return
        shifts.update(reference, candidate, heatmaps)
        if self._scores is not None:
            self._scores.update(reference, candidate, heatmaps)

    def _least_lead(self, reference_range: float) -> float | None:
        if self._peak_loss is None:
            return None
        return self._peak_loss * (reference_range if self._scores is None else self._scores.span)

    def _agreement(self, reference: Array, candidate: Array, recipe: SegmentationRecipe) -> int:
        if self._stage == "undecoded":
            from scalenas_runtime.decode.segmentation import class_map

            size = (recipe.height, recipe.width)
            reference, candidate = (
                class_map(array, size, align_corners=recipe.align_corners) for array in (reference, candidate)
            )
        return int(np.count_nonzero(reference == candidate))

    def _worst(self, shifts: Sequence[NDArray[np.float64]]) -> int:
        by_task: list[float] = [0.0] * len(self._max_abs)
        if shifts:
            by_task = [float(moved.max(initial=0.0)) for moved in shifts]
        elif self._agreeing:
            by_task = [-float(agreeing) for agreeing in self._agreeing]
        return max(range(len(by_task)), key=lambda index: (self._damaged[index], by_task[index], self._max_abs[index]))


def compare(
    reference: Array, candidate: Array, recipe: Recipe | None = None, *, tolerance: Tolerance | None = None
) -> Comparison:
    """Returns how far `candidate` is from `reference`, both undecoded outputs with pictures as their first axis.

    Args:
        reference: Heatmaps (N, K, h, w) or logits (N, C, h, w); any shape where `recipe` is None.
        candidate: The same shape and dtype.
        recipe: The task whose agreement is measured; None compares values alone.
        tolerance: As for `Comparer`.

    Raises:
        ValueError: the two differ in shape or dtype, do not fit the recipe, or hold no picture.
    """
    comparer = Comparer(recipe, tolerance=tolerance)
    comparer.update(reference, candidate)
    return comparer.result()


def tolerance_of(precision: str) -> Tolerance:
    """Returns what a target of this precision may differ by.

    Raises:
        UserError: a precision that has no numeric tolerance (INT8 is judged by its metric).
    """
    if precision not in TOLERANCES:
        raise UserError(f"precision {precision!r} has no parity tolerance; those with one: {', '.join(TOLERANCES)}")
    return TOLERANCES[precision]


def judge(comparison: Comparison, tolerance: Tolerance) -> Verdict:
    """Returns whether the figures are within tolerance, and for each that is not (or cannot be judged) why.

    Decoded results are judged by the task's agreement: the position of a joint that is not there, or the number of a
    class, has no range that an error could be relative to. Scores have one, and so has what a heatmap loses beside its
    peak; there two errors of the tolerance's size may add up.
    """
    failed: list[str] = []
    if comparison.nonfinite_reference or comparison.nonfinite_candidate:
        failed.append(
            f"{comparison.nonfinite_reference} values of the reference and {comparison.nonfinite_candidate} of the "
            "candidate are NaN or infinite"
        )
    # Written as "not <=", so that a NaN that came in by JSON fails too.
    undecoded = comparison.stage == "undecoded"
    if undecoded and not comparison.relative <= tolerance.relative:
        failed.append(
            f"relative error {comparison.relative:.3g} exceeds {tolerance.relative:g} "
            f"(largest difference {comparison.max_abs:.3g}, range of the reference {comparison.reference_range:.3g})"
        )
    score, shortfall = comparison.score_error, comparison.peak_shortfall
    if score is not None and not score <= tolerance.relative:
        failed.append(f"score error {score:.3g} exceeds {tolerance.relative:g} of the heatmaps' range")
    if shortfall is not None and not shortfall <= tolerance.peak_loss:
        failed.append(
            f"a joint lies where its heatmap is {shortfall:.3g} of the heatmaps' range below its peak; "
            f"{tolerance.peak_loss:g} is allowed"
        )
    unjudged: list[str] = []
    if comparison.class_agreement is not None:
        if not comparison.class_agreement >= tolerance.class_agreement:
            failed.append(
                f"class agreement {comparison.class_agreement:.4%} is under {tolerance.class_agreement:.4g} "
                f"of {comparison.pixels} pixels"
            )
    elif comparison.joints is None:
        unjudged.append("no task recipe: only the relative error was judged")
    elif comparison.joints < MIN_JOINTS or comparison.joint_shift_p99 is None:
        unjudged.append(
            f"not informative: {joints_text(comparison)} have a reference peak of at least {PEAK}, {MIN_JOINTS} are "
            f"needed; {_judged(comparison)} judged"
        )
    elif not comparison.joint_shift_p99 <= tolerance.joint_shift_p99:
        failed.append(
            f"joint shift p99 {comparison.joint_shift_p99:.3g} heatmap pixels exceeds {tolerance.joint_shift_p99:g} "
            f"({joints_text(comparison)}, largest {comparison.joint_shift_max or 0.0:.3g})"
        )
    return Verdict(passed=not failed, informative=not unjudged, reasons=(*failed, *unjudged))


def _judged(comparison: Comparison) -> str:
    """Returns what is judged of a comparison of heatmaps or keypoints with few joints."""
    if comparison.stage == "undecoded":
        return "only the relative error was"
    if comparison.score_error is None:
        return "nothing was"
    return "only the scores were" if comparison.peak_shortfall is None else "only scores and peaks were"


def agreement_text(comparison: Comparison) -> str:
    """Returns the task's agreement for a table: the joint shift in heatmap pixels, or the share of pixels."""
    if comparison.class_agreement is not None:
        return f"{comparison.class_agreement:.3%} of pixels"
    if comparison.joints is None:
        return "-"
    shift = "-" if comparison.joint_shift_p99 is None else f"{comparison.joint_shift_p99:.3g} px"
    text = f"shift p99 {shift}, {joints_text(comparison)}"
    return text if comparison.joints >= MIN_JOINTS else f"not informative ({text})"


def joints_text(comparison: Comparison) -> str:
    """Returns how many joints a shift is of, and how many ambiguous ones are not among them."""
    beside = f" beside {comparison.ambiguous} ambiguous ones" if comparison.ambiguous else ""
    return f"{comparison.joints} joints{beside}"


def _quantile(values: NDArray[np.float64], share: float) -> float | None:
    return float(np.quantile(values, share, method="higher")) if values.size else None


def _dot(one: Array, other: Array) -> float:
    # einsum sums in float64 without a float64 copy of both arrays.
    return float(np.einsum("i,i->", one, other, dtype=np.float64))


def _join(shape: tuple[int, ...]) -> str:
    return ", ".join(str(side) for side in shape)
