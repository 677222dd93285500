"""`Dataset`: an opened `data.yaml`, and what training, evaluation and checks take from it.

Parts: `fit`, `calibrate` and `search` come from the train sources, `val` and `test` from their own. Where real and
drawn train sources are mixed, drawn scenes serve `fit` alone; where all are drawn, their numbers are split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from scalenas.data.augmentation import PoseAugmentation, SegmentationAugmentation
from scalenas.data.description import (
    CityscapesSource,
    CocoSource,
    Description,
    FolderSource,
    Source,
    SyntheticSource,
    read_description,
)
from scalenas.data.labels import resolve_classes, resolve_joints, unlabelled_joints
from scalenas.data.listing import Listing, OpenedSource, list_parts
from scalenas.data.maps import DrawnMaps, LabelledMaps, MapSamples
from scalenas.data.people import DrawnPeople, LabelledPeople, PoseSamples, check_joints, in_order
from scalenas.data.samples import Mixture, Samples
from scalenas.data.sources import open_maps, open_people
from scalenas.data.splits import PARTS, part_of_scenes
from scalenas.data.targets import PoseTargets
from scalenas_runtime.errors import UserError
from scalenas_runtime.readers import (
    KeypointData,
    KeypointPicture,
    LabelledPicture,
    PairData,
    synthetic_keypoints,
    synthetic_pairs,
)
from scalenas_runtime.tasks import PoseRecipe, Recipe
from scalenas_runtime.tasks.sets import ClassSet, JointSet, pose_recipe, segmentation_recipe

Augmentation = PoseAugmentation | SegmentationAugmentation
AUGMENTATIONS: dict[str, type[PoseAugmentation] | type[SegmentationAugmentation]] = {
    "pose": PoseAugmentation,
    "segmentation": SegmentationAugmentation,
}


class Dataset:
    """The sources of one description, opened; pictures are read only when a sample or an evaluation needs them.

    Attributes:
        description: What the file says.
        path: The file.
        joints: What is labelled (pose), or None.
        classes: What is labelled (segmentation), or None.
        derived: Lines that say what the description left out and where it was taken from.
        warnings: Lines about joints that no train source labels.
    """

    def __init__(self, description: Description, path: Path, root: Path) -> None:
        """Opens the train sources; `open_dataset` is the usual way."""
        self.description, self.path, self._root = description, path, root
        self._opened: dict[int, OpenedSource] = {}
        self.joints: JointSet | None = None
        self.classes: ClassSet | None = None
        if description.task == "pose":
            first = next((source for source in description.train if isinstance(source, CocoSource)), None)
            opened = None if first is None else self.opened(first)
            found = None if opened is None else (opened.joints, opened.edges)
            self.joints, self.derived = resolve_joints(description, path.stem, found)
        else:
            self.classes, self.derived = resolve_classes(description, path.stem)
        real = [self.opened(source) for source in description.train if not isinstance(source, SyntheticSource)]
        self.warnings: tuple[str, ...] = ()
        if self.joints is not None:
            for train in real:
                check_joints(train.joints, self.joints.joints, train.title)
            # Drawn people have every joint that can be asked for; drawing refuses the others by name.
            if len(real) == len(description.train):
                labelled = {train.title: train.joints for train in real}
                self.warnings = unlabelled_joints(self.joints.joints, labelled)

    @property
    def lists(self) -> Path:
        """The folder of the list files."""
        folder = self.description.splits.folder
        return self.path.parent / (f"splits/{self.path.stem}" if folder is None else folder)

    def sources(self, part: str) -> tuple[Source, ...]:
        """Returns the sources that a part comes from.

        Raises:
            UserError: no such part, or the description has no such sources.
        """
        if part in ("calibrate", "search"):
            real = tuple(source for source in self.description.train if not isinstance(source, SyntheticSource))
            return real or self.description.train
        if part == "fit":
            return self.description.train
        if part not in ("val", "test"):
            raise UserError(f"there is no part {part!r}; known: {', '.join(PARTS)}, val, test")
        sources = self.description.val if part == "val" else self.description.test
        if not sources:
            raise UserError(f"{self.path} names no sources under `{part}`")
        return sources

    def opened(self, source: Source) -> OpenedSource:
        """Returns a source from files, read at the first call.

        Raises:
            UserError: it cannot be read.
        """
        if id(source) not in self._opened:
            try:
                self._opened[id(source)] = self._open(source)
            except UserError as error:
                raise UserError(f"{error} (sources of {self.path} are looked for in {self._root})") from None
        return self._opened[id(source)]

    def pictures(self, source: Source, part: str) -> tuple[KeypointPicture, ...] | tuple[LabelledPicture, ...]:
        """Returns the pictures of a source from files that belong to a part.

        Raises:
            UserError: the lists name a picture that the source does not have, or the part is empty.
        """
        opened = self.opened(source)
        if part in ("val", "test"):
            return opened.pictures
        names = self.listing.names[self.description.train.index(source)][part]
        if not names:
            raise UserError(f"no picture of {opened.title} is in part {part}: see the lists in {self.lists}")
        by_name = {picture.name: picture for picture in opened.pictures}
        return tuple(by_name[name] for name in names)  # type: ignore[return-value]

    def scenes(self, source: SyntheticSource, part: str) -> range:
        """Returns the numbers of a drawn source's scenes that belong to a part.

        Raises:
            UserError: too few scenes to fill all parts.
        """
        mixed = any(not isinstance(each, SyntheticSource) for each in self.description.train)
        if part in ("val", "test") or mixed:
            return range(source.count if part in ("val", "test", "fit") else 0)
        return part_of_scenes(source.count, part, self.description.splits)

    def recipe(self, size: tuple[int, int], **fields: object) -> Recipe:
        """Returns the task recipe for a size (H, W) of the net's input.

        Args:
            size: Height and width in pixels, multiples of 32.
            fields: Other fields of the recipe, such as `decode="dark"`.

        Raises:
            UserError: an unknown field, or a value out of range.
        """
        if self.joints is not None:
            return pose_recipe(self.joints, size=size, **fields)
        assert self.classes is not None
        return segmentation_recipe(self.classes, size=size, **fields)

    def samples(
        self,
        part: str,
        recipe: Recipe,
        *,
        augmentation: Augmentation | None = None,
        targets: PoseTargets | None = None,
        keep: int = 0,
    ) -> Samples:
        """Returns the samples of a part.

        Several sources of `fit` are mixed by their shares; in the other parts every sample comes once an epoch.

        Args:
            part: `fit`, `calibrate`, `search`, `val` or `test`.
            recipe: Of the net; joints and classes are matched by name.
            augmentation: How pictures vary; None leaves them as the runtime would prepare them.
            targets: How heatmaps are drawn (pose).
            keep: Pictures of each source that stay in memory, in every process that makes samples.

        Raises:
            UserError: an empty part, labels that do not fit the recipe, or the augmentation of another task.
        """
        wrong = augmentation is not None and not isinstance(augmentation, AUGMENTATIONS[self.description.task])
        if wrong or isinstance(recipe, PoseRecipe) != (self.description.task == "pose"):
            raise UserError(f"{self.path} is of task {self.description.task}; recipe and augmentation must be too")
        make = partial(
            self._samples_of, part=part, recipe=recipe, augmentation=augmentation, targets=targets, keep=keep
        )
        sources = self.sources(part)
        made = [make(source) for source in sources]
        for source, samples in zip(sources, made, strict=True):
            if len(samples) == 0:
                raise UserError(f"part {part} of {self._title(source)} holds no samples")
        if len(made) == 1:
            return made[0]
        shares = [
            source.share if part == "fit" else float(len(each)) for source, each in zip(sources, made, strict=True)
        ]
        return Mixture(list(zip(made, shares, strict=True)))

    def labelled(self, part: str, *, size: tuple[int, int]) -> KeypointData | PairData:
        """Returns a part in the form that the runtime's evaluation takes, which matches joints and classes by name.

        Args:
            part: `fit`, `calibrate`, `search`, `val` or `test`.
            size: Height and width of the net's input, which drawn scenes are made for.

        Raises:
            UserError: an empty part.
        """
        sources = self.sources(part)
        title = f"{self.path.stem} {part}"
        if self.joints is not None:
            people = [self._people_data(source, part, size) for source in sources]
            if len(people) == 1:
                return people[0]
            count = sum(map(len, people))
            names, edges = self.joints.joints, self.joints.edges
            return KeypointData(title, names, edges, count, {"pictures": count}, partial(_joined_people, people, names))
        maps = [self._map_data(source, part, size) for source in sources]
        count = sum(map(len, maps))
        if len(maps) == 1:
            return maps[0]
        return PairData(title, count, {"pictures": count}, partial(_joined, maps), self.classes)

    def split_counts(self) -> dict[str, int]:
        """Returns the number of pictures (or drawn scenes) of each part of the train set, and how many are in none.

        Those are the pictures between stretches of a sequence, and pictures that came after the lists were written.
        Pictures that stand in a list and are excluded or skipped are counted as `listed, left out`, if there are any.
        """
        listing = self.listing
        counts = {part: sum(len(parts[part]) for parts in listing.names.values()) for part in PARTS}
        for source in self.description.train:
            if isinstance(source, SyntheticSource):
                for part in PARTS:
                    counts[part] += len(self.scenes(source, part))
        counts["in no list"] = listing.unlisted
        return {**counts, "listed, left out": listing.left_out} if listing.left_out else counts

    @cached_property
    def listing(self) -> Listing:
        """The parts of the train sources from files; the list files are written first where there are none."""
        train = enumerate(self.description.train)
        real = {number: self.opened(source) for number, source in train if not isinstance(source, SyntheticSource)}
        return list_parts(real, self.lists, self.description.splits, origin=self.path)

    def _open(self, source: Source) -> OpenedSource:
        if isinstance(source, CocoSource):
            opened = open_people(source, self._root, self.path.parent)
            if self.joints is not None:
                check_joints(opened.joints, self.joints.joints, opened.title)
            return opened
        assert isinstance(source, FolderSource | CityscapesSource)
        assert self.classes is not None
        return open_maps(source, self._root, self.path.parent, self.classes)

    def _samples_of(
        self,
        source: Source,
        *,
        part: str,
        recipe: Recipe,
        augmentation: Augmentation | None,
        targets: PoseTargets | None,
        keep: int,
    ) -> Samples:
        if isinstance(recipe, PoseRecipe):
            assert self.joints is not None
            assert not isinstance(augmentation, SegmentationAugmentation)
            if isinstance(source, SyntheticSource):
                wanted = replace(self.joints, joints=recipe.joints)
                people: DrawnPeople | LabelledPeople = DrawnPeople(
                    wanted, seed=source.seed, scenes=self.scenes(source, part), size=_canvas(source, recipe)
                )
            else:
                pictures: tuple[KeypointPicture, ...] = self.pictures(source, part)  # type: ignore[assignment]
                people = LabelledPeople(pictures, self.opened(source).joints, recipe.joints)
            return PoseSamples(people, recipe, augmentation=augmentation, targets=targets, keep=keep)
        assert self.classes is not None
        assert not isinstance(augmentation, PoseAugmentation)
        if isinstance(source, SyntheticSource):
            size = source.size or (recipe.height, recipe.width)
            maps: DrawnMaps | LabelledMaps = DrawnMaps(
                self.classes, seed=source.seed, scenes=self.scenes(source, part), size=size
            )
        else:
            streets: tuple[LabelledPicture, ...] = self.pictures(source, part)  # type: ignore[assignment]
            maps = LabelledMaps(streets)
        return MapSamples(maps, recipe, classes=self.classes, augmentation=augmentation, keep=keep)

    def _people_data(self, source: Source, part: str, size: tuple[int, int]) -> KeypointData:
        assert self.joints is not None
        if isinstance(source, SyntheticSource):
            scenes = self.scenes(source, part)
            canvas = source.size or _around(size)
            return synthetic_keypoints(
                self.joints, seed=source.seed, count=len(scenes), size=canvas, first=scenes.start
            )
        opened = self.opened(source)
        pictures: tuple[KeypointPicture, ...] = self.pictures(source, part)  # type: ignore[assignment]
        counts = {"pictures": len(pictures), "people": sum(len(picture.boxes) for picture in pictures)}
        return KeypointData(
            f"{opened.title} {part}", opened.joints, opened.edges, len(pictures), counts, partial(iter, pictures)
        )

    def _map_data(self, source: Source, part: str, size: tuple[int, int]) -> PairData:
        assert self.classes is not None
        if isinstance(source, SyntheticSource):
            scenes = self.scenes(source, part)
            return synthetic_pairs(
                self.classes, seed=source.seed, count=len(scenes), size=source.size or size, first=scenes.start
            )
        pictures: tuple[LabelledPicture, ...] = self.pictures(source, part)  # type: ignore[assignment]
        counts = {"pictures": len(pictures)}
        return PairData(f"{self._title(source)} {part}", len(pictures), counts, partial(iter, pictures), self.classes)

    def _title(self, source: Source) -> str:
        return f"synthetic:{source.seed}" if isinstance(source, SyntheticSource) else self.opened(source).title


def open_dataset(path: str | Path, *, root: str | Path | None = None, changes: Sequence[str] = ()) -> Dataset:
    """Returns the data set that a `data.yaml` describes.

    Args:
        path: The description.
        root: Folder that the sources' paths start at, in place of the description's `root`.
        changes: `key=value` texts that replace keys of the description.

    Raises:
        UserError: the description does not fit, or a train source cannot be read.
    """
    file = Path(path)
    description = read_description(file, changes)
    return Dataset(description, file, file.parent / description.root if root is None else Path(root))


def _canvas(source: SyntheticSource, recipe: PoseRecipe) -> tuple[int, int]:
    return source.size or _around((recipe.height, recipe.width))


def _around(size: tuple[int, int]) -> tuple[int, int]:
    # Wider than the crop, so that what surrounds the person is mostly scene and only at times the border.
    return size[0] * 5 // 4, size[1] * 3 // 2


def _joined_people(people: Sequence[KeypointData], names: Sequence[str]) -> Iterator[KeypointPicture]:
    number = 0
    for data in people:
        for picture in data:
            number += 1
            yield replace(picture, id=number, joints=in_order(picture.joints, data.joints, names))


def _joined(maps: Sequence[PairData]) -> Iterator[LabelledPicture]:
    for data in maps:
        yield from data
