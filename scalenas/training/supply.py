"""What a run takes from its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scalenas.data.samples import Samples
from scalenas.shipped import find_weights_file
from scalenas.training.config import DataConfig, TrainConfig
from scalenas.weights import load_weights
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.readers import KeypointData, PairData
from scalenas_runtime.records import read_record, to_plain
from scalenas_runtime.tasks import PoseRecipe, Recipe

if TYPE_CHECKING:
    from scalenas.data.dataset import Augmentation, Dataset
    from scalenas.data.targets import PoseTargets


@dataclass(frozen=True)
class Supply:
    """Data of a run.

    Attributes:
        recipe: How pictures become inputs and outputs become results.
        samples: What is trained on: the `fit` split, augmented.
        calibration: Gives uint8 (N, H, W, 3) BGR: pictures of the `calibrate` split as the net takes them.
        search: The `search` split, that nets are judged on.
        sources: `name` and `what` of each source, for cards.
        size: Height and width of the samples, which may be cut smaller than what the net is made for.
        notes: Lines about what was derived from the data and what was left out.
        digest: Of the description, lists and labels (`training_digest`): a run goes on with the same data alone.
    """

    recipe: Recipe
    samples: Samples
    calibration: Callable[[], NDArray[np.uint8]]
    search: KeypointData | PairData
    sources: list[dict[str, Json]]
    size: tuple[int, int]
    notes: tuple[str, ...] = ()
    digest: str = ""


# What a recipe takes from `model.size` and from the data's description.
_GIVEN = (
    "size",
    "height",
    "width",
    "stride",
    "joints",
    "edges",
    "flip_pairs",
    "sigmas",
    "classes",
    "palette",
    "ignore",
)


def open_supply(config: TrainConfig) -> Supply:
    """Returns the data that a configuration names.

    Fields of the task recipe that neither `data.recipe` nor the data give are those of `model.weights`.

    Raises:
        UserError: the description, a source or the weights do not fit, or an unknown key of augmentation, targets or
            recipe.
    """
    from scalenas.data.dataset import open_dataset
    from scalenas.data.identity import training_digest

    for name in config.data.recipe:
        if name in _GIVEN:
            raise UserError(f"data.recipe.{name} follows from model.size and from {config.data.path}; set it there")
    dataset = open_dataset(config.data.path, root=config.data.root)
    inherited = _inherited(config, dataset.description.task)
    recipe = dataset.recipe(config.model.size, **{**inherited, **config.data.recipe})
    augmentation, targets = _augmentation(config.data, recipe), _targets(config.data, recipe)
    samples = dataset.samples("fit", recipe, augmentation=augmentation, targets=targets, keep=config.data.keep)
    search = dataset.labelled("search", size=config.model.size)
    usual = dataset.recipe(config.model.size)
    taken = [name for name in inherited if name not in config.data.recipe]
    other = [f"{name} {inherited[name]}" for name in taken if getattr(recipe, name) != getattr(usual, name)]
    return Supply(
        recipe,
        samples,
        partial(plain_pictures, dataset.samples("calibrate", recipe), config.evaluation.calibration),
        search,
        _sources(dataset),
        getattr(augmentation, "crop", None) or config.model.size,
        (
            *_notes(dataset, recipe, augmentation),
            *(f"recipe   {each}, as {config.model.weights} has it" for each in other),
        ),
        training_digest(dataset),
    )


def _inherited(config: TrainConfig, task: str) -> dict[str, Any]:
    """Returns the fields of the recipe of the weights that a run starts from, without what the data give."""
    if config.model.weights is None:
        return {}
    recipe = load_weights(find_weights_file(config.model.weights)).recipe
    if recipe is None or isinstance(recipe, PoseRecipe) != (task == "pose"):
        return {}
    return {name: value for name, value in to_plain(recipe).items() if name not in ("task", "version", *_GIVEN)}


def _notes(dataset: Dataset, recipe: Recipe, augmentation: Augmentation) -> Iterator[str]:
    from scalenas.data.description import SyntheticSource

    yield from (f"derived  {line}" for line in dataset.derived)
    yield from (f"warning: {line}" for line in dataset.warnings)
    for source in dataset.description.train:
        if not isinstance(source, SyntheticSource):
            opened = dataset.opened(source)
            yield f"{opened.title}: {', '.join(f'{count} {what}' for what, count in opened.counts.items())}"
    if isinstance(recipe, PoseRecipe) and not recipe.flip_pairs and augmentation.flip > 0:
        yield (
            "warning: no joint has a left or right counterpart by its name, and pictures are mirrored; give flip_pairs "
            "in the data's description, or set data.augmentation.flip=0"
        )


def _augmentation(data: DataConfig, recipe: Recipe) -> Augmentation:
    from scalenas.data.dataset import AUGMENTATIONS

    task = "pose" if isinstance(recipe, PoseRecipe) else "segmentation"
    return read_record(AUGMENTATIONS[task], data.augmentation, what="data.augmentation")


def _targets(data: DataConfig, recipe: Recipe) -> PoseTargets | None:
    from scalenas.data.targets import PoseTargets

    if isinstance(recipe, PoseRecipe):
        return read_record(PoseTargets, data.targets, what="data.targets")
    if data.targets:
        raise UserError(f"data.targets is for heatmaps, and {data.path} is of segmentation; leave it out")
    return None


def plain_pictures(samples: Samples, count: int) -> NDArray[np.uint8]:
    """Returns pictures from all over the samples, at most `count`, without augmentation."""
    places = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int))
    rng = np.random.default_rng(0)
    return np.stack([samples.sample(int(place), rng).picture for place in places])


def _sources(dataset: Dataset) -> list[dict[str, Json]]:
    description = to_plain(dataset.description)
    sources: list[dict[str, Json]] = []
    for source in description["train"]:
        shown = {key: value for key, value in source.items() if value not in (None, "", [], {})}
        sources.append({"name": str(source["kind"]), "what": ", ".join(f"{key} {shown[key]}" for key in shown)})
    return sources
