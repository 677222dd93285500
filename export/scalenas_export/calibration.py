"""Pictures for BN statistics: drawn scenes, or the user's own, at the input size of the net."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.bundle import CalibrationEntry
from scalenas_runtime.canonical import canonical_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe, Recipe

if TYPE_CHECKING:
    import torch

Picture = NDArray[np.uint8]

SYNTHETIC, NONE = "synthetic", "none"
# Other scenes than those of the golden pictures: what is measured must not have set the statistics.
SEED = 7
BATCHES = 8
# The published recalibration takes 8 batches; a batch is 8 pictures of 256 x 192, fewer of larger ones.
BATCH, BATCH_PIXELS = 8, 8 * 256 * 192
# Pictures that pass through a net at once for its statistics: the fewer passes, the less threads wait for each other,
# above all where others use the processor too.
PASS, PASS_PIXELS = 64, 64 * 128 * 96


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pictures as the net takes them.

    Attributes:
        kind: `synthetic`, `pictures` for the user's own, or what else says where they come from.
        pictures: uint8 (n, H, W, 3), BGR.
    """

    kind: str
    pictures: NDArray[np.uint8]

    @property
    def entry(self) -> CalibrationEntry:
        """What a manifest says of it; the digest is over shape and bytes of the pictures."""
        header = canonical_json(list(self.pictures.shape)).encode()
        digest = hashlib.sha256(header + self.pictures.tobytes()).hexdigest()
        return CalibrationEntry(kind=self.kind, pictures=len(self.pictures), digest=digest)

    def batches(self, recipe: Recipe) -> Iterator[torch.Tensor]:
        """Yields normalised pictures (B, 3, H, W) float32, in the recipe's colour order."""
        step = max(1, min(PASS, PASS_PIXELS // (recipe.height * recipe.width)))
        for start in range(0, len(self.pictures), step):
            yield normalised(self.pictures[start : start + step], recipe)


def batch_size(recipe: Recipe) -> int:
    """Returns how many pictures of the recipe's size go through torch at once."""
    return min(BATCH, max(1, BATCH_PIXELS // (recipe.height * recipe.width)))


def calibration_pictures(source: str, recipe: Recipe, *, count: int | None = None) -> Calibration | None:
    """Returns the pictures that `--calibration` asks for; None for `none`.

    Args:
        source: `synthetic`, `none`, or a directory, whose first pictures by name are taken: whole pictures, through
            the runtime's own pre-processing.
        recipe: Says what the net sees.
        count: How many pictures at most; 8 batches unless given.

    Raises:
        UserError: the directory is not there, or holds no picture that can be read.
    """
    wanted = count or BATCHES * batch_size(recipe)
    if source == NONE:
        return None
    if source == SYNTHETIC:
        from scalenas_runtime.scenes import pictures

        return Calibration(SYNTHETIC, pictures(recipe, seed=SEED, count=wanted))
    if not Path(source).is_dir():
        raise UserError(f"--calibration {source} is not a directory; give one of pictures, D.yaml, synthetic or none")
    return Calibration("pictures", _from_directory(source, recipe, wanted))


def normalised(pictures: NDArray[np.uint8], recipe: Recipe) -> torch.Tensor:
    """Returns `normalised_array` as a tensor."""
    import torch

    return torch.from_numpy(normalised_array(pictures, recipe))


def normalised_array(pictures: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
    """Returns what the net was trained on: (value - mean) / std per channel, in its colour order.

    Args:
        pictures: uint8 (B, H, W, 3), BGR.
        recipe: Colour order, mean and std.

    Returns:
        float32 (B, 3, H, W).
    """
    ordered = pictures[..., ::-1] if recipe.color == "rgb" else pictures
    values = np.ascontiguousarray(ordered.transpose(0, 3, 1, 2)).astype(np.float32)
    mean, std = (np.array(item, np.float32).reshape(1, 3, 1, 1) for item in (recipe.mean, recipe.std))
    values -= mean
    values /= std
    return values


def _from_directory(folder: str, recipe: Recipe, count: int) -> Picture:
    from scalenas_runtime.sources import open_source

    taken = []
    for frame in open_source(folder):
        taken.append(_as_input(frame.picture, recipe))
        if len(taken) == count:
            break
    return np.stack(taken)


def _as_input(picture: Picture, recipe: Recipe) -> Picture:
    if isinstance(recipe, PoseRecipe):
        from scalenas_runtime.geometry import whole_picture
        from scalenas_runtime.preprocess import pose_crops

        crops, _ = pose_crops(picture, whole_picture(*picture.shape[:2]), recipe)
        return np.asarray(crops[0])
    from scalenas_runtime.preprocess_segmentation import segmentation_inputs

    windows = segmentation_inputs(picture, recipe)
    return np.asarray(windows[len(windows) // 2])
