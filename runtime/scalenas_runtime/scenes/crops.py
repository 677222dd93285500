"""Pictures as a net sees them: what golden outputs, calibration and parity run on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.preprocess import pose_crops
from scalenas_runtime.scenes.persons import person_scene
from scalenas_runtime.scenes.street import street_scene
from scalenas_runtime.tasks import PoseRecipe, Recipe
from scalenas_runtime.tasks.sets import ClassSet


def pictures(recipe: Recipe, *, seed: int, count: int) -> NDArray[np.uint8]:
    """Returns the first `count` pictures of a seed as (count, H, W, 3) uint8 BGR, at the input size of the recipe.

    Pose: crops around one person each, cut by `preprocess.pose_crops`. Segmentation: streets.

    Raises:
        ValueError: a negative seed or count.
    """
    if count < 0:
        raise ValueError(f"count of pictures must not be negative, got {count}")
    size = (recipe.height, recipe.width)
    # Wider than the crop, so that what surrounds the person is mostly scene and only at times the border.
    canvas = (recipe.height * 5 // 4, recipe.width * 3 // 2)
    whole = np.empty((count, *size, 3), np.uint8)
    for index in range(count):
        if isinstance(recipe, PoseRecipe):
            scene = person_scene(seed, index, size=canvas, portrait=True)
            pose_crops(scene.picture, scene.boxes[:1], recipe, out=whole[index : index + 1])
        else:
            classes = ClassSet("recipe", recipe.classes, recipe.palette, recipe.ignore)
            whole[index] = street_scene(seed, index, size=size, classes=classes).picture
    return whole
