"""Accuracy of a net on a data set: predictions in, one table of figures out.

Whatever predicts is passed in as a function, so that a subnet in a supernet, a static net and a bundle's engine are
judged by the same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalenas_runtime.boxes import Detections
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import box_extents
from scalenas_runtime.metrics import CocoOks, Confusion, Pck, interval, oks_nms
from scalenas_runtime.metrics.oks import Truth
from scalenas_runtime.metrics.pck import Reference, has_reference
from scalenas_runtime.pictures import Picture
from scalenas_runtime.readers import KeypointData, KeypointPicture, PairData, relabelled
from scalenas_runtime.results import PoseResult, SegmentationResult
from scalenas_runtime.tasks import PoseRecipe, Recipe, SegmentationRecipe
from scalenas_runtime.tasks.sets import COCO_17, ClassSet, JointSet, sigmas_of

Metric = Literal["pck", "pckh", "oks", "miou"]


class Estimate(Protocol):
    """What `PoseEstimator.estimate` is: joints of the people in the boxes of a picture."""

    def __call__(self, picture: Picture, boxes: ArrayLike, *, box_scores: ArrayLike) -> PoseResult:
        """Returns one person a box, in their order."""


Segment = Callable[[Picture], SegmentationResult]
Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out.

    Attributes:
        metric: Which figure `value` is.
        value: The headline, 0..1; NaN where nothing could be judged.
        interval: Bounds that hold it with 95 % (bootstrap over pictures); None for fewer than two pictures.
        figures: Everything else the metric knows, as JSON values.
        counts: Pictures and people judged, and what was left out and why.
        detections: Predicted people in COCO's results format (pose only).
        by_picture: What PCK or mIoU counted in each picture (see `Counts`), for paired comparisons; None for OKS.
    """

    metric: Metric
    value: float
    interval: tuple[float, float] | None
    figures: dict[str, Json]
    counts: dict[str, int]
    detections: list[dict[str, Json]] = field(default_factory=list)
    by_picture: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Json]:
        """Returns the evaluation as JSON values, without detections and single pictures; None stands for NaN."""
        return {
            "metric": self.metric,
            "value": _plain(self.value),
            "interval": None if self.interval is None else list(self.interval),
            "figures": _plain(self.figures),
            "counts": dict(self.counts),
        }


@dataclass(frozen=True, slots=True)
class PoseQuestion:
    """What is asked about joints.

    Attributes:
        metric: `pck` (of the torso, alpha 0.2), `pckh` (of the head, alpha 0.5) or `oks` (COCO AP).
        alpha: Another share for PCK.
        detections: Boxes by picture id; None takes the labelled boxes, which PCK needs.
        limit: Judge the first so many pictures; None judges all.
    """

    metric: Metric = "pck"
    alpha: float | None = None
    detections: Mapping[int, Detections] | None = None
    limit: int | None = None


def default_metric(recipe: Recipe) -> Metric:
    """Returns `miou` for segmentation, `oks` for COCO's 17 joints, and `pck` for others.

    Joints without a torso to measure PCK by are judged by `oks` too, where the recipe has sigmas.
    """
    if isinstance(recipe, SegmentationRecipe):
        return "miou"
    unmeasured = bool(recipe.sigmas) and not has_reference(recipe.joints, "torso")
    return "oks" if unmeasured or set(recipe.joints) == set(COCO_17.joints) else "pck"


def evaluate_pose(
    estimate: Estimate,
    recipe: PoseRecipe,
    data: KeypointData,
    *,
    question: PoseQuestion,
    progress: Progress = iter,
) -> Evaluation:  # fmt: skip
    """Returns the accuracy of joints. Joints are matched by name; those that the data do not have are not judged.

    Args:
        estimate: Predicts, for example `PoseEstimator.estimate`.
        recipe: Of what predicts.
        data: Pictures and people.
        question: What is asked.
        progress: Wraps the iteration, as tqdm does.

    Raises:
        UserError: a metric that does not fit, no joint in common, an unreadable picture.
    """
    judge = _PoseJudge(recipe, data, question)
    for picture in progress(islice(data, question.limit)):
        judge.add(picture, estimate)
    return judge.evaluation(data)


def evaluate_segmentation(
    segment: Segment,
    recipe: SegmentationRecipe,
    data: PairData,
    *,
    limit: int | None = None,
    progress: Progress = iter,
) -> Evaluation:  # fmt: skip
    """Returns the mIoU of class maps at the size of the labels.

    Classes are matched by name; pixels of classes that the recipe does not have are ignored.

    Args:
        segment: Predicts, for example `Segmenter.segment`.
        recipe: Of what predicts.
        data: Pictures and class maps.
        limit: Judge the first so many pictures.
        progress: Wraps the iteration, as tqdm does.

    Raises:
        UserError: no class in common, an unreadable picture or mask, or a mask of another size than its picture.
    """
    data = relabelled(data, recipe)
    confusion = Confusion(recipe.classes, ignore=recipe.ignore)
    for pair in progress(islice(data, limit)):
        picture, labels = pair.read(), pair.read_labels()
        if picture.shape[:2] != labels.shape:
            raise UserError(f"{pair.name} is {picture.shape[:2]} pixels, its mask {labels.shape} (height, width)")
        confusion.update(segment(picture).class_map, labels)
    result = confusion.result()
    figures: dict[str, Json] = {
        "classes": dict(result.classes),
        "pixel_accuracy": result.pixel_accuracy,
        "mean_accuracy": result.mean_accuracy,
    }
    counts = {**data.counts, "pictures_judged": confusion.pictures, "pixels_ignored": result.ignored}
    bounds, each = interval(confusion), confusion.by_picture()
    return Evaluation("miou", result.value, bounds, figures, counts, by_picture=each)


def joints_of(recipe: PoseRecipe) -> JointSet:
    """Returns the joints of a recipe as a set, with sigmas by name where the recipe has none."""
    sigmas = recipe.sigmas or sigmas_of(recipe.joints)
    return JointSet("recipe", recipe.joints, recipe.edges, recipe.flip_pairs, sigmas)


def classes_of(recipe: SegmentationRecipe) -> ClassSet:
    """Returns the classes of a recipe as a set."""
    return ClassSet("recipe", recipe.classes, recipe.palette, recipe.ignore)


class _PoseJudge:
    """Asks for the people of one picture after the other and adds them to a metric."""

    def __init__(self, recipe: PoseRecipe, data: KeypointData, question: PoseQuestion) -> None:
        metric, alpha, detections = question.metric, question.alpha, question.detections
        common = [joint for joint in recipe.joints if joint in data.joints]
        if not common:
            raise UserError(
                f"{data.name} labels none of the net's joints {', '.join(recipe.joints)}, but {', '.join(data.joints)}"
            )
        self._mine = [recipe.joints.index(joint) for joint in common]
        self._theirs = [data.joints.index(joint) for joint in common]
        self._recipe, self._metric, self._boxes = recipe, metric, detections
        self._pck: Pck | None = None
        self._oks: CocoOks | None = None
        if metric == "oks":
            self._oks = CocoOks([recipe.sigmas[index] for index in self._mine] if recipe.sigmas else [])
        elif metric in ("pck", "pckh"):
            if detections is not None:
                raise UserError(f"--metric {metric} compares labelled people one by one, so it needs --boxes gt")
            reference: Reference = "torso" if metric == "pck" else "head"
            share = (0.2 if metric == "pck" else 0.5) if alpha is None else alpha
            self._pck = Pck(common, alpha=share, reference=reference)
        else:
            raise UserError(f"metric {metric} is for segmentation; a pose bundle takes pck, pckh or oks")
        self._dump: list[dict[str, Json]] = []
        self._people = 0
        self._unboxed = 0
        self._suppressed = 0

    def add(self, picture: KeypointPicture, estimate: Estimate) -> None:
        truth = picture.joints[:, self._theirs]
        chosen = picture.labelled & picture.boxed
        self._unboxed += int((picture.labelled & ~chosen).sum())
        if self._boxes is None:
            boxes, scores = picture.boxes[chosen], np.ones(int(chosen.sum()), np.float32)
        else:
            found = self._boxes.get(picture.id, Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)))
            boxes, scores = found.boxes, found.scores
        pixels = picture.read()
        try:
            result = estimate(pixels, boxes, box_scores=scores)
        except UserError as error:
            raise UserError(f"{picture.name}: {error}") from None
        self._people += len(result)
        kept = self._kept(result)
        if self._pck is not None:
            self._pck.update(result.keypoints[:, self._mine], truth[chosen], picture.areas[chosen])
        if self._oks is not None:
            labelled = Truth(truth.astype(np.float64), picture.boxes.astype(np.float64), picture.areas, picture.crowd)
            people = kept.keypoints[:, self._mine]
            self._oks.update(picture.id, people, kept.person_scores, labelled)
        self._dump += kept.to_coco(picture.id)

    def evaluation(self, data: KeypointData) -> Evaluation:
        metric = self._oks or self._pck
        assert metric is not None
        counts = {
            **data.counts,
            "pictures_judged": metric.pictures,
            "people_predicted": self._people,
            "people_without_box": self._unboxed,
            "people_suppressed": self._suppressed,
            "joints_not_in_data": len(self._recipe.joints) - len(self._mine),
        }
        if self._oks is not None:
            figures = asdict(self._oks.result())
            bounds = interval(self._oks, rounds=200)
            return Evaluation(self._metric, self._oks.value(), bounds, figures, counts, self._dump)
        assert self._pck is not None
        result = self._pck.result()
        sizes: dict[str, Json] = {name: {"value": value, "joints": n} for name, (value, n) in result.bands.items()}
        figures = {
            "alpha": self._pck.alpha,
            "reference": self._pck.reference,
            "joints": dict(result.joints),
            "mean_of_joints": result.mean_of_joints,
            "sizes": sizes,
        }
        counts |= {"people_judged": result.people, f"people_without_{self._pck.reference}": result.skipped}
        bounds, each = interval(self._pck), self._pck.by_picture()
        return Evaluation(self._metric, result.value, bounds, figures, counts, self._dump, each)

    def _kept(self, result: PoseResult) -> PoseResult:
        """Returns the result without people whom a better scored one covers; labelled boxes hold one person each."""
        if self._boxes is None or len(result) < 2 or not self._recipe.sigmas:
            return result
        _, extents = box_extents(result.boxes, self._recipe)
        scores = result.person_scores.astype(np.float64)
        keep = oks_nms(result.keypoints.astype(np.float64), scores, extents.prod(axis=1), self._recipe.sigmas)
        self._suppressed += len(result) - len(keep)
        return result[keep]


def _plain(value: object) -> Json:
    """Returns JSON values with None for NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{type(value).__name__} is no JSON value")
