"""The One-Euro filter: little jitter at rest, little lag in motion (Casiez, Roussel and Vogel, CHI 2012)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Double = NDArray[np.float64]


class OneEuroFilter:
    """Smooths an array of values over time, every element by itself.

    A low-pass filter whose cut-off frequency grows with the speed of the value: `min_cutoff + beta * |speed|`.
    """

    def __init__(self, *, min_cutoff: float = 1.0, beta: float = 0.0, speed_cutoff: float = 1.0) -> None:
        """Takes the filter's constants.

        Args:
            min_cutoff: Cut-off at rest, Hz; lower is smoother and later.
            beta: Hz of cut-off per unit of speed; higher follows fast motion better.
            speed_cutoff: Cut-off of the speed's own low-pass filter, Hz.

        Raises:
            ValueError: a cut-off that is not positive, or a negative beta.
        """
        if not (min_cutoff > 0 and speed_cutoff > 0 and beta >= 0):
            raise ValueError(
                f"cut-offs must be positive and beta not negative, got min_cutoff {min_cutoff}, "
                f"beta {beta}, speed_cutoff {speed_cutoff}"
            )
        self._min_cutoff, self._beta, self._speed_cutoff = min_cutoff, beta, speed_cutoff
        self._time = -math.inf
        self._value: Double | None = None
        self._speed: Double | None = None

    def __call__(self, value: NDArray[Any], time: float, *, known: NDArray[np.bool_] | None = None) -> Double:
        """Returns the smoothed value, float64 of the same shape; the first one comes back as it is.

        Args:
            value: The measured values; the shape stays the same from call to call.
            time: Seconds; must grow from call to call.
            known: Which elements were measured (same shape). Others come back as measured and start afresh when
                they are next known.

        Raises:
            ValueError: `time` does not grow.
        """
        measured = np.asarray(value, np.float64)
        seen = np.ones(measured.shape, bool) if known is None else known
        if not time > self._time:
            raise ValueError(f"time must grow, got {time} after {self._time}")
        if self._value is None or self._speed is None:
            self._value, self._speed = np.where(seen, measured, np.nan), np.zeros(measured.shape)
            self._time = time
            return measured.copy()
        passed = time - self._time
        # NaN marks elements that were not known last time: they start again from what is measured.
        last = np.where(np.isnan(self._value), measured, self._value)
        weight = _weight(np.array(self._speed_cutoff), passed)
        self._speed = np.where(
            np.isnan(self._value), 0, weight * (measured - last) / passed + (1 - weight) * self._speed
        )
        weight = _weight(self._min_cutoff + self._beta * np.abs(self._speed), passed)
        smooth: Double = weight * measured + (1 - weight) * last
        self._value = np.where(seen, smooth, np.nan)
        self._time = time
        return np.where(seen, smooth, measured)


def _weight(cutoff: Double, passed: float) -> Double:
    """Returns the weight of the new value in exponential smoothing at this cut-off (Hz), `passed` seconds on."""
    result: Double = 1 / (1 + 1 / (2 * math.pi * cutoff * passed))
    return result
