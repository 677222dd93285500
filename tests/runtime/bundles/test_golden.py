from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.golden import decode_outputs, load_golden, make_golden, save_golden
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe
from scalenas_runtime.tasks.sets import class_set

POSE = PoseRecipe(height=64, width=64, joints=("a", "b"))
STREETS = class_set("camvid-11")
STREET = SegmentationRecipe(height=64, width=96, classes=STREETS.classes, palette=STREETS.palette)


def heatmaps(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey picture and its inverse, one value of each 4x4 block."""
    grey = picture[:, ::4, ::4].mean(axis=3).astype(np.float32) / 255
    return np.stack([grey, 1 - grey], axis=1)


def logits(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = picture[:, ::4, ::4].mean(axis=3).astype(np.float32) / 255
    return np.stack([grey * index for index in range(len(STREET.classes))], axis=1)


@pytest.mark.parametrize(
    ("recipe", "run", "count"), [(POSE, heatmaps, 16), (STREET, logits, 4)], ids=["pose", "street"]
)
def test_golden_pictures_are_drawn_for_the_recipe(
    recipe: PoseRecipe | SegmentationRecipe, run: Any, count: int
) -> None:
    golden = make_golden(recipe, run)
    assert golden.inputs.shape == (count, recipe.height, recipe.width, 3)
    assert len({picture.tobytes() for picture in golden.inputs}) == count
    assert golden.inputs.std() > 20
    np.testing.assert_array_equal(golden.outputs, run(golden.inputs))
    again = make_golden(recipe, run, count=2)
    np.testing.assert_array_equal(again.inputs, golden.inputs[:2])


def test_keypoints_are_in_pixels_of_the_input() -> None:
    maps = np.zeros((1, 2, 16, 16), np.float32)
    maps[0, 0, 5, 7], maps[0, 1, 15, 15] = 0.9, 0.5
    recipe = PoseRecipe(height=64, width=64, joints=("a", "b"), decode="argmax")
    np.testing.assert_allclose(decode_outputs(maps, recipe)[0], [[28, 20, 0.9], [60, 60, 0.5]])
    udp = PoseRecipe(height=64, width=64, joints=("a", "b"), decode="argmax", affine="udp")
    np.testing.assert_allclose(decode_outputs(maps, udp)[0], [[29.4, 21, 0.9], [63, 63, 0.5]], rtol=1e-6)


def test_saved_arrays_come_back_and_numpy_reads_them(tmp_path: Path) -> None:
    golden = make_golden(POSE, heatmaps, count=3)
    save_golden(golden, tmp_path)
    loaded = load_golden(*(tmp_path / f"{name}.npy" for name in ("inputs", "outputs", "decoded")))
    for name in ("inputs", "outputs", "decoded"):
        array = getattr(golden, name)
        np.testing.assert_array_equal(getattr(loaded, name), array)
        by_numpy = tmp_path / f"numpy-{name}.npy"
        np.save(by_numpy, array)
        assert by_numpy.read_bytes() == (tmp_path / f"{name}.npy").read_bytes()
