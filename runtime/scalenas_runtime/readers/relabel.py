"""Class maps in a recipe's numbering, whatever the data's: classes are matched by name, as joints are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.readers.pairs import LabelledPicture, PairData
from scalenas_runtime.tasks.segmentation import SegmentationRecipe
from scalenas_runtime.tasks.sets import ClassSet


def recipe_labels(classes: ClassSet, recipe: SegmentationRecipe) -> NDArray[np.uint8] | None:
    """Returns the recipe's label for each label 0..255 of a class set, uint8 (256,); None where the two are the same.

    Classes that the recipe lacks become its ignored label.

    Raises:
        UserError: the two have no class in common.
    """
    if classes.classes == recipe.classes and classes.ignore == recipe.ignore:
        return None
    if not set(classes.classes) & set(recipe.classes):
        raise UserError(
            f"{classes.name} has the classes {', '.join(classes.classes)}, none of {', '.join(recipe.classes)}"
        )
    table = np.full(256, recipe.ignore, np.uint8)
    for label, name in enumerate(classes.classes):
        if name in recipe.classes:
            table[label] = recipe.classes.index(name)
    return table


def relabelled(data: PairData, recipe: SegmentationRecipe) -> PairData:
    """Returns the data with class maps in the numbering of a recipe; data that name no classes are in it already.

    Raises:
        UserError: data and recipe have no class in common.
    """
    table = None if data.classes is None else recipe_labels(data.classes, recipe)
    if table is None:
        return replace(data, classes=None)
    return replace(data, classes=None, pictures=partial(_each, data, table))


def _each(data: PairData, table: NDArray[np.uint8]) -> Iterator[LabelledPicture]:
    for picture in data:
        yield replace(picture, read_labels=partial(_mapped, picture, table))


def _mapped(picture: LabelledPicture, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.LUT(picture.read_labels(), table), np.uint8)
