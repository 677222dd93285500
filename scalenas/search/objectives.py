"""What a search asks about a candidate: objectives to improve and constraints to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas.search.candidates import Candidate

Direction = Literal["minimize", "maximize"]


class MeasureFailed(RuntimeError):
    """A candidate could not be measured; the search records the text and goes on with the next one."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measure gives back.

    Attributes:
        value: The figure that is compared.
        details: Raw figures that belong on the record: interval, ratio, flags, ...
    """

    value: float
    details: Mapping[str, Json] = field(default_factory=dict)


Measure = Callable[["Candidate"], "Measured | float"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure to make better.

    Attributes:
        name: How records and tables call it.
        measure: Gives the figure of a candidate, or raises `MeasureFailed`.
        direction: Whether less or more is better.
        unit: For people, such as `ms`.

    Raises:
        UserError: the direction is none of the two, or the name is empty.
    """

    name: str
    measure: Measure
    direction: Direction
    unit: str = ""

    def __post_init__(self) -> None:
        _check_name("objective", self.name)
        check_direction(self.name, self.direction)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A figure that may not be above a limit; a candidate that breaks it is measured no further.

    Attributes:
        name: How records and tables call it.
        measure: Gives the figure of a candidate, or raises `MeasureFailed`.
        upper: The limit; a figure equal to it is allowed.
        unit: For people, such as `ms`.

    Raises:
        UserError: the limit is not a finite number, or the name is empty.
    """

    name: str
    measure: Measure
    upper: float
    unit: str = ""

    def __post_init__(self) -> None:
        _check_name("constraint", self.name)
        if not math.isfinite(self.upper):
            raise UserError(f"the limit of constraint {self.name!r} is {self.upper}; needed is a finite number")


@dataclass(frozen=True, slots=True)
class Goal:
    """The name and the direction of an objective: what comparing candidates needs to know of it."""

    name: str
    direction: Direction

    def cost(self, value: float) -> float:
        """Returns `value` such that less is better."""
        return value if self.direction == "minimize" else -value


def check_measures(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
    """Accepts at least one objective, and names that occur once per kind.

    An objective may have the name of a constraint: it is measured once and counts as both.

    Raises:
        UserError: there is no objective, or a name stands twice.
    """
    if not objectives:
        raise UserError("a search needs at least one objective, got none")
    kinds: tuple[tuple[str, Sequence[Objective | Constraint]], ...] = (
        ("objective", objectives),
        ("constraint", constraints),
    )
    for kind, items in kinds:
        names = [item.name for item in items]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{kind} {name!r} is given twice; every {kind} needs a name of its own")


def check_direction(name: str, direction: str) -> None:
    """Accepts `minimize` and `maximize`.

    Raises:
        UserError: the direction of `name` is something else.
    """
    if direction not in ("minimize", "maximize"):
        raise UserError(f"direction of {name!r} is {direction!r}; known: minimize, maximize")


def _check_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not name:
        raise UserError(f"the name of an {kind} is {name!r}; needed is a text such as 'latency'".replace("an c", "a c"))
