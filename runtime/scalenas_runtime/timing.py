"""Where the time of one estimate goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Where one estimate spent its time, in milliseconds: pre-processing, the engine, decoding."""

    pre_ms: float
    infer_ms: float
    post_ms: float

    @property
    def total_ms(self) -> float:
        """The three together."""
        return self.pre_ms + self.infer_ms + self.post_ms
