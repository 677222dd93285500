"""Accuracy of joints and class maps, accumulated picture by picture."""

from scalenas_runtime.metrics.bootstrap import interval
from scalenas_runtime.metrics.confusion import Confusion, ConfusionResult
from scalenas_runtime.metrics.oks import CocoOks, OksResult, oks_nms
from scalenas_runtime.metrics.pck import AREA_BANDS, Pck, PckResult

__all__ = [
    "AREA_BANDS",
    "CocoOks",
    "Confusion",
    "ConfusionResult",
    "OksResult",
    "Pck",
    "PckResult",
    "interval",
    "oks_nms",
]
