"""Which step moves a result: one picture through pre-processing, fp32 ONNX, each engine and decoding, step by step.

Only the runtime is used, so this works where neither torch nor onnx is installed.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.bundle import Bundle
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import check_boxes, crop_to_picture, heatmap_scale, picture_to_crop, whole_picture
from scalenas_runtime.parity import relative_error_of
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.results import PoseResult, SegmentationResult
from scalenas_runtime.segmentation import Segmenter
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import PoseRecipe

Picture = NDArray[np.uint8]
Result = PoseResult | SegmentationResult

LIMIT = 0.5
REFERENCE = "onnxruntime:cpu/fp32"
