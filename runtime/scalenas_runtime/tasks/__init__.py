"""Task recipes: everything between a picture and a result that is not the net itself."""

from __future__ import annotations

from collections.abc import Mapping

from scalenas_runtime.errors import UserError
from scalenas_runtime.records import read_record
from scalenas_runtime.tasks.pose import PoseRecipe
from scalenas_runtime.tasks.segmentation import SegmentationRecipe

Recipe = PoseRecipe | SegmentationRecipe
RECIPES: Mapping[str, type[PoseRecipe] | type[SegmentationRecipe]] = {
    "pose": PoseRecipe,
    "segmentation": SegmentationRecipe,
}

__all__ = ["RECIPES", "PoseRecipe", "Recipe", "SegmentationRecipe", "read_recipe"]


def read_recipe(value: object) -> Recipe:
    """Returns the recipe that parsed JSON describes; its key `task` says which kind.

    Raises:
        UserError: unknown task, unknown or missing key, wrong type or a value out of range.
    """
    task = value.get("task") if isinstance(value, Mapping) else None
    if not isinstance(task, str) or task not in RECIPES:
        raise UserError(f"recipe: task is {task!r}, known: {', '.join(RECIPES)}")
    return read_record(RECIPES[task], value, what=f"{task} recipe")
