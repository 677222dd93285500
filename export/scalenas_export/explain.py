"""Which step moves a result: one picture through pre-processing, fp32 ONNX, each engine and decoding, step by step.

Only the runtime is used, so this works where neither torch nor onnx is installed.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.backends import get_backend
from scalenas_runtime.bundle import Bundle
from scalenas_runtime.canonical import Json
from scalenas_runtime.decode.pose import merge_flipped
from scalenas_runtime.difference_picture import difference_picture
from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import check_boxes, whole_picture
from scalenas_runtime.golden import decode_outputs
from scalenas_runtime.preprocess import pose_crops
from scalenas_runtime.preprocess_segmentation import plan_inputs, segmentation_inputs
from scalenas_runtime.session import Array, Session
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import PoseRecipe, Recipe

Picture = NDArray[np.uint8]

LIMIT = 0.5
# Pixels whose two best classes are equal but for rounding change with anything: fewer than this share tell nothing.
SHARE = 0.01
REFERENCE = Target("onnxruntime", "cpu", "fp32")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the chain, exchanged against another way of doing it.

    Attributes:
        name: The step.
        against: What its result is held against.
        moved: Largest move of a joint in pixels of the net's input, or share of pixels whose class changed.
        names: Joints that move by more than half a pixel, or classes that gain or lose pixels.
        moves: The step moves a joint by more than half a pixel, or changes the class of more than 1 % of pixels, or
            of more pixels than another way of sampling the picture does.
        panel: Both results drawn on the input that differs most, uint8 (h, w, 3), BGR; None where nothing can be drawn.
    """

    name: str
    against: str
    moved: float
    names: tuple[str, ...]
    moves: bool
    panel: Picture | None = None

    def to_json(self) -> dict[str, Json]:
        """Returns the step as JSON values, without the panel."""
        return {
            "name": self.name,
            "against": self.against,
            "moved": self.moved,
            "names": list(self.names),
            "moves": self.moves,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """All steps of one picture.

    Attributes:
        recipe: The task.
        inputs: uint8 (N, H, W, 3), BGR: what the net is given, one crop a box, or one window.
        steps: In the order of the chain.
        found: Joints above the recipe's threshold, all persons together; None for segmentation. Where it is 0, all
            joints are followed, since there is nothing else to follow.
    """

    recipe: Recipe
    inputs: Picture
    steps: tuple[Step, ...]
    found: int | None = None

    @property
    def first(self) -> Step | None:
        """The first step that moves something, or None."""
        return next((step for step in self.steps if step.moves), None)

    @property
    def verdict(self) -> str:
        """One sentence: which step it is, or that none moves anything."""
        step, pose = self.first, isinstance(self.recipe, PoseRecipe)
        if step is None:
            if pose:
                return f"no step moves a joint by more than {LIMIT} px"
            return f"no step changes the class of more than {SHARE:.0%} of pixels, or of more than sampling does"
        if pose:
            return f"{step.name} is the first step that moves a joint by more than {LIMIT} px ({step.moved:.2f} px)"
        return f"{step.name} is the first step that changes classes ({step.moved:.3%} of pixels)"


def explain(
    bundle: Bundle, picture: Picture, *, targets: Sequence[str] = (), boxes: NDArray[np.float32] | None = None
) -> Explanation:
    """Returns what each step does to the result on one picture.

    The reference is the fp32 ONNX graph in ONNX Runtime on the runtime's own input. Held against it, in this order:
    the same graph on an input sampled by NumPy; the graph here against its recorded golden results; each engine; and
    the graph that decodes, where the bundle has one.

    Args:
        bundle: The bundle.
        picture: uint8 (H, W, 3), BGR.
        targets: Engines; those of the bundle that fit here unless given.
        boxes: float32 (N, 4) in pixels of the picture, for pose; the whole picture unless given.

    Raises:
        UserError: boxes for segmentation, a box outside the picture, no person, or a target that is not possible here.
    """
    recipe = bundle.recipe
    inputs, sampled = _inputs(picture, boxes, recipe)
    graph = bundle.model()
    with get_backend(REFERENCE.backend).compile(graph, EngineConfig(REFERENCE)) as session:
        right = _decoded(session, inputs, recipe)
        resampled = _decoded(session, sampled, recipe)
        golden = bundle.golden()
        again = decode_outputs(_run(session, np.asarray(golden.inputs)), recipe)
    compared = _Comparer(recipe, right)
    steps = [
        compared.step("pre-processing", "the input sampled by NumPy in double precision", inputs, right, resampled),
        compared.step(
            "fp32 ONNX", "the golden results of the export", golden.inputs, np.asarray(golden.decoded), again, own=False
        ),
    ]
    for target in targets or bundle.targets():
        with bundle.load(target, build="auto") as session:
            made = _decoded(session, inputs, recipe)
        steps.append(compared.step(f"engine {target}", "fp32 ONNX", inputs, right, made))
    if any(entry.io == "end2end" and entry.batch == 1 for entry in bundle.manifest.models) and not recipe.flip_test:
        config = EngineConfig(REFERENCE, io="end2end")
        with get_backend(REFERENCE.backend).compile(bundle.model(io="end2end"), config) as session:
            made = _run(session, inputs)
        steps.append(compared.step("decode in the graph", "decode in the runtime", inputs, right, made))
    return Explanation(recipe, inputs, tuple(steps), compared.found)


def page(explanation: Explanation, title: str) -> str:
    """Returns the explanation as one HTML page with its pictures inside."""
    unit = "px" if isinstance(explanation.recipe, PoseRecipe) else "of pixels"
    rows, figures = [], []
    for step in explanation.steps:
        moved = f"{step.moved:.3f} px" if unit == "px" else f"{step.moved:.3%} {unit}"
        mark = " class=moves" if step.moves else ""
        cells = (step.name, step.against, moved, ", ".join(step.names))
        rows.append(f"<tr{mark}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
        if step.panel is not None:
            figures.append(f"<h2>{html.escape(step.name)}</h2><img alt='' src='{_data_url(step.panel)}'>")
    shown = explanation.inputs[: min(4, len(explanation.inputs))]
    inputs = "".join(f"<img alt='' src='{_data_url(each)}'>" for each in shown)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{html.escape(title)}</title><style>body{{font:15px/1.5 sans-serif;margin:2em;max-width:70em}}"
        "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.3em .7em;text-align:left}"
        ".moves{background:#ffe0dc}img{max-width:100%;margin:.3em}</style>"
        f"<h1>{html.escape(title)}</h1><p><b>{html.escape(explanation.verdict)}.</b></p>"
        "<table><tr><th>step</th><th>held against</th><th>moves</th><th>which</th></tr>"
        f"{''.join(rows)}</table><h2>Input of the net</h2>{inputs}{''.join(figures)}</html>\n"
    )


class _Comparer:
    """Follows the joints that the reference finds; all of them where it finds none.

    The first step must be that of pre-processing: the others are held against what it changes.
    """

    def __init__(self, recipe: Recipe, reference: Array) -> None:
        self._recipe = recipe
        self.found: int | None = None
        # What sampling the picture in another way changes, as a share of pixels.
        self._noise: float | None = None
        if isinstance(recipe, PoseRecipe):
            self.found = int((reference[..., 2] > recipe.keypoint_threshold).sum())

    def step(self, name: str, against: str, inputs: Array, right: Array, made: Array, *, own: bool = True) -> Step:
        recipe = self._recipe
        if isinstance(recipe, PoseRecipe):
            shifts = np.hypot(*np.moveaxis(made[..., :2] - right[..., :2], -1, 0))
            if self.found or not own:
                seen = right[..., 2] > recipe.keypoint_threshold
                shifts = np.where(seen, shifts, 0) if seen.any() else shifts
            moved, worst = float(shifts.max()), int(shifts.max(axis=1).argmax())
            names = tuple(joint for joint, far in zip(recipe.joints, (shifts > LIMIT).any(axis=0), strict=True) if far)
            moves = moved > LIMIT
        else:
            differ = right != made
            moved, worst = float(differ.mean()), int(differ.mean(axis=(1, 2)).argmax())
            touched = np.union1d(right[differ], made[differ]).tolist()
            names = tuple(recipe.classes[index] for index in touched)
            moves = moved > SHARE or (self._noise is not None and moved > self._noise)
            self._noise = moved if self._noise is None else self._noise
        panel = difference_picture(np.asarray(inputs[worst]), right[worst], made[worst], recipe)
        return Step(name, against, moved, names, moves, panel)


def _inputs(picture: Picture, boxes: NDArray[np.float32] | None, recipe: Recipe) -> tuple[Picture, Picture]:
    """Returns the net's inputs (N, H, W, 3) as the runtime makes them, and as NumPy samples them."""
    height, width = picture.shape[:2]
    if isinstance(recipe, PoseRecipe):
        wanted = whole_picture(height, width) if boxes is None else check_boxes(boxes, height, width)
        if len(wanted) == 0:
            raise UserError("there is no box, so there is nothing to explain; leave --boxes out for the whole picture")
        crops, transforms = pose_crops(picture, wanted, recipe)
        return crops, np.stack([_sampled(picture, transform, recipe) for transform in transforms])
    if boxes is not None:
        raise UserError("boxes are for pose; this bundle segments whole pictures")
    inputs = segmentation_inputs(picture, recipe)
    if recipe.fit == "sliding":  # windows are cut, not sampled
        return inputs, inputs
    rows, columns = plan_inputs((height, width), recipe).content
    x, y = columns / width, rows / height
    transform = np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5]])
    sampled = inputs.copy()
    content = _sampled(picture, transform, recipe, size=(rows, columns), repeat=True)
    sampled[0, :rows, :columns] = content
    return inputs, sampled


def _sampled(
    picture: Picture,
    transform: NDArray[np.float64],
    recipe: Recipe,
    *,
    size: tuple[int, int] | None = None,
    repeat: bool = False,
) -> Picture:
    """Returns the picture under a map (2, 3) from picture to input pixels, bilinear, in float64, rounded once."""
    height, width = size or (recipe.height, recipe.width)
    x = (np.arange(width) - transform[0, 2]) / transform[0, 0]
    y = (np.arange(height) - transform[1, 2]) / transform[1, 1]
    border = np.float64(recipe.border)
    mode = {"mode": "edge"} if repeat else {"mode": "constant", "constant_values": border}
    padded = np.pad(picture.astype(np.float64), ((1, 1), (1, 1), (0, 0)), **mode)
    limits = (picture.shape[0], picture.shape[1])
    x, y = np.clip(x, -1, limits[1]) + 1, np.clip(y, -1, limits[0]) + 1
    left, top = np.minimum(x.astype(int), limits[1]), np.minimum(y.astype(int), limits[0])
    across, down = (x - left)[:, np.newaxis], (y - top)[:, np.newaxis, np.newaxis]
    upper, lower = (padded[row][:, left] * (1 - across) + padded[row][:, left + 1] * across for row in (top, top + 1))
    return np.asarray(np.rint(upper * (1 - down) + lower * down), np.uint8)


def _decoded(session: Session, inputs: Picture, recipe: Recipe) -> Array:
    outputs = _run(session, inputs)
    if recipe.flip_test:
        mirrored = _run(session, np.ascontiguousarray(inputs[:, :, ::-1]))
        if isinstance(recipe, PoseRecipe):
            outputs = merge_flipped(outputs, mirrored, recipe)
        else:
            outputs = (outputs + mirrored[..., ::-1]) * np.float32(0.5)
    return decode_outputs(np.ascontiguousarray(outputs), recipe)


def _run(session: Session, inputs: Picture) -> Array:
    (given,), (made,) = session.inputs, session.outputs
    return np.concatenate([session.run({given.name: np.ascontiguousarray(each[None])})[made.name] for each in inputs])


def _data_url(picture: Picture) -> str:
    done, data = cv2.imencode(".png", picture)
    assert done
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode()}"
