"""Every common output layout gives person boxes in the picture, from tiny ONNX detectors that look at their input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scalenas_runtime.detect import Detector, box_iou, suppress
from scalenas_runtime.errors import UserError

SIZE = 64
STRIDES = (8, 16, 32)
CELLS = sum((SIZE // stride) ** 2 for stride in STRIDES)


def save(
    path: Path,
    nodes: list[Any],
    constants: dict[str, NDArray[Any]],
    outputs: dict[str, list[Any]],
    *,
    shape: tuple[int, ...] = (1, 3, SIZE, SIZE),
    kind: int = TensorProto.FLOAT,
) -> Path:
    kinds = {"labels": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", kind, shape)],
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), dims)
            for name, dims in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def grid(decoded: bool) -> NDArray[np.float32]:
    """x, y, w, h of every cell (1, CELLS, 4): the cell's middle, three strides wide and four high."""
    rows = []
    for stride in STRIDES:
        for y in range(SIZE // stride):
            for x in range(SIZE // stride):
                if decoded:
                    rows.append([(x + 0.5) * stride, (y + 0.5) * stride, 3 * stride, 4 * stride])
                else:
                    rows.append([0.5, 0.5, np.log(3), np.log(4)])
    return np.array([rows], np.float32)


def yolox(path: Path, *, decoded: bool) -> Path:
    """Objectness of a cell is the mean of blue in it; class 0 is sure, class 1 half as sure."""
    nodes = [helper.make_node("Slice", ["images", "zero", "one", "one"], ["blue"])]
    for stride in STRIDES:
        window: dict[str, Any] = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(helper.make_node("AveragePool", ["blue"], [f"pool{stride}"], **window))
        nodes.append(helper.make_node("Reshape", [f"pool{stride}", "column"], [f"flat{stride}"]))
    nodes += [
        helper.make_node("Concat", [f"flat{stride}" for stride in STRIDES], ["level"], axis=1),
        helper.make_node("Div", ["level", "levels"], ["objectness"]),
        helper.make_node("Concat", ["grid", "objectness", "classes"], ["output"], axis=2),
    ]
    constants: dict[str, NDArray[Any]] = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "column": np.array([1, -1, 1]),
        "levels": np.array(255, np.float32),
        "grid": grid(decoded),
        "classes": np.tile(np.array([1, 0.5], np.float32), (1, CELLS, 1)),
    }
    return save(path, nodes, constants, {"output": [1, CELLS, 7]})


BOXES = np.array([[8, 16, 24, 48], [30, 4, 60, 44]], np.float32)


def after_suppression(path: Path, *, form: str, scale: float, shape: tuple[int, ...] = (1, 3, SIZE, SIZE)) -> Path:
    """Two fixed boxes; their scores are the mean of the first channel times `scale` and times half of it."""
    channels_first, whole = shape[1] == 3, TensorProto.UINT8 if form == "uint8" else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "rows" if channels_first else "middle"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "first"], ["mean"], axis=1),
        helper.make_node("Mul", ["mean", "factors"], ["scores"]),
        helper.make_node("Reshape", ["scores", "tall"], ["column"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "rows": np.array([2, 3]),
        "middle": np.array([1, 2]),
        "first": np.array(0),
        "factors": np.array([scale, scale / 2], np.float32),
        "tall": np.array([1, 2, 1]),
        "boxes": BOXES[np.newaxis],
    }
    if form == "dets":
        nodes.append(helper.make_node("Concat", ["boxes", "column"], ["dets"], axis=2))
        nodes.append(helper.make_node("Identity", ["numbers"], ["labels"]))
        constants["numbers"] = np.array([[0, 0]])
        return save(path, nodes, constants, {"dets": [1, 2, 5], "labels": [1, 2]}, shape=shape, kind=whole)
    constants["numbers"] = np.array([[[0], [2]]], np.float32)
    nodes.append(helper.make_node("Concat", ["boxes", "column", "numbers"], ["rows6"], axis=2))
    if form == "varying":
        nodes += [
            helper.make_node("Greater", ["scores", "half"], ["sure"]),
            helper.make_node("Reshape", ["sure", "flat"], ["mask"]),
            helper.make_node("Compress", ["rows6", "mask"], ["output"], axis=1),
        ]
        constants |= {"half": np.array(0.5, np.float32), "flat": np.array([-1])}
        return save(path, nodes, constants, {"output": [1, "found", 6]}, shape=shape)
    nodes.append(helper.make_node("Identity", ["rows6"], ["output"]))
    return save(path, nodes, constants, {"output": [1, 2, 6]}, shape=shape, kind=whole)


def scene(*, height: int = 128, width: int = 96) -> NDArray[np.uint8]:
    """Black with a blue square of 16 x 16 pixels at x 32..48, y 64..80 (a stride-8 cell at half size)."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[64:80, 32:48, 0] = 255
    return picture


@pytest.mark.parametrize("decoded", [False, True], ids=["raw", "decoded"])
def test_yolox_cells_become_boxes_of_the_picture(decoded: bool, tmp_path: Path) -> None:
    with Detector.load(yolox(tmp_path / "yolox.onnx", decoded=decoded), min_score=0.6) as detector:
        assert detector.layout.name == "yolox"
        found = detector(scene())
    # 128 x 96 goes into 64 x 64 at half size: cell (2, 4) of stride 8 gives 24 x 32 around (20, 36), doubled.
    # The grey border beside it scores 0.45.
    np.testing.assert_allclose(found.boxes, [[16, 40, 64, 104]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [1], atol=0.02)
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_overlapping_boxes_are_suppressed_and_sorted(tmp_path: Path) -> None:
    path = yolox(tmp_path / "yolox.onnx", decoded=False)
    picture = scene()
    picture[64:80, 48:64, 0] = 200
    with Detector.load(path, min_score=0.1) as detector:
        kept = detector(picture)
        detector.iou = 1.0
        every = detector(picture)
    assert len(every) > len(kept) >= 2
    assert (np.diff(kept.scores) <= 0).all()
    overlap = box_iou(kept.boxes, kept.boxes) - np.eye(len(kept), dtype=np.float32)
    assert overlap.max() <= 0.65


def mean_of(channel: float, *, mean: float = 0.0, std: float = 1.0) -> float:
    return (channel - mean) / std


@pytest.mark.parametrize(
    ("form", "layout", "scale", "expected", "name"),
    [
        ("dets", None, 0.5, 0.5 * mean_of(200, mean=103.53, std=57.375), "rtmdet"),
        ("dets", "yolox-dets", 1 / 250, 200 / 250, "yolox-dets"),
        ("rows", None, 1.0, 100 / 255, "nms"),
    ],
    ids=["rtmdet", "yolox-dets", "nms"],
)
def test_layouts_after_suppression(
    form: str, layout: str | None, scale: float, expected: float, name: str, tmp_path: Path
) -> None:
    path = after_suppression(tmp_path / "detector.onnx", form=form, scale=scale)
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[:] = (200, 50, 100)
    with Detector.load(path, layout=layout, min_score=0.01) as detector:
        assert detector.layout.name == name
        found = detector(picture)
    persons = 1 if name == "nms" else 2
    np.testing.assert_allclose(found.boxes, BOXES[:persons] * 2, rtol=1e-6)
    np.testing.assert_allclose(found.scores, np.array([expected, expected / 2])[:persons], rtol=1e-4)


def test_a_centred_picture_is_mapped_back_and_boxes_are_cut_to_it(tmp_path: Path) -> None:
    path = after_suppression(tmp_path / "detector.onnx", form="rows", scale=100)
    with Detector.load(path, min_score=0.01) as detector:
        found = detector(np.full((64, 32, 3), 255, np.uint8))
    # The 32 pixels wide picture begins at column 16 of the input.
    np.testing.assert_allclose(found.boxes, [[0, 16, 8, 48]])


@pytest.mark.parametrize("shape", [(1, 3, SIZE, SIZE), (1, SIZE, SIZE, 3)], ids=["NCHW", "NHWC"])
def test_uint8_inputs_get_levels_as_they_are(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = after_suppression(tmp_path / "detector.onnx", form="uint8", scale=1 / 250, shape=shape)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:] = (1, 2, 200)
    with Detector.load(path) as detector:
        np.testing.assert_allclose(detector(picture).scores, [0.8], rtol=1e-5)


def test_outputs_whose_size_depends_on_the_picture(tmp_path: Path) -> None:
    path = after_suppression(tmp_path / "detector.onnx", form="varying", scale=1.5)
    with Detector.load(path, min_score=0.01) as detector:
        assert len(detector(np.zeros((64, 64, 3), np.uint8))) == 0
        assert len(detector(np.full((64, 64, 3), 255, np.uint8))) == 1


def test_one_pixel_and_wide_pictures_go_through(tmp_path: Path) -> None:
    with Detector.load(yolox(tmp_path / "yolox.onnx", decoded=False)) as detector:
        for shape in ((1, 1), (1, 700), (300, 2)):
            found = detector(np.full((*shape, 3), 255, np.uint8))
            assert (found.boxes >= 0).all()
            assert (found.boxes <= [shape[1], shape[0]] * 2).all()


def other_outputs(path: Path) -> Path:
    return save(path, [helper.make_node("Identity", ["images"], ["odd"])], {}, {"odd": [1, 3, SIZE, SIZE]})


def other_input(path: Path) -> Path:
    nodes = [helper.make_node("Identity", ["images"], ["output"])]
    return save(path, nodes, {}, {"output": [1, 6]}, shape=(1, 6))


@pytest.mark.parametrize(
    ("build", "layout", "message"),
    [
        (other_outputs, None, r"no known detector layout has the outputs odd float32 \(1, 3, 64, 64\); known: yolox"),
        (other_outputs, "yolov3", "unknown detector layout 'yolov3'; known: yolox, rtmdet, yolox-dets, nms"),
        (other_input, None, r"takes one float32 or uint8 picture .*, got images float32 \(1, 6\)"),
    ],
    ids=["outputs", "name", "input"],
)
def test_what_is_no_detector_is_refused(
    build: Callable[[Path], Path], layout: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        Detector.load(build(tmp_path / "odd.onnx"), layout=layout)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        Detector.load(tmp_path / "none.onnx")


def test_suppression_agrees_with_plain_loops() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (60, 2))], 1).astype(np.float32)
    scores = rng.choice(np.linspace(0, 1, 20, dtype=np.float32), 60)

    def iou(a: Any, b: Any) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))

    kept: list[int] = []
    for index in sorted(range(60), key=lambda item: (-scores[item], item)):
        if all(iou(boxes[index], boxes[other]) <= 0.4 for other in kept):
            kept.append(index)
    assert suppress(boxes, scores, 0.4).tolist() == kept
    expected = [[iou(a, b) for b in boxes[:7]] for a in boxes[:5]]
    np.testing.assert_allclose(box_iou(boxes[:5], boxes[:7]), expected, atol=1e-5)
    assert suppress(boxes[:0], scores[:0], 0.4).tolist() == []
