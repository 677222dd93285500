"""Accuracy of joints and class maps, accumulated picture by picture."""

from scalenas_runtime.metrics.bootstrap import interval
from scalenas_runtime.metrics.confusion import Confusion, ConfusionResult
from scalenas_runtime.metrics.counts import Counts, difference
from scalenas_runtime.metrics.oks import CocoOks, OksResult, oks_nms
from scalenas_runtime.metrics.pck import AREA_BANDS, Pck, PckResult
from scalenas_runtime.metrics.ranks import kendall_tau, tau_interval

__all__ = [
    "AREA_BANDS",
    "CocoOks",
    "Confusion",
    "ConfusionResult",
    "Counts",
    "OksResult",
    "Pck",
    "PckResult",
    "difference",
    "interval",
    "kendall_tau",
    "oks_nms",
    "tau_interval",
]
