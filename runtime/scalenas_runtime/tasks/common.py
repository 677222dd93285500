"""Checks that both task recipes share."""

from __future__ import annotations

import math
from collections.abc import Sequence

SIZE_STEP = 32
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def check_size(height: int, width: int) -> None:
    """Accepts input sizes the nets can take: positive multiples of 32, in pixels.

    Raises:
        ValueError: any other size.
    """
    for name, value in (("height", height), ("width", width)):
        if value < SIZE_STEP or value % SIZE_STEP:
            raise ValueError(f"{name} {value} is not a positive multiple of {SIZE_STEP}")


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Accepts finite means and positive standard deviations, in grey levels 0..255.

    Raises:
        ValueError: anything else.
    """
    if not all(math.isfinite(value) for value in mean):
        raise ValueError(f"mean {tuple(mean)} is not finite")
    if not all(math.isfinite(value) and value > 0 for value in std):
        raise ValueError(f"std {tuple(std)} must be positive")
