"""PCK, the share of joints found within a share of the person's own size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalenas_runtime.errors import UserError

# People by the square root of their area in pixels; 32 and 96 are COCO's bounds of small and large.
_SIDES = (0.0, 32.0, 64.0, 96.0, 144.0, float("inf"))
AREA_BANDS: tuple[tuple[str, float, float], ...] = tuple(
    (f"{low:g}-{high:g} px" if high < _SIDES[-1] else f"{low:g} px and more", low**2, high**2)
    for low, high in itertools.pairwise(_SIDES)
)
_ENDS = {
    "torso": (("right_hip",), ("left_shoulder",)),
    "head": (("head_top",), ("upper_neck", "neck")),
}


Reference = Literal["torso", "head"]


def has_reference(joints: Sequence[str], reference: Reference) -> bool:
    """Returns whether the joints hold both ends of a reference length, without which PCK cannot be taken."""
    return all(any(name in joints for name in end) for end in _ENDS[reference])


@dataclass(frozen=True, slots=True)
class PckResult:
    """Shares of found joints, 0..1.

    Attributes:
        value: Over all labelled joints of all people.
        joints: By joint name; None for a joint that was never labelled.
        mean_of_joints: Mean of those by joint.
        bands: By size of the person (`AREA_BANDS`): share (None without people) and number of labelled joints.
        people: People counted.
        skipped: People not counted because the joints that give their size are not both labelled.
    """

    value: float
    joints: dict[str, float | None]
    mean_of_joints: float
    bands: dict[str, tuple[float | None, int]]
    people: int
    skipped: int


class Pck:
    """PCK@alpha, accumulated picture by picture (Yang and Ramanan, PAMI 2013).

    A joint is found when it lies within `alpha` times the person's reference length of its label (the bound counts).
    `torso` is the distance from right hip to left shoulder, LSP's convention; `head` (PCKh, Andriluka et al., CVPR
    2014) that from the top of the head to the neck. People whose reference is not labelled, or has no length, are
    skipped and counted. Joints that are not labelled do not count; hidden but labelled ones do.
    """

    def __init__(self, joints: Sequence[str], *, alpha: float = 0.2, reference: Reference = "torso") -> None:
        """Starts empty.

        Args:
            joints: Names of the K joints.
            alpha: Share of the reference length.
            reference: Which length of the person.

        Raises:
            UserError: the joints that the reference is measured between are not there, or alpha is not positive.
        """
        if not alpha > 0:
            raise UserError(f"alpha {alpha} must be positive")
        names = tuple(joints)
        ends = [next((names.index(name) for name in end if name in names), None) for end in _ENDS[reference]]
        if None in ends:
            wanted = " and ".join(" or ".join(end) for end in _ENDS[reference])
            raise UserError(f"PCK by {reference} needs the joints {wanted}; there are {', '.join(names)}")
        self.joints, self.alpha, self.reference = names, alpha, reference
        self._ends = [end for end in ends if end is not None]
        self._found: list[NDArray[np.int64]] = []
        self._labelled: list[NDArray[np.int64]] = []
        self._people = 0
        self._skipped = 0

    @property
    def pictures(self) -> int:
        """Number of pictures seen."""
        return len(self._found)

    def update(self, predicted: ArrayLike, truth: ArrayLike, areas: ArrayLike | None = None) -> None:
        """Adds the people of one picture.

        Args:
            predicted: (N, K, 2) x, y in pixels of the picture.
            truth: (N, K, 3) x, y and 0 where not labelled, in the same order of people.
            areas: (N,) square pixels, for the bands; the box around the labelled joints where left out.

        Raises:
            ValueError: shapes that do not fit.
        """
        found, label = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
        count = len(label)
        if label.shape != (count, len(self.joints), 3) or found.shape != (count, len(self.joints), 2):
            raise ValueError(
                f"PCK takes (N, {len(self.joints)}, 2) and (N, {len(self.joints)}, 3),"
                f" got {found.shape} and {label.shape}"
            )
        known = label[:, :, 2] > 0
        first, second = self._ends
        length = np.hypot(*(label[:, first, :2] - label[:, second, :2]).T)
        usable = known[:, first] & known[:, second] & (length > 0)
        distance = np.hypot(*np.moveaxis(found - label[:, :, :2], 2, 0))
        right = known & usable[:, None] & (distance <= self.alpha * length[:, None])
        counted = known & usable[:, None]
        band = _bands(label, known, areas)
        tally = np.zeros((2, len(AREA_BANDS), len(self.joints)), np.int64)
        for number in range(len(AREA_BANDS)):
            tally[0, number] = right[band == number].sum(axis=0)
            tally[1, number] = counted[band == number].sum(axis=0)
        self._found.append(tally[0])
        self._labelled.append(tally[1])
        self._people += int(usable.sum())
        self._skipped += count - int(usable.sum())

    def by_picture(self) -> NDArray[np.int64]:
        """Returns (pictures, 2): joints found and joints labelled; see `Counts`."""
        sums = [[found.sum(), labelled.sum()] for found, labelled in zip(self._found, self._labelled, strict=True)]
        return np.array(sums, np.int64).reshape(-1, 2)

    def value(self, weights: NDArray[np.int64] | None = None) -> float:
        """Returns the share over all joints (NaN without any); `weights` counts each picture that often."""
        found, labelled = self._sums(weights)
        share = _share(found.sum(), labelled.sum())
        return float("nan") if share is None else share

    def result(self) -> PckResult:
        """Returns everything about the pictures so far."""
        found, labelled = self._sums(None)
        by_joint = [_share(a, b) for a, b in zip(found.sum(axis=0), labelled.sum(axis=0), strict=True)]
        known = [share for share in by_joint if share is not None]
        bands = {
            name: (_share(found[number].sum(), labelled[number].sum()), int(labelled[number].sum()))
            for number, (name, _, _) in enumerate(AREA_BANDS)
        }
        return PckResult(
            self.value(),
            dict(zip(self.joints, by_joint, strict=True)),
            float(np.mean(known)) if known else float("nan"),
            bands,
            self._people,
            self._skipped,
        )

    def _sums(self, weights: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        empty = np.zeros((1, len(AREA_BANDS), len(self.joints)), np.int64)
        if not self._found:
            return empty[0], empty[0]
        factors = np.ones(len(self._found), np.int64) if weights is None else weights
        found, labelled = (np.tensordot(factors, np.array(each), 1) for each in (self._found, self._labelled))
        return found, labelled


def _share(part: int, whole: int) -> float | None:
    return int(part) / int(whole) if whole else None


def _bands(label: NDArray[np.float64], known: NDArray[np.bool_], areas: ArrayLike | None) -> NDArray[np.intp]:
    if areas is None:
        places = np.where(known[:, :, None], label[:, :, :2], np.nan)
        sides = _extent(places)
        areas = sides[:, 0] * sides[:, 1]
    return np.searchsorted([high for _, _, high in AREA_BANDS[:-1]], np.asarray(areas, np.float64), side="right")


def _extent(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns (N, 2) width and height of the points that are not NaN."""
    low = np.fmin.reduce(places, axis=1, initial=np.inf)
    high = np.fmax.reduce(places, axis=1, initial=-np.inf)
    sides: NDArray[np.float64] = np.maximum(high - low, 0)
    return sides
