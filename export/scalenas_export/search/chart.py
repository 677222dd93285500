"""What a picture of a front shows: points with their errors, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scalenas.search.pareto import front

Kind = Literal["member", "front", "tried"]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """One net.

    Attributes:
        label: What it is called: `hrnet-w16`, `trial 17`.
        kind: `member` (a named net of the supernet, such as HRNet), `front` (nothing tried is better in both), `tried`.
        cost: Value on the horizontal axis; less is better.
        gain: Value on the vertical axis; more is better.
        cost_interval: 95 % interval of `cost`, None where there is none.
        gain_interval: 95 % interval of `gain`, None where there is none.
        confirmed: The cost was measured again at grade `report`.
        lines: What a page shows when the pointer is on the point.
    """

    label: str
    kind: Kind
    cost: float
    gain: float
    cost_interval: Interval | None = None
    gain_interval: Interval | None = None
    confirmed: bool = False
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """The nets tried on one device.

    Attributes:
        title: What was searched, and where.
        cost_label: Name and unit of the horizontal axis.
        gain_label: Name and unit of the vertical axis.
        points: All nets, in the order they were tried.
        limit: Budget on the horizontal axis, None without one.
        footnote: What the figures mean.
    """

    title: str
    cost_label: str
    gain_label: str
    points: tuple[Point, ...]
    limit: float | None
    footnote: str


def front_indices(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Returns which points no other point beats, by rising cost.

    Args:
        costs: Less is better.
        gains: More is better.
    """
    if not costs:
        return []
    return sorted(front([(cost, -gain) for cost, gain in zip(costs, gains, strict=True)]), key=lambda i: costs[i])


def stairs(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Returns the corners of the line that bounds what the points reach, as costs and gains."""
    kept = [points[index] for index in front_indices([p.cost for p in points], [p.gain for p in points])]
    costs, gains = [], []
    for before, point in zip([None, *kept], kept, strict=False):
        if before is not None:
            costs.append(point.cost)
            gains.append(before.gain)
        costs.append(point.cost)
        gains.append(point.gain)
    return costs, gains


def errors(points: Sequence[Point], axis: Literal["cost", "gain"]) -> tuple[list[float], list[float]]:
    """Returns how far each point's interval reaches below and above its value; 0 where it has none."""
    below, above = [], []
    for point in points:
        value, interval = (point.cost, point.cost_interval) if axis == "cost" else (point.gain, point.gain_interval)
        low, high = interval or (value, value)
        below.append(max(0.0, value - low))
        above.append(max(0.0, high - value))
    return below, above
