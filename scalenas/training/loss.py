"""Losses as (sum, count), so that a mean over all processes is the mean over all pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scalenas.training.config import LossConfig
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe, Recipe


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over pixels (with gradient) and what it is to be divided by (without)."""

    sum: Tensor
    count: Tensor


class TaskLoss:
    """The loss of one task under one recipe."""

    def __init__(self, config: LossConfig, recipe: Recipe, device: torch.device) -> None:
        """Takes the options.

        Raises:
            UserError: an option of the other task, or class weights that are not one a class.
        """
        self.config, self.recipe = config, recipe
        self.weights: Tensor | None = None
        defaults = LossConfig()
        pose = isinstance(recipe, PoseRecipe)
        foreign = ("kind", "threshold", "keep", "class_weights") if pose else ("foreground",)
        for name in foreign:
            if getattr(config, name) != getattr(defaults, name):
                raise UserError(f"loss.{name} is no option of {'pose' if pose else 'segmentation'}; leave it out")
        if isinstance(recipe, PoseRecipe):
            return
        if config.class_weights:
            if len(config.class_weights) != len(recipe.classes):
                raise UserError(
                    f"loss.class_weights has {len(config.class_weights)} numbers for {len(recipe.classes)} classes"
                )
            self.weights = torch.tensor(config.class_weights, device=device)

    def __call__(self, output: Tensor, target: Tensor, weight: Tensor | None) -> Total:
        """Returns the loss of a batch.

        Args:
            output: Heatmaps (B, K, h, w) or logits (B, C, h, w).
            target: Heatmaps of the same shape, or uint8 labels (B, H, W).
            weight: (B, K), 0 for joints without label; None for labels.
        """
        if isinstance(self.recipe, PoseRecipe):
            return heatmap_loss(output, target, weight, foreground=self.config.foreground)
        corners = self.recipe.align_corners
        size = (target.shape[-2], target.shape[-1])
        logits = functional.interpolate(output.float(), size=size, mode="bilinear", align_corners=corners)
        labels = target.long()
        if self.config.kind == "ohem":
            return hard_pixel_loss(
                logits,
                labels,
                ignore=self.recipe.ignore,
                weights=self.weights,
                threshold=self.config.threshold,
                keep=self.config.keep,
            )
        return pixel_loss(logits, labels, ignore=self.recipe.ignore, weights=self.weights)


def heatmap_loss(output: Tensor, target: Tensor, weight: Tensor | None, *, foreground: float = 0.0) -> Total:
    """Returns half the squared error of heatmaps, a mean over all pixels of all joints (Sun et al., CVPR 2019).

    Args:
        output: (B, K, h, w).
        target: The same shape, 0..1.
        weight: (B, K) factor of a joint's error.
        foreground: Errors count 1 + foreground x target times: a joint covers some per cent of its map, and without it
            the empty map is a comfortable answer.
    """
    error = (output.float() - target).square()
    if foreground:
        error = error * (1 + foreground * target)
    if weight is not None:
        error = error * weight[:, :, None, None]
    return Total(0.5 * error.sum(), _number(error.numel(), error))


def pixel_loss(logits: Tensor, labels: Tensor, *, ignore: int, weights: Tensor | None = None) -> Total:
    """Returns the cross entropy of all pixels that are not ignored, a weighted mean as torch's.

    Args:
        logits: (B, C, H, W) float32.
        labels: (B, H, W) int64.
        ignore: Label that does not count.
        weights: (C,).
    """
    total = functional.cross_entropy(logits, labels, weight=weights, ignore_index=ignore, reduction="sum")
    valid = labels != ignore
    count = valid.sum() if weights is None else weights[labels[valid]].sum()
    return Total(total, count.to(total.dtype))


def hard_pixel_loss(
    logits: Tensor, labels: Tensor, *, ignore: int, threshold: float, keep: int, weights: Tensor | None = None
) -> Total:
    """Returns the cross entropy of hard pixels alone (online hard example mining, as HRNet's segmentation code does).

    Hard are pixels whose true class has a probability below `threshold`, and below that of the `keep`-th hardest
    pixel where fewer than `keep` would be left. Arguments are those of `pixel_loss`.
    """
    losses = functional.cross_entropy(logits, labels, weight=weights, ignore_index=ignore, reduction="none").flatten()
    flat = labels.flatten()
    valid = flat != ignore
    losses = losses[valid]
    if losses.numel() == 0:
        return Total(logits.sum() * 0, _number(0, logits))
    with torch.no_grad():
        chosen = torch.where(labels == ignore, 0, labels)[:, None]
        true = functional.softmax(logits, dim=1).gather(1, chosen).flatten()[valid]
        rank = min(keep, true.numel())
        limit = max(threshold, float(true.kthvalue(rank).values))
        # At the limit of the keep-th pixel itself, `<=` keeps it.
        hard = true < threshold if limit == threshold else true <= limit
    return Total(losses[hard].sum(), hard.sum().to(losses.dtype))


def output_distance(output: Tensor, teacher: Tensor) -> Total:
    """Returns the squared difference between a subnet's and the teacher's undecoded outputs, mean over all values."""
    error = (output.float() - teacher.float()).square()
    return Total(error.sum(), _number(error.numel(), error))


def _number(value: float, like: Tensor) -> Tensor:
    # Filled on the device: a number that is copied there would wait for everything before it.
    return torch.full((), float(value), dtype=torch.float32, device=like.device)
