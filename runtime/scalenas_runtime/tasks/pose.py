"""`PoseRecipe`: how a picture and a box become crops, and heatmaps become joints (top-down pose)."""

from __future__ import annotations

import math
from typing import Literal

from scalenas_runtime.records import Record
from scalenas_runtime.tasks.common import IMAGENET_MEAN, IMAGENET_STD, check_normalisation, check_size


class PoseRecipe(Record, frozen=True, kw_only=True, tag_field="task", tag="pose"):
    """Everything about top-down pose that is not the net.

    Attributes:
        height, width: Size of the crop the net takes, in pixels.
        joints: Names, in the order of the net's channels.
        edges: Pairs of joint indices that `draw` connects.
        flip_pairs: Pairs of joint indices that change places when the picture is mirrored.
        sigmas: Per joint constants of OKS (object keypoint similarity); empty where none are known.
        color: Channel order the net was trained on; pictures in our API are BGR, and the exported graph reorders.
        mean, std: Per channel in `color` order, grey levels 0..255.
        padding: The box is widened to the crop's aspect ratio and then by this factor (1.25 in HRNet).
        border: Grey level of what lies outside the picture.
        affine: `classic` (HRNet: pixel counts) or `udp` (pixel centres; Huang et al., CVPR 2020).
        decode: `argmax`, `quarter` (quarter pixel towards the larger neighbour), `dark` (Zhang et al., CVPR 2020)
            or `dark-udp` (the same step without the quarter-pixel conventions, for UDP heatmaps).
        blur: Kernel size of DARK's Gaussian, heatmap pixels, odd.
        stride: Input pixels per heatmap pixel.
        flip_test: Average the heatmaps of the picture and of its mirror image.
        flip_shift: Shift the mirrored heatmaps right by one pixel first (HRNet's rule for `classic`).
        keypoint_threshold: Joints with a score below it are not drawn and count as not found.
    """

    height: int
    width: int
    joints: tuple[str, ...]
    version: Literal[1] = 1
    edges: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    padding: float = 1.25
    border: int = 0
    affine: Literal["classic", "udp"] = "classic"
    decode: Literal["argmax", "quarter", "dark", "dark-udp"] = "quarter"
    blur: int = 11
    stride: int = 4
    flip_test: bool = False
    flip_shift: bool = True
    keypoint_threshold: float = 0.2

    def __post_init__(self) -> None:
        check_size(self.height, self.width)
        check_normalisation(self.mean, self.std)
        count = len(self.joints)
        if count == 0 or len(set(self.joints)) != count:
            raise ValueError(f"joints must be distinct names, got {self.joints}")
        for name in ("edges", "flip_pairs"):
            for pair in getattr(self, name):
                if not all(0 <= index < count for index in pair):
                    raise ValueError(f"{name}: {pair} is outside the joints 0..{count - 1}")
        if self.sigmas and (len(self.sigmas) != count or min(self.sigmas) <= 0):
            raise ValueError(f"sigmas must be {count} positive numbers or none, got {self.sigmas}")
        if not 0.5 <= self.padding <= 4:
            raise ValueError(f"padding {self.padding} is outside 0.5..4")
        if not 0 <= self.border <= 255:
            raise ValueError(f"border {self.border} is outside 0..255")
        if self.blur < 1 or self.blur % 2 == 0:
            raise ValueError(f"blur {self.blur} must be odd and positive")
        if self.stride < 1:
            raise ValueError(f"stride {self.stride} must be positive")
        if not all(math.isfinite(value) for value in (self.keypoint_threshold, *self.sigmas)):
            raise ValueError(
                f"keypoint_threshold {self.keypoint_threshold} and sigmas {self.sigmas} must be finite numbers"
            )

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """Height and width of the heatmaps, in heatmap pixels."""
        return self.height // self.stride, self.width // self.stride
