"""COCO's keypoint AP: average precision over thresholds of object keypoint similarity (OKS).

The rules are those of COCO's own evaluation, so that results agree with pycocotools: at most 20 people a picture, the
highest scores first; crowds and people without labelled joints neither help nor harm; equal scores keep their order,
pictures in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalenas_runtime.errors import UserError

Floats = NDArray[np.float64]

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
_RECALLS: Floats = np.linspace(0.0, 1.0, 101)
_MOST_PEOPLE = 20
_TINY = float(np.spacing(1))
AREAS: dict[str, tuple[float, float]] = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True, slots=True)
class OksResult:
    """COCO's ten figures, 0..1; -1 where there is nobody to find, as COCO has it.

    Attributes:
        ap: Mean over the thresholds .50 .55 ... .95; the headline.
        ap50, ap75: At one threshold.
        ap_medium, ap_large: Of people with an area of 32**2 to 96**2, and above.
        ar, ar50, ar75, ar_medium, ar_large: Recall, likewise.
        people: Labelled people counted.
        detections: Predicted people.
    """

    ap: float
    ap50: float
    ap75: float
    ap_medium: float
    ap_large: float
    ar: float
    ar50: float
    ar75: float
    ar_medium: float
    ar_large: float
    people: int
    detections: int


@dataclass(frozen=True, slots=True)
class Truth:
    """The N labelled people of a picture.

    Attributes:
        joints: (N, K, 3) x, y and 0 not labelled, 1 hidden, 2 visible.
        boxes: (N, 4) x1, y1, x2, y2.
        areas: (N,) square pixels.
        crowd: (N,) bool.
    """

    joints: Floats
    boxes: Floats
    areas: Floats
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Matches:
    """One picture and one range of areas: per threshold and detection, whether it found someone or is ignored."""

    scores: Floats
    found: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    people: int


class CocoOks:
    """COCO keypoint AP and AR, accumulated picture by picture."""

    def __init__(self, sigmas: Sequence[float]) -> None:
        """Starts empty.

        Args:
            sigmas: OKS constant of each of the K joints, in the order of the joints.

        Raises:
            UserError: no sigmas; the recipe's joints have none.
        """
        if not len(sigmas):
            raise UserError("OKS needs a sigma for each joint, and the recipe has none; use --metric pck")
        self._variances: Floats = (2 * np.asarray(sigmas, np.float64)) ** 2
        self._pictures: list[tuple[int, dict[str, _Matches | None]]] = []
        self._people = 0
        self._detections = 0

    @property
    def pictures(self) -> int:
        """Number of pictures seen."""
        return len(self._pictures)

    def update(self, picture: int, predicted: ArrayLike, scores: ArrayLike, truth: Truth) -> None:
        """Adds one picture.

        Args:
            picture: Its id; pictures count in the order of their ids.
            predicted: (M, K, 2) x, y of the predicted people, in pixels of the picture.
            scores: (M,) their scores.
            truth: The labelled people.

        Raises:
            ValueError: shapes that do not fit.
        """
        people, joints = np.asarray(predicted, np.float64), len(self._variances)
        marks = np.asarray(scores, np.float64)
        if people.shape != (len(marks), joints, 2) or truth.joints.shape != (len(truth.areas), joints, 3):
            raise ValueError(
                f"OKS takes (M, {joints}, 2), (M,) and (N, {joints}, 3), got {people.shape}, {marks.shape} and"
                f" {truth.joints.shape}"
            )
        sides = people.max(axis=1) - people.min(axis=1) if len(people) else np.zeros((0, 2))
        order = np.argsort(-marks, kind="mergesort")[:_MOST_PEOPLE]
        similarity = similarities(people[order], truth, self._variances)
        unlabelled = truth.crowd | ~(truth.joints[:, :, 2] > 0).any(axis=1)
        areas = sides.prod(axis=1)[order]
        matches = {
            name: _match(similarity, marks[order], areas, (truth, unlabelled), bounds) for name, bounds in AREAS.items()
        }
        self._pictures.append((picture, matches))
        self._people += int((~unlabelled).sum())
        self._detections += len(marks)

    def value(self, weights: NDArray[np.int64] | None = None) -> float:
        """Returns the AP (NaN without anybody to find); `weights` counts each picture that often."""
        precision, _ = self._accumulate("all", weights)
        mean = _mean(precision)
        return float("nan") if mean < 0 else mean

    def result(self) -> OksResult:
        """Returns COCO's figures about the pictures so far."""
        tables = {name: self._accumulate(name, None) for name in AREAS}
        half, strict = 0, 5
        (precision, recall), medium, large = tables["all"], tables["medium"], tables["large"]
        return OksResult(
            _mean(precision),
            _mean(precision[half]),
            _mean(precision[strict]),
            _mean(medium[0]),
            _mean(large[0]),
            _mean(recall),
            _mean(recall[half]),
            _mean(recall[strict]),
            _mean(medium[1]),
            _mean(large[1]),
            self._people,
            self._detections,
        )

    def _accumulate(self, area: str, weights: NDArray[np.int64] | None) -> tuple[Floats, Floats]:
        """Returns precision (thresholds, recalls) and recall (thresholds,), -1 where there is nobody."""
        times = np.ones(len(self._pictures), np.int64) if weights is None else weights
        ordered = sorted(range(len(self._pictures)), key=lambda place: self._pictures[place][0])
        kept = [m for place in ordered if (m := self._pictures[place][1][area]) for _ in range(int(times[place]))]
        people = sum(match.people for match in kept)
        precision, recall = np.full((len(THRESHOLDS), len(_RECALLS)), -1.0), np.full(len(THRESHOLDS), -1.0)
        if people == 0:
            return precision, recall
        order = np.argsort(-np.concatenate([match.scores for match in kept]), kind="mergesort")
        found = np.concatenate([match.found for match in kept], axis=1)[:, order]
        counted = ~np.concatenate([match.ignored for match in kept], axis=1)[:, order]
        hits = np.cumsum(found & counted, axis=1).astype(np.float64)
        misses = np.cumsum(~found & counted, axis=1).astype(np.float64)
        for number in range(len(THRESHOLDS)):
            reached = hits[number] / people
            recall[number] = reached[-1] if len(reached) else 0.0
            exact = hits[number] / (hits[number] + misses[number] + _TINY)
            # The precision at a recall is the best at that recall or beyond.
            best = np.maximum.accumulate(exact[::-1])[::-1]
            places = np.searchsorted(reached, _RECALLS, side="left")
            precision[number] = np.append(best, 0.0)[places]
        return precision, recall


def similarities(people: Floats, truth: Truth, variances: Floats) -> Floats:
    """Returns the OKS of each predicted with each labelled person, (M, N), 0..1.

    Where nobody labelled a joint of a person (a crowd), the distance is that to the doubled box.
    """
    known = truth.joints[:, :, 2] > 0
    offset = people[:, None] - truth.joints[None, :, :, :2]
    low, size = truth.boxes[:, None, :2], truth.boxes[:, None, 2:] - truth.boxes[:, None, :2]
    outside = np.maximum(0, low - size - people[:, None]) + np.maximum(0, people[:, None] - (low + 2 * size))
    empty = np.asarray(~known.any(axis=1))
    distance = (np.where(empty[:, None, None], outside, offset) ** 2).sum(axis=-1)
    exponent = distance / variances / (truth.areas[:, None] + _TINY) / 2
    counted = known | empty[:, None]
    similar: Floats = (np.exp(-exponent) * counted).sum(axis=-1) / counted.sum(axis=-1)
    return similar


def oks_nms(
    keypoints: Floats, scores: Floats, areas: Floats, sigmas: Sequence[float], *, threshold: float = 0.9
) -> list[int]:
    """Returns which people to keep, the highest score first: none of them has an OKS above the threshold with a better.

    The area between two people is the mean of theirs (HRNet's rule).

    Args:
        keypoints: (N, K, 2) x, y in pixels of the picture.
        scores: (N,).
        areas: (N,) square pixels of the boxes.
        sigmas: OKS constant of each joint.
        threshold: OKS above which the weaker of two people goes, 0..1.
    """
    variances = (2 * np.asarray(sigmas, np.float64)) ** 2
    left = np.argsort(-scores, kind="mergesort")
    kept: list[int] = []
    while len(left):
        first, left = int(left[0]), left[1:]
        kept.append(first)
        distance = ((keypoints[left] - keypoints[first]) ** 2).sum(axis=-1)
        area = (areas[left] + areas[first]) / 2 + _TINY
        similar = np.exp(-distance / variances / area[:, None] / 2).mean(axis=1)
        left = left[similar <= threshold]
    return kept


def _match(
    similarity: Floats,
    scores: Floats,
    areas: Floats,
    people: tuple[Truth, NDArray[np.bool_]],
    bounds: tuple[float, float],
) -> _Matches | None:
    """Gives each detection the best free person, people who count before those who do not."""
    truth, unlabelled = people
    if not len(truth.areas) and not len(scores):
        return None
    low, high = bounds
    aside: NDArray[np.bool_] = np.logical_or.reduce([unlabelled, truth.areas < low, truth.areas > high])
    order = np.argsort(aside, kind="mergesort")
    ignored, crowd, similarity = aside[order], truth.crowd[order], similarity[:, order]
    found = np.zeros((len(THRESHOLDS), len(scores)), np.bool_)
    passed = np.zeros_like(found)
    for number, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(ignored), np.bool_)
        for detection, row in enumerate(similarity):
            best = _best(row, float(threshold), taken, ignored, crowd)
            if best >= 0:
                found[number, detection], passed[number, detection] = True, ignored[best]
                taken[best] = True
    outside = (areas < low) | (areas > high)
    return _Matches(scores, found, passed | (~found & outside), int((~ignored).sum()))


def _best(
    row: Floats, threshold: float, taken: NDArray[np.bool_], ignored: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> int:
    """Returns the person of the highest similarity at or above the threshold, the last of equals; -1 for nobody."""
    least, best = min(threshold, 1 - 1e-10), -1
    for person in np.flatnonzero(row >= least):
        if taken[person] and not crowd[person]:
            continue
        if best >= 0 and not ignored[best] and ignored[person]:
            break
        if row[person] >= least:
            least, best = float(row[person]), int(person)
    return best


def _mean(values: Floats | np.float64) -> float:
    known = np.asarray(values)[np.asarray(values) > -1]
    return float(known.mean()) if known.size else -1.0
