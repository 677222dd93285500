"""`SegmentationRecipe`: how a picture of any size becomes the net's input, and logits become a class map."""

from __future__ import annotations

from typing import Literal

from scalenas_runtime.records import Record
from scalenas_runtime.tasks.common import IMAGENET_MEAN, IMAGENET_STD, check_normalisation, check_size


class SegmentationRecipe(Record, frozen=True, kw_only=True, tag_field="task", tag="segmentation"):
    """Everything about semantic segmentation that is not the net.

    Attributes:
        height, width: Size of the picture the net takes, in pixels.
        classes: Names, in the order of the net's channels.
        palette: One (R, G, B) colour per class, 0..255.
        ignore: Label value that counts in no metric.
        color: Channel order the net was trained on; pictures in our API are BGR, and the exported graph reorders.
        mean, std: Per channel in `color` order, grey levels 0..255.
        fit: `stretch` (resize to the input size), `pad` (resize keeping the aspect ratio, pad right and bottom) or
            `sliding` (windows of the input size over the picture at its own scale, logits averaged).
        overlap: Share of a window that its neighbour covers too, for `sliding`.
        border: Grey level of padding.
        align_corners: Sampling rule of the final bilinear upsampling of the logits.
        stride: Input pixels per logit pixel.
        flip_test: Average the logits of the picture and of its mirror image.
    """

    height: int
    width: int
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    version: Literal[1] = 1
    ignore: int = 255
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    fit: Literal["stretch", "pad", "sliding"] = "stretch"
    overlap: float = 0.25
    border: int = 0
    align_corners: bool = False
    stride: int = 4
    flip_test: bool = False

    def __post_init__(self) -> None:
        check_size(self.height, self.width)
        check_normalisation(self.mean, self.std)
        count = len(self.classes)
        if not 2 <= count <= 255 or len(set(self.classes)) != count:
            raise ValueError(f"classes must be 2 to 255 distinct names, got {count}")
        if len(self.palette) != count:
            raise ValueError(f"palette has {len(self.palette)} colours for {count} classes")
        if any(not 0 <= value <= 255 for colour in self.palette for value in colour):
            raise ValueError("palette colours are outside 0..255")
        if not 0 <= self.ignore <= 255 or self.ignore < count:
            raise ValueError(f"ignore {self.ignore} must be in {count}..255, outside the classes")
        if not 0 <= self.border <= 255:
            raise ValueError(f"border {self.border} is outside 0..255")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap {self.overlap} is outside 0..1")
        if self.stride < 1:
            raise ValueError(f"stride {self.stride} must be positive")

    @property
    def logits_size(self) -> tuple[int, int]:
        """Height and width of the logits, in logit pixels."""
        return self.height // self.stride, self.width // self.stride
