"""Accuracy of nets while and after training, by the runtime's own pre-processing, decoding and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from scalenas.recalibration import recalibrate
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet
from scalenas.training.config import EvaluationConfig
from scalenas.training.pictures import normalised
from scalenas.training.start import Frame
from scalenas.training.supply import plain_pictures
from scalenas_runtime.errors import UserError
from scalenas_runtime.evaluate import (
    Evaluation,
    PoseQuestion,
    default_metric,
    evaluate_pose,
    evaluate_segmentation,
)
from scalenas_runtime.pictures import Picture
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.readers import KeypointData, PairData, relabelled
from scalenas_runtime.results import PoseResult
from scalenas_runtime.segmentation import Segmenter
from scalenas_runtime.session import Array, Feeds, Session, TensorSpec
from scalenas_runtime.tasks import PoseRecipe, Recipe

if TYPE_CHECKING:
    from scalenas.data.dataset import Dataset

_BATCH_PIXELS = 32 * 128 * 96
_DRAWS = 64


class NetSession(Session):
    """A torch net behind the interface of an engine, so that all of the runtime works on it."""

    def __init__(self, net: nn.Module, recipe: Recipe, *, batch: int = 1, device: torch.device | None = None) -> None:
        """Takes a net over normalised pictures; it must be in eval mode.

        Args:
            net: Gives heatmaps or logits of normalised pictures.
            recipe: How pictures become inputs; sizes and outputs.
            batch: Pictures a run.
            device: Where the net is, the CPU if None.
        """
        if isinstance(recipe, PoseRecipe):
            output = TensorSpec("heatmaps", "float32", (batch, len(recipe.joints), *recipe.heatmap_size))
        else:
            output = TensorSpec("logits", "float32", (batch, len(recipe.classes), *recipe.logits_size))
        super().__init__([TensorSpec("image", "uint8", (batch, recipe.height, recipe.width, 3))], [output])
        self._net, self._recipe, self._device = net, recipe, device or torch.device("cpu")

    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        with torch.no_grad():
            pictures = torch.from_numpy(feeds["image"]).to(self._device)
            result = self._net(normalised(pictures, self._recipe))
        out[self.outputs[0].name][...] = result.float().cpu().numpy()

    def _close(self) -> None:
        pass


@dataclass
class Judge:
    """What judges nets.

    Attributes:
        recipe: Of the nets.
        data: Labelled pictures that no training saw; class maps are turned into the recipe's numbering.
        config: Metric, limit and recalibration.
        calibration: Gives uint8 (N, H, W, 3) BGR: pictures for BN statistics; asked once.
        device: Where nets are judged.
    """

    recipe: Recipe
    data: KeypointData | PairData
    config: EvaluationConfig
    calibration: Callable[[], NDArray[np.uint8]]
    device: torch.device

    def __post_init__(self) -> None:
        """Refuses a metric that does not fit before hours of training are spent.

        Raises:
            UserError: the metric needs joints that are not there or is of the other task, or the data label none of the
                recipe's joints or classes.
        """
        if isinstance(self.recipe, PoseRecipe):
            assert isinstance(self.data, KeypointData)
            evaluate_pose(_unasked, self.recipe, self.data, question=replace(self._question, limit=0))
        elif self.config.metric not in (None, "miou"):
            raise UserError(f"evaluation.metric {self.config.metric} is for joints; segmentation takes miou")
        else:
            assert isinstance(self.data, PairData)
            self.data = relabelled(self.data, self.recipe)

    @property
    def _question(self) -> PoseQuestion:
        return PoseQuestion(self.config.metric or default_metric(self.recipe))

    def judge(self, net: StaticNet, *, recalibrated: bool, limit: int | None = None) -> Evaluation:
        """Returns the accuracy of a net.

        Args:
            net: A static net; it is moved to the judge's device and left in eval mode.
            recalibrated: Measure its BN statistics first, as subnets of a supernet need.
            limit: Judge the first so many pictures.
        """
        net = net.to(self.device).eval()
        if recalibrated:
            self.recalibrate(net)
        recipe, data = self.recipe, self.data
        if isinstance(recipe, PoseRecipe):
            assert isinstance(data, KeypointData)
            question = replace(self._question, limit=limit)
            with PoseEstimator(NetSession(net, recipe, device=self.device), recipe) as pose:
                return evaluate_pose(pose.estimate, recipe, data, question=question)
        assert isinstance(data, PairData)
        with Segmenter(NetSession(net, recipe, device=self.device), recipe) as segmenter:
            return evaluate_segmentation(segmenter.segment, recipe, data, limit=limit)

    def recalibrate(self, net: StaticNet) -> int:
        """Sets the BN statistics of a net from the calibration pictures, in place; returns the number of pictures."""
        return recalibrate(net, self.batches(), variance=self.config.variance)

    def batches(self) -> Iterator[Tensor]:
        """Yields the calibration pictures, normalised (B, 3, H, W), on the judge's device."""
        step = max(1, min(32, _BATCH_PIXELS // (self.recipe.height * self.recipe.width)))
        pictures = torch.from_numpy(self._pictures)
        return (normalised(part.to(self.device), self.recipe) for part in torch.split(pictures, step))

    @cached_property
    def _pictures(self) -> NDArray[np.uint8]:
        return self.calibration()


def judge_of(dataset: Dataset, recipe: Recipe, part: str, *, calibration: int, device: torch.device) -> Judge:
    """Returns the judge of a part of a data set, which takes BN statistics from its `calibrate` part.

    Args:
        dataset: The data.
        recipe: Of the nets.
        part: `search`, `val`, ...
        calibration: Pictures for BN statistics, at most.
        device: Where nets are judged.

    Raises:
        UserError: the part is empty, or the data do not fit the recipe.
    """
    pictures = partial(plain_pictures, dataset.samples("calibrate", recipe), calibration)
    data = dataset.labelled(part, size=(recipe.height, recipe.width))
    return Judge(recipe, data, EvaluationConfig(calibration=calibration), pictures, device)


def _unasked(picture: Picture, boxes: ArrayLike, *, box_scores: ArrayLike) -> PoseResult:
    raise AssertionError("no picture was to be judged")


def members(frame: Frame) -> dict[str, SubnetSpec]:
    """Returns the subnets that tables show: the extremes, the published pattern, and typical ones of three groups."""
    space, settings = frame.space, frame.settings
    chosen = {"max": space.max(settings, frame.inputs), "min": space.min(settings, frame.inputs)}
    pattern = space.pattern(settings, frame.size)
    if pattern is not None:
        chosen[pattern[0]] = pattern[1]
    groups = list(space.groups(settings))
    for name in dict.fromkeys(groups[index] for index in _spread(len(groups))):
        chosen[name] = typical(frame, name)
    return chosen


def typical(frame: Frame, group: str) -> SubnetSpec:
    """Returns the one of 64 draws from a group whose MACs are nearest to their mean."""
    rng = np.random.default_rng(0)
    space = frame.space
    drawn = [space.sample(rng, settings=frame.settings, inputs=frame.inputs, group=group) for _ in range(_DRAWS)]
    macs = np.array([space.cost(spec).macs for spec in drawn], np.float64)
    return drawn[int(np.abs(macs - macs.mean()).argmin())]


def _spread(count: int) -> Sequence[int]:
    return [] if count == 0 else [0, count // 2, count - 1]
