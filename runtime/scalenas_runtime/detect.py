"""Person boxes from a detector's ONNX file, whatever of the common output layouts it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.backends import get_backend
from scalenas_runtime.boxes import Detections
from scalenas_runtime.errors import UserError
from scalenas_runtime.pictures import Picture, as_picture
from scalenas_runtime.session import Array, Session, TensorSpec
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks.common import IMAGENET_MEAN, IMAGENET_STD

Float = NDArray[np.float32]

STRIDES = (8, 16, 32)
_PAD = 114
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a layout reads from the outputs: boxes (M, 4) in pixels of the input, scores (M,), classes (M,)."""

    boxes: Float
    scores: Float
    classes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a family of detectors takes its picture and gives its boxes.

    Attributes:
        name: What `--detector-layout` calls it.
        about: Where it comes from and what it looks like, for messages.
        fits: Whether outputs of these shapes, for an input of this (height, width), look like it.
        read: Candidates from the outputs by name and the input's (height, width).
        color: Channel order of the input.
        values: `levels` (0..255), `unit` (0..1) or `imagenet` (mean and standard deviation of ImageNet).
        centred: The picture lies in the middle of the input, not in its top left corner.
        overlapping: Boxes still overlap, so suppression is up to the caller.
    """

    name: str
    about: str
    fits: Callable[[Sequence[TensorSpec], tuple[int, int]], bool]
    read: Callable[[Mapping[str, Array], tuple[int, int]], Candidates]
    color: Literal["rgb", "bgr"] = "bgr"
    values: Literal["levels", "unit", "imagenet"] = "levels"
    centred: bool = False
    overlapping: bool = False


class Detector:
    """Finds persons: call it with a picture, get `Detections`."""

    def __init__(
        self,
        session: Session,
        *,
        layout: str | None = None,
        min_score: float = 0.3,
        iou: float = 0.65,
        classes: Sequence[int] = (0,),
    ) -> None:
        """Takes a detector's engine.

        Args:
            session: One picture input, float32 or uint8, (1, 3, H, W) or (1, H, W, 3).
            layout: One of `LAYOUTS` by name; recognised by the outputs' names and shapes where it is left out.
            min_score: Candidates below it are dropped, 0..1.
            iou: Of two boxes that overlap by more than this, the lower one is dropped (layouts before suppression).
            classes: Class numbers that are persons; 0 in COCO-trained detectors.

        Raises:
            UserError: another input, an unknown layout name, or outputs that no layout fits.
        """
        self.session = session
        self.input, self.size, self._channels_first = _input(session)
        self.layout = _layout(session, layout, self.size)
        self.min_score, self.iou, self.classes = min_score, iou, tuple(classes)

    @classmethod
    def load(
        cls,
        model: str | Path,
        target: str | Target = "onnxruntime:cpu/fp32",
        *,
        threads: int | None = None,
        layout: str | None = None,
        min_score: float = 0.3,
    ) -> Detector:
        """Returns the detector in an ONNX file with static shapes, compiled now for `target`.

        Raises:
            UserError: the file cannot be used for the target, or see the constructor.
        """
        target = Target.parse(target) if isinstance(target, str) else target
        path = Path(model)
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        session = get_backend(target.backend).compile(path, EngineConfig(target, threads=threads))
        try:
            return cls(session, layout=layout, min_score=min_score)
        except BaseException:
            session.close()
            raise

    def __call__(self, picture: NDArray[Any]) -> Detections:
        """Returns the persons in a picture, highest score first, boxes cut to the picture.

        Raises:
            UserError: not a picture (`pictures.as_picture`).
        """
        picture = as_picture(picture)
        tensor, scale, offset = self._prepare(picture)
        outputs = self.session.run_varying({self.input.name: tensor})
        found = self.layout.read(outputs, self.size)
        height, width = picture.shape[:2]
        boxes = (found.boxes - np.array([*offset, *offset], np.float32)) / np.float32(scale)
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        good = (found.scores >= self.min_score) & np.isin(found.classes, self.classes)
        good &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, scores = boxes[good], found.scores[good]
        # A stable sort: equal scores keep the net's order, on every machine.
        order = np.argsort(-scores, kind="stable")[:_MOST]
        boxes, scores = boxes[order], scores[order]
        if self.layout.overlapping:
            kept = suppress(boxes, scores, self.iou)
            boxes, scores = boxes[kept], scores[kept]
        return Detections(np.ascontiguousarray(boxes, np.float32), np.ascontiguousarray(scores, np.float32))

    def close(self) -> None:
        """Frees the engine."""
        self.session.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, picture: Picture) -> tuple[Array, float, tuple[int, int]]:
        """Returns the input tensor, input pixels per picture pixel, and where the picture's corner (x, y) lies."""
        height, width = self.size
        scale = min(height / picture.shape[0], width / picture.shape[1])
        inner = max(1, int(picture.shape[0] * scale)), max(1, int(picture.shape[1] * scale))
        x, y = ((width - inner[1]) // 2, (height - inner[0]) // 2) if self.layout.centred else (0, 0)
        canvas = np.full((height, width, 3), _PAD, np.uint8)
        canvas[y : y + inner[0], x : x + inner[1]] = cv2.resize(
            picture, (inner[1], inner[0]), interpolation=cv2.INTER_LINEAR
        )
        if self.layout.color == "rgb":
            canvas = canvas[:, :, ::-1]
        tensor: Array = canvas
        if self.input.dtype != "uint8":
            tensor = _values(canvas, self.layout)
        if self._channels_first:
            tensor = tensor.transpose(2, 0, 1)
        return np.ascontiguousarray(tensor[np.newaxis]), scale, (x, y)


def suppress(boxes: Float, scores: Float, iou: float) -> NDArray[np.int64]:
    """Returns the indices of the boxes that stay, highest score first (greedy non-maximum suppression).

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        scores: (N,); of equal scores the first box goes first.
        iou: A box goes when it overlaps a kept one by more than this (intersection over union).
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        order = rest[box_iou(boxes[best][np.newaxis], boxes[rest])[0] <= iou]
    return np.array(kept, np.int64)


def box_iou(a: Float, b: Float) -> Float:
    """Returns intersection over union of every box of `a` (M, 4) with every box of `b` (N, 4), float32 (M, N)."""
    low = np.maximum(a[:, np.newaxis, :2], b[np.newaxis, :, :2])
    high = np.minimum(a[:, np.newaxis, 2:], b[np.newaxis, :, 2:])
    shared = np.maximum(high - low, 0).prod(2)
    areas_a, areas_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    union = areas_a[:, np.newaxis] + areas_b[np.newaxis] - shared
    result: Float = (shared / np.maximum(union, np.finfo(np.float32).tiny)).astype(np.float32)
    return result


def _input(session: Session) -> tuple[TensorSpec, tuple[int, int], bool]:
    spec = session.inputs[0]
    if len(session.inputs) == 1 and len(spec.shape) == 4 and spec.dtype in ("float32", "uint8"):
        if spec.shape[1] == 3:
            return spec, (spec.shape[2], spec.shape[3]), True
        if spec.shape[3] == 3:
            return spec, (spec.shape[1], spec.shape[2]), False
    there = ", ".join(f"{item.name} {item.dtype} {item.shape}" for item in session.inputs)
    raise UserError(f"a detector takes one float32 or uint8 picture (1, 3, H, W) or (1, H, W, 3), got {there}")


def _layout(session: Session, name: str | None, size: tuple[int, int]) -> Layout:
    if name is not None:
        if name not in LAYOUTS:
            raise UserError(f"unknown detector layout {name!r}; known: {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.fits(session.outputs, size):
            return layout
    there = ", ".join(f"{item.name} {item.dtype} {item.shape}" for item in session.outputs)
    known = "; ".join(f"{layout.name}: {layout.about}" for layout in LAYOUTS.values())
    raise UserError(f"no known detector layout has the outputs {there}; known: {known}")


def _values(canvas: Picture, layout: Layout) -> Float:
    values = canvas.astype(np.float32)
    if layout.values == "unit":
        values /= 255
    elif layout.values == "imagenet":
        step = 1 if layout.color == "rgb" else -1
        mean, std = (np.array(three, np.float32)[::step] for three in (IMAGENET_MEAN, IMAGENET_STD))
        values = (values - mean) / std
    return values


def _cells(size: tuple[int, int]) -> list[tuple[int, int, int]]:
    return [(size[0] // stride, size[1] // stride, stride) for stride in STRIDES]


def _fits_grid(outputs: Sequence[TensorSpec], size: tuple[int, int]) -> bool:
    anchors = sum(rows * columns for rows, columns, _ in _cells(size))
    shape = outputs[0].shape
    return len(outputs) == 1 and len(shape) == 3 and shape[1] == anchors and shape[2] >= 6


def _read_grid(outputs: Mapping[str, Array], size: tuple[int, int]) -> Candidates:
    """Reads x, y, w, h, objectness, class scores per grid cell: YOLOX, decoded in the graph or not."""
    rows = next(iter(outputs.values())).reshape(-1, next(iter(outputs.values())).shape[-1]).astype(np.float32)
    centres: Float = rows[:, :2]
    sizes: Float = rows[:, 2:4]
    # Undecoded sizes are logarithms of strides: some are negative, and none comes near 16; decoded ones are pixels.
    if sizes.min() <= 0 or sizes.max() < 16:
        grids, strides = [], []
        for high, wide, stride in _cells(size):
            y, x = np.divmod(np.arange(high * wide), wide)
            grids.append(np.stack([x, y], 1))
            strides.append(np.full((high * wide, 1), stride))
        step: Float = np.concatenate(strides).astype(np.float32)
        cells: Float = np.concatenate(grids).astype(np.float32)
        centres = (centres + cells) * step
        sizes = np.asarray(np.exp(np.minimum(sizes, 16)), np.float32) * step
    scores = rows[:, 4:5] * rows[:, 5:]
    classes = scores.argmax(1)
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
    return Candidates(boxes, scores[np.arange(len(scores)), classes], classes)


def _fits_dets(outputs: Sequence[TensorSpec], size: tuple[int, int]) -> bool:
    shapes = sorted((spec.shape for spec in outputs), key=len)
    return len(shapes) == 2 and len(shapes[1]) == len(shapes[0]) + 1 and shapes[1] == (*shapes[0], 5)


def _read_dets(outputs: Mapping[str, Array], size: tuple[int, int]) -> Candidates:
    """Reads `dets` (1, N, 5): x1, y1, x2, y2, score, and `labels` (1, N): mmdeploy's form after suppression."""
    labels, rows = sorted(outputs.values(), key=lambda array: array.ndim)
    rows = rows.reshape(-1, 5).astype(np.float32)
    return Candidates(rows[:, :4], rows[:, 4], labels.reshape(-1).astype(np.int64))


def _fits_six(outputs: Sequence[TensorSpec], size: tuple[int, int]) -> bool:
    return len(outputs) == 1 and len(outputs[0].shape) in (2, 3) and outputs[0].shape[-1] == 6


def _read_six(outputs: Mapping[str, Array], size: tuple[int, int]) -> Candidates:
    """Reads (N, 6) or (1, N, 6): x1, y1, x2, y2, score, class, after suppression."""
    rows = next(iter(outputs.values())).reshape(-1, 6).astype(np.float32)
    return Candidates(rows[:, :4], rows[:, 4], rows[:, 5].round().astype(np.int64))


# In the order in which they are tried: a one-class YOLOX has 6 columns too, but its rows are the grid's cells.
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("yolox", "YOLOX (1, cells, 5 + classes)", _fits_grid, _read_grid, overlapping=True),
        Layout("rtmdet", "RTMDet of mmdeploy, dets (1, N, 5) and labels", _fits_dets, _read_dets, values="imagenet"),
        Layout("yolox-dets", "YOLOX of mmdeploy, dets and labels, input 0..255", _fits_dets, _read_dets),
        Layout("nms", "(N, 6) after suppression", _fits_six, _read_six, color="rgb", values="unit", centred=True),
    )
}
