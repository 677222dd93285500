"""Nets that nobody trained, made so that their outputs behave like a trained net's: ranges, statistics, smooth maps.

Deep nets with plain random weights amplify every rounding error until no two engines agree, and their outputs decide
nothing. Three steps prevent that: residual branches start small (Goyal et al., 2017, section 5.1, start them at
zero), BN statistics are measured on pictures, and the last 1x1 convolution of a segmentation net is fitted to the
labels of drawn streets by ridge regression in closed form. Heatmaps stay near zero: a random net finds no joints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_export.calibration import SEED, Calibration, normalised
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import Recipe, SegmentationRecipe
from scalenas_runtime.tasks.sets import ClassSet

if TYPE_CHECKING:
    import torch
    from torch import nn

DAMPING = 0.1
# Large on purpose: the smoother the map, the fewer pixels lie so near a boundary that rounding decides their class.
RIDGE = 10.0
# Pixels of each picture that the regression sees.
SAMPLES = 2048

Labelled = tuple[NDArray[np.uint8], NDArray[np.float32]]


def settle(net: nn.Module, recipe: Recipe, calibration: Calibration, *, seed: int) -> None:
    """Gives a net with random weights sane outputs, in place.

    Args:
        net: A static net with initial weights, in eval mode.
        recipe: Task, size and names.
        calibration: Pictures for the BN statistics; as many streets are drawn for the last convolution.
        seed: Seed of the pixels that the regression samples.
    """
    from scalenas.recalibration import recalibrate

    _damp(net)
    recalibrate(net, calibration.batches(recipe))
    if isinstance(recipe, SegmentationRecipe):
        # Streets do not have every class there is: then the last convolution keeps its small random weights.
        with contextlib.suppress(_NoLabelsError):
            _fit_head(net, recipe, len(calibration.pictures), seed)


class _NoLabelsError(Exception):
    """The scenes have no labels for this recipe."""


def _damp(net: nn.Module) -> None:
    from torch import nn

    from scalenas.layers import ConvBN

    for name, module in net.named_modules():
        # Without a ReLU of its own: the last of a residual or fusion branch, whose sum goes on. A shortcut is no
        # branch but the trunk.
        if isinstance(module, ConvBN) and not module.relu and not name.endswith(".shortcut"):
            nn.init.constant_(module.bn.weight, DAMPING)


def _fit_head(net: nn.Module, recipe: SegmentationRecipe, count: int, seed: int) -> None:
    import torch

    head = _last_convolution(net)
    if head is None or head.bias is None:
        return
    rng = np.random.default_rng(seed)
    captured: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    features, targets = [], []
    try:
        with torch.no_grad():
            for picture, target in _labelled(recipe, count):
                captured.clear()
                net(normalised(picture[None], recipe))
                values = captured[0][0].flatten(1)
                chosen = torch.from_numpy(rng.choice(values.shape[1], min(SAMPLES, values.shape[1]), replace=False))
                features.append(values[:, chosen].double())
                targets.append(torch.from_numpy(target).flatten(1)[:, chosen].double())
    finally:
        hook.remove()
    x, y = torch.cat(features, 1), torch.cat(targets, 1)
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    centred = x - x_mean
    covariance = centred @ centred.T / x.shape[1]
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(x), dtype=x.dtype)
    weight = torch.linalg.solve(covariance + ridge, centred @ (y - y_mean).T / x.shape[1]).T
    with torch.no_grad():
        head.weight.copy_(weight[:, :, None, None])
        head.bias.copy_((y_mean - weight @ x_mean)[:, 0])


def _last_convolution(net: nn.Module) -> nn.Conv2d | None:
    """Returns the 1x1 convolution whose output is the net's, or None where the net ends otherwise."""
    from torch import fx, nn

    trace = fx.symbolic_trace(net)
    (last,) = (node for node in trace.graph.nodes if node.op == "output")
    sources = last.all_input_nodes
    if len(sources) != 1 or sources[0].op != "call_module":
        return None
    module = net.get_submodule(str(sources[0].target))
    return module if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) else None


def _labelled(recipe: SegmentationRecipe, count: int) -> Iterator[Labelled]:
    """Yields pictures (H, W, 3) with their targets (channels, h, w), or raises where scenes have no such labels."""
    for index in range(count):
        try:
            yield _street(recipe, index)
        except UserError as error:
            raise _NoLabelsError from error


def _street(recipe: SegmentationRecipe, index: int) -> Labelled:
    from scalenas_runtime.scenes import street_scene

    classes = ClassSet("recipe", recipe.classes, recipe.palette, recipe.ignore)
    scene = street_scene(SEED, index, size=(recipe.height, recipe.width), classes=classes)
    height, width = recipe.logits_size
    labels = cv2.resize(scene.class_map, (width, height), interpolation=cv2.INTER_NEAREST)
    return scene.picture, (labels == np.arange(len(recipe.classes))[:, None, None]).astype(np.float32)
