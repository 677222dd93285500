"""Samples that say which they are, and ones that fail; in a module of its own, because worker processes import it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scalenas.data.samples import Sample
from scalenas_runtime.errors import UserError


@dataclass(frozen=True)
class Numbered:
    """`count` samples: the first pixel is the index, the others are chance; one of them may fail."""

    count: int
    bad: int | None = None
    how: Literal["user", "bug", "kill"] = "user"

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"im{index}.jpg"

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if index == self.bad:
            if self.how == "user":
                raise UserError(f"/data/im{index}.jpg is truncated")
            if self.how == "bug":
                raise ZeroDivisionError("division by zero")
            os.kill(os.getpid(), signal.SIGKILL)
        picture = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        picture[0, 0] = index
        return Sample(picture, np.full((2, 1, 1), index, np.float32), np.ones(2, np.float32))
