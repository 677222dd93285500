"""Readers of labelled data sets: pictures with their joints or class maps, one at a time."""

from scalenas_runtime.readers.detections import read_detections
from scalenas_runtime.readers.keypoints import KeypointData, KeypointPicture, read_keypoints
from scalenas_runtime.readers.pairs import LabelledPicture, PairData, read_pairs
from scalenas_runtime.readers.relabel import relabelled
from scalenas_runtime.readers.synthetic import synthetic_keypoints, synthetic_pairs

__all__ = [
    "KeypointData",
    "KeypointPicture",
    "LabelledPicture",
    "PairData",
    "read_detections",
    "read_keypoints",
    "read_pairs",
    "relabelled",
    "synthetic_keypoints",
    "synthetic_pairs",
]
