"""Pictures with class maps as training samples: labelled ones from files, drawn ones from the scene generator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas.data.augmentation import SegmentationAugmentation, vary_colours
from scalenas.data.memory import Memory
from scalenas.data.samples import Sample
from scalenas_runtime.errors import UserError
from scalenas_runtime.pictures import Picture
from scalenas_runtime.preprocess_segmentation import plan_inputs, write_input
from scalenas_runtime.readers import LabelledPicture
from scalenas_runtime.readers.relabel import recipe_labels
from scalenas_runtime.scenes import street_scene
from scalenas_runtime.tasks.segmentation import SegmentationRecipe
from scalenas_runtime.tasks.sets import ClassSet


class Maps(Protocol):
    """A sequence of pictures with class maps."""

    def __len__(self) -> int: ...

    def pair(self, index: int) -> tuple[Picture, NDArray[np.uint8]]:
        """Returns picture uint8 (H, W, 3) BGR and labels uint8 (H, W)."""
        ...

    def name(self, index: int) -> str:
        """Returns the picture's name."""
        ...


class LabelledMaps:
    """Pictures with masks, read when asked for."""

    def __init__(self, pictures: Iterable[LabelledPicture]) -> None:
        """Takes what a reader gives."""
        self._pictures = list(pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def pair(self, index: int) -> tuple[Picture, NDArray[np.uint8]]:
        """Returns picture and labels.

        Raises:
            UserError: one cannot be read, or they differ in size; the text names the file.
        """
        each = self._pictures[index]
        picture, labels = each.read(), each.read_labels()
        if picture.shape[:2] != labels.shape:
            raise UserError(f"{each.name} is {picture.shape[:2]} pixels, its mask {labels.shape} (height, width)")
        return picture, labels

    def name(self, index: int) -> str:
        """Returns the picture's name."""
        return self._pictures[index].name


class DrawnMaps:
    """Streets, drawn when asked for."""

    def __init__(self, classes: ClassSet, *, seed: int, scenes: range, size: tuple[int, int]) -> None:
        """Takes which classes are labelled, which scenes of which seed, and the size (H, W) of the pictures."""
        self._classes, self._seed, self._scenes, self._size = classes, seed, scenes, size

    def __len__(self) -> int:
        return len(self._scenes)

    def pair(self, index: int) -> tuple[Picture, NDArray[np.uint8]]:
        """Returns picture and labels of scene `index`."""
        scene = street_scene(self._seed, self._scenes[index], size=self._size, classes=self._classes)
        return scene.picture, scene.class_map

    def name(self, index: int) -> str:
        """Returns seed and number of the scene."""
        return f"synthetic-{self._seed}-{self._scenes[index]}"


class MapSamples:
    """Pictures as the net takes them, with their labels; without augmentation exactly the runtime's inputs.

    Of a recipe whose `fit` is `sliding`, an input without augmentation is one of the windows, by chance.
    """

    def __init__(
        self,
        maps: Maps,
        recipe: SegmentationRecipe,
        *,
        classes: ClassSet,
        augmentation: SegmentationAugmentation | None = None,
        keep: int = 0,
    ) -> None:
        """Takes the pictures, how the net sees them, the classes of their labels, and how they vary (None: not at all).

        The first `keep` pictures that are asked for stay in memory with their labels.
        Labels become the recipe's by the names of the classes; classes that it lacks are ignored.

        Raises:
            UserError: the two have no class in common.
        """
        self._maps, self._recipe, self._augmentation = maps, recipe, augmentation
        self._pair = Memory(maps.pair, keep)
        self._table = recipe_labels(classes, recipe)

    def __len__(self) -> int:
        return len(self._maps)

    def name(self, index: int) -> str:
        """Returns the picture's name."""
        return self._maps.name(index)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Returns the picture, and the labels uint8 (H, W).

        Raises:
            UserError: picture or mask cannot be read; the text names it.
        """
        picture, labels = self._pair(index)
        if self._table is not None:
            labels = np.asarray(cv2.LUT(labels, self._table), np.uint8)
        if self._augmentation is None:
            return self._plain(picture, labels, rng)
        return self._varied(picture, labels, self._augmentation, rng)

    def _plain(self, picture: Picture, labels: NDArray[np.uint8], rng: np.random.Generator) -> Sample:
        recipe = self._recipe
        plan = plan_inputs((picture.shape[0], picture.shape[1]), recipe)
        index = int(rng.integers(len(plan.offsets))) if len(plan.offsets) > 1 else 0
        seen = np.empty((recipe.height, recipe.width, 3), np.uint8)
        write_input(picture, plan, index, recipe, seen)
        top, left = plan.offsets[index]
        target = np.full((recipe.height, recipe.width), recipe.ignore, np.uint8)
        part = _nearest(labels, plan.content)[top : top + recipe.height, left : left + recipe.width]
        target[: part.shape[0], : part.shape[1]] = part
        return Sample(seen, target, None)

    def _varied(
        self,
        picture: Picture,
        labels: NDArray[np.uint8],
        augmentation: SegmentationAugmentation,
        rng: np.random.Generator,
    ) -> Sample:
        recipe = self._recipe
        height, width = augmentation.crop or (recipe.height, recipe.width)
        content = plan_inputs((picture.shape[0], picture.shape[1]), recipe).content
        scale = augmentation.scale(rng)
        scaled = (max(1, round(content[0] * scale)), max(1, round(content[1] * scale)))
        top, left = (int(rng.integers(max(0, a - b) + 1)) for a, b in zip(scaled, (height, width), strict=True))
        mirrored = rng.random() < augmentation.flip
        cut = (slice(top, top + height), slice(left, left + width))
        part = cv2.resize(picture, scaled[::-1], interpolation=cv2.INTER_LINEAR)[cut]
        part_labels = _nearest(labels, scaled)[cut]
        seen = np.full((height, width, 3), recipe.border, np.uint8)
        target = np.full((height, width), recipe.ignore, np.uint8)
        seen[: part.shape[0], : part.shape[1]] = vary_colours(
            np.ascontiguousarray(part, np.uint8), rng, augmentation.colour
        )
        target[: part.shape[0], : part.shape[1]] = part_labels
        if mirrored:
            seen, target = np.ascontiguousarray(seen[:, ::-1]), np.ascontiguousarray(target[:, ::-1])
        return Sample(seen, target, None)


def _nearest(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[Any]:
    if labels.shape == size:
        return labels
    # The plain nearest rule of OpenCV moves labels by up to half a pixel against the picture.
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def label_counts(maps: Maps, indices: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Returns how many pixels of the pictures carry each label below `classes`, and last how many another: (C + 1,)."""
    total = np.zeros(256, np.int64)
    for index in indices:
        total += np.bincount(maps.pair(index)[1].ravel(), minlength=256)
    return np.append(total[:classes], total[classes:].sum())
