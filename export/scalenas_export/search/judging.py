"""Accuracy of engines on pictures that were prepared once: what differs between candidates is the engine alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalenas_runtime.decode.pose import decode_heatmaps, merge_flipped
from scalenas_runtime.evaluate import (
    Evaluation,
    Metric,
    PoseQuestion,
    default_metric,
    evaluate_pose,
    evaluate_segmentation,
)
from scalenas_runtime.geometry import check_boxes, heatmap_to_picture
from scalenas_runtime.preprocess import pose_crops
from scalenas_runtime.readers import KeypointData, KeypointPicture, LabelledPicture, PairData
from scalenas_runtime.results import PoseResult, no_persons
from scalenas_runtime.segmentation import Segmenter
from scalenas_runtime.tasks import PoseRecipe, Recipe, SegmentationRecipe

if TYPE_CHECKING:
    from scalenas_runtime.pictures import Picture
    from scalenas_runtime.session import Session

_NOTHING = np.zeros((1, 1, 3), np.uint8)


class Prepared(ABC):
    """A part of a data set, ready for engines of one recipe.

    Attributes:
        count: Number of pictures.
    """

    count: int

    @abstractmethod
    def judge(self, session: Session) -> Evaluation:
        """Returns the accuracy of an engine: the same figures that `evaluate` gives picture by picture."""


class PreparedPeople(Prepared):
    """The crops of all people, so that an engine can take them in batches of its own size."""

    def __init__(self, recipe: PoseRecipe, data: KeypointData, question: PoseQuestion) -> None:
        """Reads every picture once.

        Raises:
            UserError: no joint in common, a metric that does not fit, or an unreadable picture.
        """
        self._recipe, self._question = recipe, replace(question, limit=None)
        self._crops: list[NDArray[np.uint8]] = []
        self._transforms: list[NDArray[np.float64]] = []
        self._boxes: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        kept: list[KeypointPicture] = []

        def seen() -> Iterator[KeypointPicture]:
            for picture in islice(data, question.limit):
                kept.append(replace(picture, read=partial(_given, _NOTHING)))
                yield picture

        # The evaluation itself says which boxes it asks for.
        evaluate_pose(self._record, recipe, replace(data, pictures=seen), question=question)
        self._data = replace(data, count=len(kept), pictures=partial(iter, tuple(kept)))
        self.count = len(kept)

    def judge(self, session: Session) -> Evaluation:
        """Returns the accuracy of an engine of any batch size."""
        crops = np.concatenate(self._crops)
        heatmaps = _in_batches(session, crops)
        if self._recipe.flip_test:
            mirrored = _in_batches(session, np.ascontiguousarray(crops[:, :, ::-1]))
            heatmaps = merge_flipped(heatmaps, mirrored, self._recipe)
        coordinates, scores = decode_heatmaps(heatmaps, self._recipe)
        keypoints = heatmap_to_picture(coordinates, np.concatenate(self._transforms), self._recipe)
        results = self._results(keypoints, scores)
        return evaluate_pose(
            lambda picture, boxes, *, box_scores: next(results), self._recipe, self._data, question=self._question
        )

    def _results(self, keypoints: NDArray[np.float32], scores: NDArray[np.float32]) -> Iterator[PoseResult]:
        start = 0
        for boxes, box_scores in self._boxes:
            end = start + len(boxes)
            if start == end:
                yield no_persons(self._recipe)
            else:
                yield PoseResult(keypoints[start:end], scores[start:end], boxes, box_scores, self._recipe)
            start = end

    def _record(self, picture: Picture, boxes: ArrayLike, *, box_scores: ArrayLike) -> PoseResult:
        given = check_boxes(boxes, *picture.shape[:2])
        scores = np.asarray(box_scores, np.float32)
        self._boxes.append((given, scores))
        crops, transforms = pose_crops(picture, given, self._recipe)
        self._crops.append(crops)
        self._transforms.append(transforms)
        shape = (len(given), len(self._recipe.joints))
        return PoseResult(np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32), given, scores, self._recipe)


class PreparedMaps(Prepared):
    """Pictures and class maps in memory."""

    def __init__(self, recipe: SegmentationRecipe, data: PairData, limit: int | None) -> None:
        """Reads every picture and class map once.

        Raises:
            UserError: an unreadable picture or mask.
        """
        self._recipe = recipe
        pairs = tuple(
            LabelledPicture(pair.name, partial(_given, pair.read()), partial(_given, pair.read_labels()))
            for pair in islice(data, limit)
        )
        self._data = replace(data, count=len(pairs), pictures=partial(iter, pairs))
        self.count = len(pairs)

    def judge(self, session: Session) -> Evaluation:
        """Returns the accuracy of an engine; the session is closed with its segmenter."""
        with Segmenter(session, self._recipe) as segmenter:
            return evaluate_segmentation(segmenter.segment, self._recipe, self._data)


def prepare(recipe: Recipe, data: KeypointData | PairData, *, metric: Metric | None, limit: int | None) -> Prepared:
    """Returns a part of a data set, ready for engines of a recipe.

    Args:
        recipe: Of the engines.
        data: Labelled pictures of the recipe's task.
        metric: What is asked of joints; the recipe's usual metric if None.
        limit: Take the first so many pictures.

    Raises:
        UserError: the labels do not fit the recipe, or a picture cannot be read.
    """
    if isinstance(recipe, PoseRecipe):
        assert isinstance(data, KeypointData)
        return PreparedPeople(recipe, data, PoseQuestion(metric or default_metric(recipe), limit=limit))
    assert isinstance(data, PairData)
    return PreparedMaps(recipe, data, limit)


def _in_batches(session: Session, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    feed, output = session.inputs[0], session.outputs[0]
    batch = feed.shape[0]
    padded = np.zeros((-len(pictures) % batch, *pictures.shape[1:]), np.uint8)
    every = np.concatenate([pictures, padded]) if len(padded) else pictures
    outputs = np.empty((len(every), *output.shape[1:]), np.float32)
    for start in range(0, len(every), batch):
        outputs[start : start + batch] = session.run({feed.name: every[start : start + batch]})[output.name]
    return outputs[: len(pictures)]


def _given(array: NDArray[Any]) -> NDArray[Any]:
    return array
