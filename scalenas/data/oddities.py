"""People whose labels are improbable: joints outside the picture or far from the box, long limbs, swaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.readers import KeypointPicture
from scalenas_runtime.tasks.sets import JointSet

# Pixels by which a joint may lie outside the picture, shares of the box's larger side for all else.
_EDGE = 2.0
_OUTSIDE_BOX = 0.25
_LONG = 0.9
# Crossed limbs that are so much shorter, by so much of the box, are likelier a swap than a pose.
_SHORTER, _GAIN = 0.75, 0.15
_SMALL_BOX = 16.0


@dataclass(frozen=True, slots=True)
class OddPerson:
    """Something improbable about one person.

    Attributes:
        picture: Name of the picture.
        kind: `small box`, `outside picture`, `outside box`, `long limb` or `swap`.
        what: One line with the joints and values.
    """

    picture: str
    kind: str
    what: str


def odd_people(picture: KeypointPicture, size: tuple[int, ...], body: JointSet) -> list[OddPerson]:
    """Returns what is improbable about the labelled people of a picture.

    Args:
        picture: Its labels.
        size: Height and width of the picture in pixels.
        body: The joints in the order of the labels.
    """
    joints = body.joints
    found = []
    for box, table in zip(picture.boxes[picture.labelled], picture.joints[picture.labelled], strict=True):
        points, labelled = table[:, :2].astype(np.float64), table[:, 2] > 0
        side = float(max(box[2] - box[0], box[3] - box[1]))
        lines = [("small box", f"the box is {box[2] - box[0]:.0f} x {box[3] - box[1]:.0f} pixels")]
        found += [] if side >= _SMALL_BOX else lines
        found += _outside(points, labelled, joints, ((0, 0, size[1] - 1, size[0] - 1), _EDGE, "outside picture"))
        found += _outside(points, labelled, joints, (tuple(box.tolist()), _OUTSIDE_BOX * side, "outside box"))
        for first, second in body.edges:
            length = float(np.linalg.norm(points[first] - points[second]))
            if labelled[first] and labelled[second] and length > _LONG * side:
                text = f"{joints[first]} to {joints[second]} is {length:.0f} of {side:.0f} pixels"
                found.append(("long limb", text))
        found += [("swap", text) for text in likely_swaps(points, labelled, body)]
    return [OddPerson(picture.name, kind, what) for kind, what in found]


def likely_swaps(points: NDArray[np.float64], labelled: NDArray[np.bool_], body: JointSet) -> list[str]:
    """Returns pairs of limbs that would be much shorter if left and right changed places at one end.

    Args:
        points: (K, 2) x, y.
        labelled: (K,).
        body: The joints in that order; its flip pairs say which are left and right of each other.
    """
    other = {a: b for pair in body.flip_pairs for a, b in (pair, pair[::-1])}
    order = {frozenset(edge): number for number, edge in enumerate(body.edges)}
    side = float(np.ptp(points[labelled], axis=0).max()) if labelled.any() else 0.0
    lines = []
    for number, (first, second) in enumerate(body.edges):
        if first not in other or second not in other:
            continue
        mirrored = order.get(frozenset((other[first], other[second])), -1)
        four = [first, second, other[first], other[second]]
        # Every pair of limbs once; a limb between left and right is its own mirror image.
        if mirrored <= number or not labelled[four].all():
            continue
        a, b, c, d = points[four]
        straight = float(np.linalg.norm(a - b) + np.linalg.norm(c - d))
        crossed = float(np.linalg.norm(a - d) + np.linalg.norm(c - b))
        if crossed < _SHORTER * straight and straight - crossed > _GAIN * side:
            names = f"{body.joints[first]} to {body.joints[second]} and the other side's"
            lines.append(f"{names}: {straight:.0f} pixels, swapped {crossed:.0f}")
    return lines


def _outside(
    points: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    joints: Sequence[str],
    where: tuple[tuple[float, ...], float, str],
) -> list[tuple[str, str]]:
    (left, top, right, bottom), margin, kind = where
    distance = np.maximum(np.maximum([left, top] - points, points - [right, bottom]), 0).max(1)
    return [
        (kind, f"{joints[index]} by {distance[index]:.0f} pixels")
        for index in np.flatnonzero(labelled & (distance > margin)).tolist()
    ]
