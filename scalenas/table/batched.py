"""`BatchedJudge`: what `Judge` finds, for thousands of nets: pictures prepared once, all of them in large batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from scalenas.shared_recalibration import SharedRecalibration
from scalenas.space import SearchSpace
from scalenas.static import StaticNet
from scalenas.training.judge import Judge
from scalenas.training.pictures import normalised
from scalenas.transferred_statistics import Rule, statistics_by
from scalenas.weights import Weights
from scalenas_runtime.decode.pose import decode_heatmaps, merge_flipped
from scalenas_runtime.evaluate import Evaluation, PoseQuestion, default_metric, evaluate_pose, evaluate_segmentation
from scalenas_runtime.geometry import check_boxes, heatmap_to_picture
from scalenas_runtime.pictures import Picture, as_picture
from scalenas_runtime.preprocess import pose_crops
from scalenas_runtime.readers import KeypointData, KeypointPicture, LabelledPicture, PairData
from scalenas_runtime.results import PoseResult, no_persons
from scalenas_runtime.segmentation import Segmenter
from scalenas_runtime.session import Array, Feeds, Session, TensorSpec
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe

# What the widest maps of a small net take on a device: 12 million input pixels are some 6 GB.
PIXELS = {"cpu": 64 * 128 * 96, "cuda": 1024 * 128 * 96}


class BatchedJudge:
    """Judges subnets of one supernet as `Judge.judge` does with recalibration; how the passes are cut alone differs.

    All pictures of the judge's data are held in memory as the nets take them, on the judge's device, and what all nets
    compute alike of them (stem and first stage) is computed once.
    """

    def __init__(self, judge: Judge, space: SearchSpace, weights: Weights, *, statistics: Rule = "measured") -> None:
        """Reads and prepares all pictures.

        Args:
            judge: Says what is judged and on which pictures; its variance is `total`.
            space: The supernet's family.
            weights: Of the supernet, on the judge's device.
            statistics: How BN statistics come from the calibration pictures.

        Raises:
            UserError: an unreadable picture, or labels that do not fit the recipe.
        """
        self._task: _People | _Maps
        recipe = judge.recipe
        if isinstance(recipe, PoseRecipe):
            assert isinstance(judge.data, KeypointData)
            question = PoseQuestion(judge.config.metric or default_metric(recipe))
            self._task = _People(recipe, judge.data, question)
        else:
            assert isinstance(judge.data, PairData)
            self._task = _Maps(recipe, judge.data)
        step = max(1, PIXELS[judge.device.type] // (recipe.height * recipe.width))
        inputs = torch.from_numpy(self._task.inputs).to(judge.device)
        self._inputs = [normalised(part, recipe) for part in torch.split(inputs, step)]
        assert judge.config.variance == "total"
        self._shared = SharedRecalibration(space, weights.settings, judge.batches())
        self._set_statistics = statistics_by(statistics, weights, space, self._shared)

    def judge(self, net: StaticNet) -> Evaluation:
        """Returns the accuracy of a net of the supernet on the judge's device; its BN statistics are set first.

        Nets that `scalenas.inheriting.inherit` made share the most.
        """
        self._set_statistics(net)
        parts = [part.float().cpu().numpy() for part in self._shared.outputs(net, self._inputs)]
        return self._task.evaluation(np.concatenate(parts))


class _People:
    """Crops of all boxes of a data set, and the way back from heatmaps to an evaluation."""

    def __init__(self, recipe: PoseRecipe, data: KeypointData, question: PoseQuestion) -> None:
        self._recipe, self._question = recipe, question
        self._crops: list[NDArray[np.uint8]] = []
        self._transforms: list[NDArray[np.float64]] = []
        self._seen: list[_Boxes] = []
        light: list[KeypointPicture] = []
        # One evaluation of joints at 0, 0 asks for every picture and box that later ones will ask for.
        whole = replace(data, pictures=partial(_keeping, data, light))
        evaluate_pose(self._prepare, recipe, whole, question=question)
        self._data = replace(data, pictures=partial(iter, light))
        crops = np.concatenate(self._crops) if self._crops else np.zeros((0, recipe.height, recipe.width, 3), np.uint8)
        self.inputs = np.concatenate([crops, crops[:, :, ::-1]]) if recipe.flip_test else crops
        self._maps = np.concatenate(self._transforms) if self._transforms else np.zeros((0, 2, 3))

    def evaluation(self, heatmaps: NDArray[np.float32]) -> Evaluation:
        recipe, count = self._recipe, len(self._maps)
        if recipe.flip_test:
            heatmaps = merge_flipped(heatmaps[:count], heatmaps[count:], recipe)
        coordinates, scores = decode_heatmaps(heatmaps, recipe)
        keypoints = heatmap_to_picture(coordinates, self._maps, recipe)
        people, start = [], 0
        for seen in self._seen:
            rows = slice(start, start + len(seen.boxes))
            people.append(PoseResult(keypoints[rows], scores[rows], seen.boxes, seen.scores, recipe))
            start = rows.stop
        answers = iter(people)

        def estimate(picture: Picture, boxes: ArrayLike, *, box_scores: ArrayLike) -> PoseResult:
            return next(answers)

        return evaluate_pose(estimate, recipe, self._data, question=self._question)

    def _prepare(self, picture: Picture, boxes: ArrayLike, *, box_scores: ArrayLike) -> PoseResult:
        recipe = self._recipe
        pixels = as_picture(picture)
        given = check_boxes(boxes, *pixels.shape[:2])
        scores = np.asarray(box_scores, np.float32)
        self._seen.append(_Boxes(given, scores))
        if len(given) == 0:
            return no_persons(recipe)
        crops, transforms = pose_crops(pixels, given, recipe)
        self._crops.append(crops)
        self._transforms.append(transforms)
        joints = np.zeros((len(given), len(recipe.joints), 2), np.float32)
        return PoseResult(joints, joints[:, :, 0], given, scores, recipe)


@dataclass(frozen=True, slots=True)
class _Boxes:
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


class _Maps:
    """Inputs of all pictures of a data set, and the way back from logits to an evaluation."""

    def __init__(self, recipe: SegmentationRecipe, data: PairData) -> None:
        self._recipe = recipe
        held = [_held(pair) for pair in data]
        self._data = replace(data, pictures=partial(iter, held))
        recorder = _Tape(recipe)
        with Segmenter(recorder, recipe) as segmenter:
            for pair in held:
                segmenter.segment(pair.read())
        self.inputs = np.concatenate(recorder.inputs_seen)

    def evaluation(self, logits: NDArray[np.float32]) -> Evaluation:
        with Segmenter(_Tape(self._recipe, logits), self._recipe) as segmenter:
            return evaluate_segmentation(segmenter.segment, self._recipe, self._data)


class _Tape(Session):
    """An engine that gives prepared logits in order, or zeros, and keeps what it is asked."""

    def __init__(self, recipe: SegmentationRecipe, logits: NDArray[np.float32] | None = None) -> None:
        output = TensorSpec("logits", "float32", (1, len(recipe.classes), *recipe.logits_size))
        super().__init__([TensorSpec("image", "uint8", (1, recipe.height, recipe.width, 3))], [output])
        self._logits = None if logits is None else iter(logits)
        self.inputs_seen: list[NDArray[np.uint8]] = []

    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        if self._logits is None:
            self.inputs_seen.append(feeds["image"].copy())
            out["logits"][...] = 0
        else:
            out["logits"][0] = next(self._logits)

    def _close(self) -> None:
        pass


def _keeping(data: KeypointData, light: list[KeypointPicture]) -> Iterator[KeypointPicture]:
    """Yields the pictures, and keeps all of them but their pixels."""
    nothing = np.zeros((1, 1, 3), np.uint8)
    for picture in data:
        light.append(replace(picture, read=partial(_same, nothing)))
        yield picture


def _held(pair: LabelledPicture) -> LabelledPicture:
    return replace(pair, read=partial(_same, pair.read()), read_labels=partial(_same, pair.read_labels()))


def _same(array: NDArray[Any]) -> NDArray[Any]:
    return array
