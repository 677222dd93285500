"""Runs, verifies, evaluates and measures bundles without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.errors import CheckFailed, MissingExtra, NothingMeetsBudget, UserError
    from scalenas_runtime.pictures import read_picture
    from scalenas_runtime.pose import PoseEstimator
    from scalenas_runtime.results import PoseResult, SegmentationResult
    from scalenas_runtime.segmentation import Segmenter
    from scalenas_runtime.session import Session, TensorSpec
    from scalenas_runtime.sources import open_source
    from scalenas_runtime.targets import EngineConfig, Target
    from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe, read_recipe
    from scalenas_runtime.tracking import PoseTracker

__all__ = [
    "Bundle",
    "CheckFailed",
    "EngineConfig",
    "MissingExtra",
    "NothingMeetsBudget",
    "PoseEstimator",
    "PoseRecipe",
    "PoseResult",
    "PoseTracker",
    "SegmentationRecipe",
    "SegmentationResult",
    "Segmenter",
    "Session",
    "Target",
    "TensorSpec",
    "UserError",
    "open_source",
    "read_picture",
    "read_recipe",
]

# Where each name lives. It is imported when it is asked for, so that a program pays only for what it uses.
_MODULES = {
    "bundle": ("Bundle",),
    "errors": ("CheckFailed", "MissingExtra", "NothingMeetsBudget", "UserError"),
    "pictures": ("read_picture",),
    "pose": ("PoseEstimator",),
    "results": ("PoseResult", "SegmentationResult"),
    "segmentation": ("Segmenter",),
    "session": ("Session", "TensorSpec"),
    "sources": ("open_source",),
    "targets": ("EngineConfig", "Target"),
    "tasks": ("PoseRecipe", "SegmentationRecipe", "read_recipe"),
    "tracking": ("PoseTracker",),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
