"""Pictures as the net takes them: the arithmetic of the exported graph, on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from scalenas_runtime.tasks import Recipe


def normalised(pictures: Tensor, recipe: Recipe) -> Tensor:
    """Returns (value - mean) / std per channel in the recipe's colour order, float32 (B, 3, H, W).

    The memory format is channels_last, which is how pictures are stored.

    Args:
        pictures: uint8 (B, H, W, 3), BGR.
        recipe: Colour order, mean and std.
    """
    ordered = pictures.flip(-1) if recipe.color == "rgb" else pictures
    values = ordered.permute(0, 3, 1, 2).to(torch.float32)
    mean, std = (torch.tensor(each, device=values.device).view(1, 3, 1, 1) for each in (recipe.mean, recipe.std))
    return (values - mean) / std
