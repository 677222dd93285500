"""The labelled pictures that candidates are judged on: a description's, or drawn ones where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scalenas_runtime.canonical import Json, digest
from scalenas_runtime.records import Record, to_plain
from scalenas_runtime.tasks import PoseRecipe, Recipe

if TYPE_CHECKING:
    from scalenas.data.dataset import Dataset
    from scalenas.data.description import Description

_SCENES, _VAL_SCENES, _SHARE = 10_000, 200, 0.02


class DataSource(Record, frozen=True):
    """Where labelled pictures come from.

    Attributes:
        description: A `data.yaml`; None for drawn scenes with the recipe's joints or classes.
        root: Folder that the description's paths start at, in place of its own.
        changes: `key=value` texts that replace keys of the description.
    """

    description: str | None = None
    root: str | None = None
    changes: tuple[str, ...] = ()

    def open(self, recipe: Recipe) -> Dataset:
        """Returns the data set, opened.

        Raises:
            UserError: the description does not fit, a source cannot be read, or a joint or class cannot be drawn.
        """
        from scalenas.data.dataset import Dataset, open_dataset

        if self.description is None:
            return Dataset(_drawn(recipe), Path("synthetic"), Path())
        return open_dataset(self.description, root=self.root, changes=self.changes)


def is_synthetic(dataset: Dataset, part: str) -> bool:
    """Returns whether all pictures of a part are drawn, so that accuracy on them says little about photographs."""
    from scalenas.data.description import SyntheticSource

    return all(isinstance(source, SyntheticSource) for source in dataset.sources(part))


def data_identity(dataset: Dataset, *, part: str, limit: int | None, pictures: int) -> dict[str, Json]:
    """Returns what two studies must have in common to be about the same data.

    Args:
        dataset: The data.
        part: The part that candidates are judged on.
        limit: Judge the first so many pictures.
        pictures: How many pictures the BN statistics are taken from.

    Raises:
        UserError: the lists do not fit the sources.
        OSError: a file of labels cannot be read.
    """
    from scalenas.data.identity import training_digest

    description = {key: value for key, value in to_plain(dataset.description).items() if key != "root"}
    counts: dict[str, Json] = dict(dataset.split_counts())
    return {
        "name": dataset.path.stem,
        "description": digest(description),
        "split": counts,
        "labels": training_digest(dataset),
        "part": part,
        "limit": limit,
        "calibration": pictures,
    }


def _drawn(recipe: Recipe) -> Description:
    from scalenas.data.description import Description, Splits, SyntheticSource

    task, names = ("pose", recipe.joints) if isinstance(recipe, PoseRecipe) else ("segmentation", recipe.classes)
    return Description(
        task="pose" if task == "pose" else "segmentation",
        names=names,
        palette=None if isinstance(recipe, PoseRecipe) else recipe.palette,
        ignore=None if isinstance(recipe, PoseRecipe) else recipe.ignore,
        train=(SyntheticSource(seed=1, count=_SCENES),),
        val=(SyntheticSource(seed=2, count=_VAL_SCENES),),
        splits=Splits(calibrate=_SHARE, search=_SHARE),
    )
