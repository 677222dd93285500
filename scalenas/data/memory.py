"""What a source gave before, kept for the next epoch: small sets fit into memory, and drawing takes longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Memory(Generic[T]):
    """A function of an index that gives what it gave before for the first `room` indices that it was asked for.

    Attributes:
        make: Gives item `index`; its results are handed out again, so nobody may write into them.
        room: How many items are kept; 0 keeps none.
    """

    make: Callable[[int], T]
    room: int = 0
    _kept: dict[int, T] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, index: int) -> T:
        """Returns item `index`."""
        known = self._kept.get(index)
        if known is not None:
            return known
        made = self.make(index)
        if len(self._kept) < self.room:
            self._kept[index] = made
        return made
