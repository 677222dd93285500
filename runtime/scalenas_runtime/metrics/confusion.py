"""mIoU and pixel accuracy from one confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ConfusionResult:
    """Agreement of class maps, 0..1.

    Attributes:
        value: mIoU: mean over the classes that occur in the labels or the predictions.
        classes: IoU by class name; None for a class that occurs in neither.
        pixel_accuracy: Share of labelled pixels that are right.
        mean_accuracy: Mean over the labelled classes of the share of their pixels that is right.
        pixels: Labelled pixels.
        ignored: Pixels with the ignored label.
    """

    value: float
    classes: dict[str, float | None]
    pixel_accuracy: float
    mean_accuracy: float
    pixels: int
    ignored: int


class Confusion:
    """Counts of (labelled, predicted) pixels over all pictures; mIoU as Cityscapes defines it.

    IoU of a class is TP / (TP + FP + FN) over the pixels of all pictures together.
    """

    def __init__(self, classes: Sequence[str], *, ignore: int = 255) -> None:
        """Starts empty.

        Args:
            classes: Names by label.
            ignore: Label of pixels that do not count.
        """
        self.classes = tuple(classes)
        self.ignore = ignore
        self.matrix: NDArray[np.int64] = np.zeros((len(classes), len(classes)), np.int64)
        self._ignored = 0
        self._tallies: list[NDArray[np.int64]] = []

    @property
    def pictures(self) -> int:
        """Number of pictures seen."""
        return len(self._tallies)

    def update(self, predicted: NDArray[Any], truth: NDArray[Any]) -> None:
        """Adds one picture.

        Args:
            predicted: (H, W) class of each pixel.
            truth: (H, W) label of each pixel, classes or the ignored label.

        Raises:
            ValueError: other shapes, a predicted class or a label that does not exist.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"predicted and labelled class maps differ in shape: {predicted.shape} and {truth.shape}")
        count = len(self.classes)
        counted = truth != self.ignore
        given, labels = predicted[counted].astype(np.int64), truth[counted].astype(np.int64)
        for name, values in (("predicted class", given), ("label", labels)):
            if values.size and not 0 <= values.min() <= values.max() < count:
                raise ValueError(f"a {name} lies outside 0..{count - 1}: {values.min()}..{values.max()}")
        matrix = np.bincount(labels * count + given, minlength=count * count).reshape(count, count)
        self.matrix += matrix
        self._ignored += truth.size - labels.size
        self._tallies.append(np.stack([np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)]))

    def by_picture(self) -> NDArray[np.int64]:
        """Returns (pictures, 3, classes): pixels that are right, labelled and predicted; see `Counts`."""
        return np.array(self._tallies, np.int64).reshape(-1, 3, len(self.classes))

    def value(self, weights: NDArray[np.int64] | None = None) -> float:
        """Returns the mIoU (NaN without any pixel); `weights` counts each picture that often."""
        if not self._tallies:
            return float("nan")
        factors = np.ones(len(self._tallies), np.int64) if weights is None else weights
        right, labelled, predicted = np.tensordot(factors, np.array(self._tallies), 1)
        union = labelled + predicted - right
        return float(np.mean(right[union > 0] / union[union > 0])) if union.any() else float("nan")

    def result(self) -> ConfusionResult:
        """Returns everything about the pictures so far."""
        right, labelled = np.diag(self.matrix), self.matrix.sum(axis=1)
        union = labelled + self.matrix.sum(axis=0) - right
        ious = {
            name: float(right[label] / union[label]) if union[label] else None
            for label, name in enumerate(self.classes)
        }
        total = int(labelled.sum())
        known = labelled > 0
        return ConfusionResult(
            self.value(),
            ious,
            float(right.sum() / total) if total else float("nan"),
            float(np.mean(right[known] / labelled[known])) if total else float("nan"),
            total,
            self._ignored,
        )
