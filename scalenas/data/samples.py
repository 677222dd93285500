"""What training reads: samples by index, mixed from several sources, and which of them make up a global step.

Nothing here has a state. The samples of step n follow from (seed, n) alone, and the chance inside each of them from
(seed, place in the run), so a run that starts again at step n goes on as if it had never stopped, and the number of
worker processes and ranks changes nothing but the speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.pictures import Picture

# Keep apart the orders of the epochs and the chance inside the samples.
_ORDER, _SAMPLE = 1, 2


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and what the net should say about it.

    Attributes:
        picture: uint8 (H, W, 3) BGR, as the net takes it.
        target: Pose: float32 (K, h, w) heatmaps. Segmentation: uint8 (H, W) labels, with the recipe's ignored label.
        weight: Pose: float32 (K,), 0 for joints without a target. Segmentation: None.
    """

    picture: Picture
    target: NDArray[Any]
    weight: NDArray[np.float32] | None


class Samples(Protocol):
    """A sequence of samples. Worker processes get a pickled copy, so it holds paths and tables rather than pictures."""

    def __len__(self) -> int:
        """Returns how many samples make up an epoch."""
        ...

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Returns sample `index`; all its chance comes from `rng`."""
        ...

    def name(self, index: int) -> str:
        """Returns what error texts call sample `index`: a file, or what stands for one."""
        ...


class Mixture:
    """Samples of several sources by shares: an epoch goes through each source that is not larger than its share.

    An epoch is as long as it takes the first source to be seen once. A source with more samples than its part of the
    epoch gives random ones of them; one with fewer repeats.
    """

    def __init__(self, parts: Sequence[tuple[Samples, float]]) -> None:
        """Takes sources with their shares, which need not sum to 1.

        Raises:
            UserError: no source, a share that is not positive, or a source without samples.
        """
        if not parts:
            raise UserError("a mixture needs at least one source")
        for number, (samples, share) in enumerate(parts):
            if not 0 < share < float("inf"):
                raise UserError(f"source {number} of the mixture has the share {share:g}; it must be positive")
            if len(samples) == 0:
                raise UserError(f"source {number} of the mixture has no samples")
        self._parts = [samples for samples, _ in parts]
        shares = np.array([share for _, share in parts], np.float64)
        self._counts = np.maximum(1, np.rint(shares / shares[0] * len(self._parts[0]))).astype(int)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Returns sample `index` of the epoch; a large source's is drawn by `rng` first."""
        part, own = self._place(index)
        samples = self._parts[part]
        if len(samples) > self._counts[part]:
            own = int(rng.integers(len(samples)))
        return samples.sample(own % len(samples), rng)

    def name(self, index: int) -> str:
        """Returns the name of the sample; of a large source, only which source it is."""
        part, own = self._place(index)
        samples = self._parts[part]
        if len(samples) > self._counts[part]:
            return f"source {part} of the mixture"
        return samples.name(own % len(samples))

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} is outside 0..{len(self) - 1}")
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])


@dataclass(frozen=True, slots=True)
class Feed:
    """Which samples each step of each rank takes.

    Attributes:
        batch: Samples of a global step, over all ranks.
        seed: Decides the order and the chance inside the samples.
        rank, world: Which process this is, of how many; each takes an equal stretch of the global batch.
    """

    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.world < 1 or self.batch % self.world:
            raise UserError(f"the global batch {self.batch} must be a positive multiple of the {self.world} processes")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} is outside 0..{self.world - 1}")
        if self.seed < 0:
            raise UserError(f"the seed must not be negative, got {self.seed}")

    def places(self, step: int) -> range:
        """Returns the places in the endless run of samples that this rank takes at global step `step`."""
        own = self.batch // self.world
        first = step * self.batch + self.rank * own
        return range(first, first + own)

    def index(self, place: int, count: int) -> int:
        """Returns which of `count` samples stands at a place: every sample once per epoch, in a new order each."""
        epoch, position = divmod(place, count)
        return int(_order(self.seed, epoch, count)[position])

    def make(self, samples: Samples, step: int) -> list[Sample]:
        """Returns this rank's samples of a global step.

        Raises:
            UserError: a file cannot be used; the text names it.
            RuntimeError: anything else went wrong in a sample; the text names it.
        """
        made = []
        for place in self.places(step):
            index = self.index(place, len(samples))
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, place, _SAMPLE])))
            try:
                made.append(samples.sample(index, rng))
            except UserError:
                raise
            except Exception as error:
                what = f"sample {index} ({samples.name(index)})"
                raise RuntimeError(f"{what} of step {step} failed: {type(error).__name__}: {error}") from error
        return made


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.intp]:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, _ORDER]))).permutation(count)
