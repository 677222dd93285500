"""People as training samples: labelled ones from files, drawn ones from the scene generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scalenas.data.augmentation import PoseAugmentation, draw_view, mirrored_order, vary_colours
from scalenas.data.memory import Memory
from scalenas.data.samples import Sample
from scalenas.data.targets import PoseTargets, draw_heatmaps
from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import Float, crop_transforms, picture_to_heatmap
from scalenas_runtime.pictures import Picture
from scalenas_runtime.preprocess import warp_crop
from scalenas_runtime.readers import KeypointPicture
from scalenas_runtime.scenes import person_scene
from scalenas_runtime.tasks.pose import PoseRecipe
from scalenas_runtime.tasks.sets import JointSet


@dataclass(frozen=True, slots=True)
class Person:
    """One labelled person.

    Attributes:
        picture: uint8 (H, W, 3) BGR.
        box: float32 (4,) x1, y1, x2, y2 in pixels of the picture.
        joints: float32 (K, 3) x, y in pixels of the picture, and 0 not labelled, 1 hidden, 2 visible.
    """

    picture: Picture
    box: Float
    joints: Float


class People(Protocol):
    """A sequence of labelled people."""

    def __len__(self) -> int: ...

    def person(self, index: int) -> Person:
        """Returns person `index` with the picture."""
        ...

    def name(self, index: int) -> str:
        """Returns the picture's name."""
        ...


class LabelledPeople:
    """The people in labelled pictures: all with a labelled joint, a box with an area in the picture, and no crowd."""

    def __init__(self, pictures: Iterable[KeypointPicture], joints: Sequence[str], wanted: Sequence[str]) -> None:
        """Reads the labels, not the pictures.

        Args:
            pictures: From a reader.
            joints: Names of the reader's joints.
            wanted: Names of the joints to give, in order; those that the reader lacks are not labelled.
        """
        self._names: list[str] = []
        self._reads: list[Callable[[], Picture]] = []
        owner, boxes, tables = [], [], []
        for picture in pictures:
            table = in_order(picture.joints, joints, wanted)
            kept = picture.labelled & picture.boxed & table[:, :, 2].any(1)
            if kept.any():
                owner += [len(self._names)] * int(kept.sum())
                self._names.append(picture.name)
                self._reads.append(picture.read)
                boxes.append(picture.boxes[kept])
                tables.append(table[kept])
        self._owner = np.array(owner, np.intp)
        self.boxes: Float = np.concatenate(boxes) if boxes else np.zeros((0, 4), np.float32)
        self.joints: Float = np.concatenate(tables) if tables else np.zeros((0, len(wanted), 3), np.float32)

    def __len__(self) -> int:
        return len(self._owner)

    def person(self, index: int) -> Person:
        """Returns person `index`, reading the picture."""
        return Person(self._reads[self._owner[index]](), self.boxes[index], self.joints[index])

    def name(self, index: int) -> str:
        """Returns the picture's name."""
        return self._names[int(self._owner[index])]


class DrawnPeople:
    """Scenes around one person each, drawn when asked for."""

    def __init__(self, joints: JointSet, *, seed: int, scenes: range, size: tuple[int, int]) -> None:
        """Takes which joints are labelled, which scenes of which seed, and the size (H, W) of the pictures."""
        self._joints, self._seed, self._scenes, self._size = joints, seed, scenes, size

    def __len__(self) -> int:
        return len(self._scenes)

    def person(self, index: int) -> Person:
        """Returns the main person of scene `index`."""
        scene = person_scene(self._seed, self._scenes[index], size=self._size, joints=self._joints, portrait=True)
        return Person(scene.picture, scene.boxes[0], scene.joints[0])

    def name(self, index: int) -> str:
        """Returns seed and number of the scene."""
        return f"synthetic-{self._seed}-{self._scenes[index]}"


class PoseSamples:
    """Crops of people with their heatmaps; without augmentation exactly the runtime's crops."""

    def __init__(
        self,
        people: People,
        recipe: PoseRecipe,
        *,
        augmentation: PoseAugmentation | None = None,
        targets: PoseTargets | None = None,
        keep: int = 0,
    ) -> None:
        """Takes the people, how the net sees them, how crops vary (None: not at all) and how targets are drawn.

        The first `keep` people that are asked for stay in memory with their pictures.
        """
        self._people, self._recipe, self._augmentation = people, recipe, augmentation
        self._person = Memory(people.person, keep)
        targets = targets or PoseTargets()
        self._method, self._sigma = targets.method_for(recipe), targets.sigma_for(recipe)
        self._mirrored = mirrored_order(recipe)

    def __len__(self) -> int:
        return len(self._people)

    def name(self, index: int) -> str:
        """Returns the picture's name."""
        return self._people.name(index)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Returns the crop, the heatmaps (K, h, w) and the weights (K,).

        Raises:
            UserError: the picture cannot be read; the text names it.
        """
        crop, points, labelled = self.crop(index, rng)
        maps, weights = draw_heatmaps(
            points, labelled, self._recipe.heatmap_size, sigma=self._sigma, method=self._method
        )
        return Sample(crop, maps, weights)

    def crop(self, index: int, rng: np.random.Generator) -> tuple[Picture, NDArray[np.float64], NDArray[np.bool_]]:
        """Returns the crop uint8 (H, W, 3), its joints (K, 2) in heatmap pixels, and which are labelled (K,)."""
        person, recipe, augmentation = self._person(index), self._recipe, self._augmentation
        crop = np.empty((recipe.height, recipe.width, 3), np.uint8)
        labelled = person.joints[:, 2] > 0
        if augmentation is None:
            transforms, mirrored = crop_transforms(person.box[np.newaxis], recipe), False
        else:
            view = draw_view(rng, augmentation, box=person.box, joints=person.joints, recipe=recipe)
            mirrored = view.mirrored
            transforms = crop_transforms(
                view.box[np.newaxis], recipe, rotations=[view.rotation], mirrored=[view.mirrored]
            )
        warp_crop(person.picture, transforms[0], recipe, crop)
        if augmentation is not None:
            crop = vary_colours(crop, rng, augmentation.colour)
        points = picture_to_heatmap(person.joints[np.newaxis, :, :2], transforms, recipe)[0]
        if mirrored:
            points, labelled = points[self._mirrored], labelled[self._mirrored]
        return crop, points, labelled


def in_order(table: Float, joints: Sequence[str], wanted: Sequence[str]) -> Float:
    """Returns joints (N, K, 3) as (N, len(wanted), 3); those that `joints` lacks are zeros, not labelled."""
    order = [joints.index(name) if name in joints else len(joints) for name in wanted]
    return np.pad(table, ((0, 0), (0, 1), (0, 0)))[:, order]


def check_joints(joints: Sequence[str], wanted: Sequence[str], source: str) -> None:
    """Accepts a source that labels at least one of the wanted joints.

    Raises:
        UserError: it labels none.
    """
    if not set(joints) & set(wanted):
        raise UserError(f"{source} labels the joints {', '.join(joints)}, none of {', '.join(wanted)}")
