"""Golden pictures: inputs, the fp32 model's outputs and their decoded results, so that a device can verify alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.session import Array
from scalenas_runtime.tasks import PoseRecipe, Recipe

POSE_COUNT = 16
SEGMENTATION_COUNT = 4
SEED = 20
PARTS = ("inputs", "outputs", "decoded")


@dataclass(frozen=True, slots=True)
class Golden:
    """Pictures as the net takes them, and what the fp32 model makes of each.

    Attributes:
        inputs: uint8 (n, H, W, 3), BGR.
        outputs: float32 (n, K, h, w) heatmaps or (n, C, h, w) logits.
        decoded: What the recipe makes of `outputs`: float32 (n, K, 3) x and y in pixels of the input and a score
            (pose), or uint8 (n, H, W) classes (segmentation).
    """

    inputs: NDArray[np.uint8]
    outputs: NDArray[np.float32]
    decoded: Array

    def check(self, recipe: Recipe, *, what: str = "golden") -> None:
        """Accepts golden pictures that fit a recipe.

        Raises:
            UserError: a dtype or shape that does not fit, or no picture.
        """
        count = len(self.inputs)
        if isinstance(recipe, PoseRecipe):
            joints = len(recipe.joints)
            outputs: tuple[int, ...] = (joints, *recipe.heatmap_size)
            decoded, kind = (joints, 3), "float32"
        else:
            outputs = (len(recipe.classes), *recipe.logits_size)
            decoded, kind = (recipe.height, recipe.width), "uint8"
        wanted = {
            "inputs": ("uint8", (count, recipe.height, recipe.width, 3)),
            "outputs": ("float32", (count, *outputs)),
            "decoded": (kind, (count, *decoded)),
        }
        for name, (dtype, shape) in wanted.items():
            array = getattr(self, name)
            if array.dtype.name != dtype or array.shape != shape or count == 0:
                raise UserError(
                    f"{what}: {name} must be {dtype} {shape} with at least one picture, got {array.dtype} {array.shape}"
                )


def make_golden(
    recipe: Recipe, run: Callable[[NDArray[np.uint8]], Array], *, seed: int = SEED, count: int | None = None
) -> Golden:
    """Returns golden pictures drawn for a recipe: 16 for pose, 4 for segmentation, unless told otherwise.

    Args:
        recipe: Says what the net sees and how its outputs are decoded.
        run: The fp32 reference: takes one picture uint8 (1, H, W, 3), returns its undecoded output float32 (1, ...).
        seed: Of the scenes; a golden set is the same whenever the seed is.
        count: Number of pictures.
    """
    from scalenas_runtime.scenes import pictures

    wanted = count or (POSE_COUNT if isinstance(recipe, PoseRecipe) else SEGMENTATION_COUNT)
    inputs = pictures(recipe, seed=seed, count=wanted)
    outputs = np.concatenate([run(inputs[index : index + 1]) for index in range(wanted)])
    golden = Golden(inputs, outputs, decode_outputs(outputs, recipe))
    golden.check(recipe)
    return golden


def decode_outputs(outputs: Array, recipe: Recipe) -> Array:
    """Returns what the recipe makes of undecoded outputs of crops or pictures of the net's input size.

    Args:
        outputs: Heatmaps float32 (n, K, h, w) or logits float32 (n, C, h, w).
        recipe: Says how to decode.

    Returns:
        Keypoints float32 (n, K, 3), x and y in pixels of the input and a score, or class maps uint8 (n, H, W).
    """
    if isinstance(recipe, PoseRecipe):
        from scalenas_runtime.decode.pose import decode_heatmaps
        from scalenas_runtime.geometry import heatmap_scale

        coordinates, scores = decode_heatmaps(outputs, recipe)
        places = (coordinates * heatmap_scale(recipe)).astype(np.float32)
        return np.concatenate([places, scores[..., np.newaxis]], axis=-1)
    from scalenas_runtime.decode.segmentation import class_map

    size = (recipe.height, recipe.width)
    maps = [class_map(logits, size, align_corners=recipe.align_corners) for logits in outputs]
    return np.stack(maps)


def save_golden(golden: Golden, folder: Path) -> None:
    """Writes `inputs.npy`, `outputs.npy` and `decoded.npy` into an existing folder; equal arrays give equal bytes."""
    for name in PARTS:
        array = np.ascontiguousarray(getattr(golden, name))
        # On a full disk np.save says "14336 requested and 6112 written"; plain writes say what is wrong.
        with (folder / f"{name}.npy").open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
            stream.write(array.data.cast("B"))


def load_golden(inputs: Path, outputs: Path, decoded: Path) -> Golden:
    """Returns the golden pictures in three `.npy` files, as read-only arrays that stay on disk until they are used.

    Raises:
        UserError: a file is no `.npy` file of plain numbers.
    """
    return Golden(*(_load(path) for path in (inputs, outputs, decoded)))


def _load(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is not a .npy file of plain numbers: {error}") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is an archive of arrays; a golden file is one .npy array")
    return array
