"""What goes into a graph and what comes out: exact input forms, and decoding in the graph as in the runtime."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scalenas_export.calibration import normalised_array
from scalenas_export.io_forms import check_end2end, check_forms, end2end_form, raw_form, raw_output_shape
from scalenas_export.ladder import REFERENCE, run_graph
from scalenas_runtime.errors import UserError
from scalenas_runtime.golden import decode_outputs
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import Recipe
from scalenas_runtime.tasks.sets import pose_recipe, segmentation_recipe

SIZE = (64, 32)
POSE = pose_recipe("lspet-14", size=SIZE)
SEGMENTATION = segmentation_recipe("camvid-11", size=SIZE)


def _conv(name: str, value: str, out: str, weight: NDArray[np.float32]) -> tuple[Any, Any]:
    node = helper.make_node("Conv", [value, f"{name}.weight"], [out], name, pads=[1, 1, 1, 1], strides=[4, 4])
    return node, numpy_helper.from_array(weight, f"{name}.weight")


def core(kind: str, channels: int = 14) -> onnx.ModelProto:
    """A net over normalised pictures: one padded convolution, two that share the picture, or one behind a Relu."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((2, channels, 3, 3, 3)).astype(np.float32)
    if kind == "one":
        parts = [_conv("a", "x", "heatmaps", weights[0])]
    elif kind == "two":
        parts = [_conv("a", "x", "p", weights[0]), _conv("b", "x", "q", weights[1])]
        parts.append((helper.make_node("Add", ["p", "q"], ["heatmaps"], "add"), None))
    elif kind == "shared":
        parts = [_conv("a", "x", "p", weights[0]), (helper.make_node("Relu", ["x"], ["r"], "relu"), None)]
        parts.append((helper.make_node("Conv", ["r", "a.weight"], ["q"], "b", pads=[1] * 4, strides=[4, 4]), None))
        parts.append((helper.make_node("Add", ["p", "q"], ["heatmaps"], "add"), None))
    else:
        parts = [(helper.make_node("Relu", ["x"], ["r"], "relu"), None), _conv("a", "r", "heatmaps", weights[0])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *SIZE])
    y = helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, [1, channels, SIZE[0] // 4, SIZE[1] // 4])
    nodes, tensors = [part[0] for part in parts], [part[1] for part in parts if part[1] is not None]
    graph = helper.make_graph(nodes, kind, [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def pictures(count: int = 3) -> NDArray[np.uint8]:
    drawn = np.random.default_rng(2).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    drawn[0, :8] = 255  # something at the border, where a folded mean would be wrong
    return drawn


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize(("kind", "folds"), [("one", True), ("two", True), ("shared", False), ("behind relu", False)])
def test_raw_form_equals_normalising_outside(kind: str, folds: bool, color: str) -> None:
    recipe = msgspec.structs.replace(POSE, color=color, mean=(100.0, 110.0, 130.0), std=(50.0, 60.0, 70.0))
    given = pictures()
    expected = run_graph(core(kind), REFERENCE, [normalised_array(each[None], recipe) for each in given])
    raw = raw_form(core(kind), recipe)
    onnx.checker.check_model(raw, full_check=True)
    made = run_graph(raw, REFERENCE, [each[None] for each in given])
    assert np.abs(made - expected).max() <= 3e-6 * np.ptp(expected)
    kinds = [node.op_type for node in raw.graph.node]
    assert ("Div" not in kinds) == folds
    assert "Sub" in kinds


def test_raw_form_leaves_the_given_graph_alone() -> None:
    model = core("one")
    before = model.SerializeToString()
    raw_form(model, POSE)
    assert model.SerializeToString() == before


def passing(recipe: Recipe, outputs: NDArray[np.float32], opset: int = 18) -> onnx.ModelProto:
    """A graph whose output is its input: what the decoding part makes of any heatmaps can be tested."""
    shape = list(outputs.shape[1:])
    name = "heatmaps" if recipe.__struct_config__.tag == "pose" else "logits"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])
    y = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], [name], "same")], "same", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def heatmaps(recipe: Recipe, kind: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    maps = rng.standard_normal((4, 14, SIZE[0] // 4, SIZE[1] // 4)).astype(np.float32)
    if kind == "ties":
        maps = np.round(maps)
    elif kind == "nothing found":
        maps = -np.abs(maps)
        maps[0, 0] = 0
    elif kind == "corners":
        maps[:] = 0
        for joint, (row, column) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1), (1, 1), (2, 2), (-2, -2)]):
            maps[:, joint, row, column] = 1
    return maps


@pytest.mark.parametrize("kind", ["noise", "ties", "nothing found", "corners"])
@pytest.mark.parametrize("decode", ["argmax", "quarter"])
@pytest.mark.parametrize("affine", ["classic", "udp"])
def test_pose_decodes_in_the_graph_as_in_the_runtime(kind: str, decode: str, affine: str) -> None:
    recipe = msgspec.structs.replace(POSE, decode=decode, affine=affine)
    maps = heatmaps(recipe, kind)
    model = end2end_form(passing(recipe, maps), recipe)
    onnx.checker.check_model(model, full_check=True)
    made = run_graph(model, REFERENCE, [each[None] for each in maps])
    np.testing.assert_allclose(made, decode_outputs(maps, recipe), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
@pytest.mark.parametrize("recipe", [POSE, SEGMENTATION], ids=["pose", "segmentation"])
def test_graphs_of_older_opsets_decode_too(recipe: Recipe, opset: int) -> None:
    channels = raw_output_shape(recipe)
    maps = np.random.default_rng(5).standard_normal((3, *channels)).astype(np.float32)
    model = end2end_form(passing(recipe, maps, opset), recipe)
    onnx.checker.check_model(model, full_check=True)
    expected = decode_outputs(maps, recipe)
    for target in ("onnxruntime:cpu/fp32", "openvino:cpu/fp32"):
        made = run_graph(model, EngineConfig(Target.parse(target)), [each[None] for each in maps])
        if recipe is POSE:
            np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-5)
        else:
            assert np.mean(made == expected) > 0.999


def test_a_graph_of_an_opset_that_cannot_decode_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs a graph of opset 11 or newer, this one is of opset 10; use --io raw"):
        end2end_form(passing(POSE, np.zeros((1, *raw_output_shape(POSE)), np.float32), 10), POSE)


@pytest.mark.parametrize("align_corners", [False, True])
def test_segmentation_decodes_in_the_graph_as_in_the_runtime(align_corners: bool) -> None:
    recipe = msgspec.structs.replace(SEGMENTATION, align_corners=align_corners)
    logits = np.random.default_rng(6).standard_normal((3, 11, SIZE[0] // 4, SIZE[1] // 4)).astype(np.float32)
    model = end2end_form(passing(recipe, logits), recipe)
    onnx.checker.check_model(model, full_check=True)
    made = run_graph(model, REFERENCE, [each[None] for each in logits])
    assert made.dtype == np.uint8
    assert (made == decode_outputs(logits, recipe)).mean() >= 0.999


REFUSED: dict[str, tuple[Recipe, str]] = {
    "flip test": (msgspec.structs.replace(POSE, flip_test=True), r"cannot carry flip_test"),
    "dark": (msgspec.structs.replace(POSE, decode="dark"), r"decodes by argmax or quarter, not by dark"),
    "sliding": (msgspec.structs.replace(SEGMENTATION, fit="sliding"), r"cannot carry fit sliding"),
}


@pytest.mark.parametrize(("recipe", "text"), REFUSED.values(), ids=REFUSED)
def test_end2end_refuses_what_it_cannot_carry(recipe: Recipe, text: str) -> None:
    with pytest.raises(UserError, match=text):
        check_end2end(recipe)


def test_shapes_that_do_not_fit_the_recipe_are_refused() -> None:
    raw = raw_form(core("one"), POSE)
    check_forms(raw, POSE)
    with pytest.raises(UserError, match=r"pictures uint8 \(B, 96, 64, 3\), the graph takes uint8 \(1, 64, 32, 3\)"):
        check_forms(raw, pose_recipe("lspet-14", size=(96, 64)))
    with pytest.raises(UserError, match=r"17 joints, stride 4\) needs an output float32 \(B, 17, 16, 8\)"):
        check_forms(raw, pose_recipe("coco-17", size=SIZE))
