"""A third party's ONNX file gets the same bundle, ladder and runtime."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalenas_export.cli.app import run
from scalenas_export.third_party import read_model
from scalenas_runtime.bundle import Bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.tasks import Recipe
from scalenas_runtime.tasks.sets import pose_recipe, segmentation_recipe

SIZE = (64, 32)
POSE = pose_recipe("lspet-14", size=SIZE)
TARGETS = ("--target", "onnxruntime:cpu/fp32", "--target", "openvino:cpu/fp32")


def write_net(
    path: Path, *, layout: str = "float", batch: int | str = 1, channels: int = 14, extra_output: bool = False
) -> Path:
    """Writes a net of one convolution, as another tool might: its own names, opset 13, perhaps a dynamic batch."""
    weight = np.random.default_rng(0).standard_normal((channels, 3, 7, 7)).astype(np.float32)
    weight *= 0.05 if layout == "float" else 0.0005
    nodes = []
    value, kind, shape = "input.1", TensorProto.FLOAT, [batch, 3, *SIZE]
    if layout == "uint8":
        kind, shape = TensorProto.UINT8, [batch, *SIZE, 3]
        nodes = [
            helper.make_node("Cast", ["input.1"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        value = "planes"
    nodes.append(helper.make_node("Conv", [value, "w"], ["raw"], "conv", pads=[3] * 4, strides=[4, 4]))
    nodes.append(helper.make_node("Sigmoid", ["raw"], ["out"], "sigmoid"))
    outputs = ["out", "raw"] if extra_output else ["out"]
    maps = [batch, channels, SIZE[0] // 4, SIZE[1] // 4]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("input.1", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, maps) for name in outputs],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def write_recipe(path: Path, recipe: Recipe = POSE) -> Path:
    path.write_bytes(msgspec.json.encode(recipe))
    return path


@pytest.mark.parametrize(("layout", "batch"), [("float", 1), ("float", "N"), ("uint8", 1)])
def test_bundle_of_a_foreign_net_runs(
    layout: str, batch: int | str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_net(tmp_path / "theirs.onnx", layout=layout, batch=batch)
    recipe = write_recipe(tmp_path / "recipe.json")
    out = tmp_path / "out"
    options = ["--recipe", str(recipe), *TARGETS, "--out", str(out), "--licence", "MIT", "--batch", "2"]
    assert run(["bundle", str(model), *options]) == 0, capsys.readouterr().err
    bundle = Bundle.open(out)
    assert bundle.manifest.provenance.weights.licence == "MIT"
    assert bundle.manifest.name == "theirs"
    parity = bundle.parity()
    assert parity is not None
    assert ("input form" in [rung.name for rung in parity.rungs]) == (layout == "float")
    with PoseEstimator.load(out, "openvino:cpu/fp32") as pose:
        result = pose(np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    assert result.keypoints.shape == (1, 14, 2)


def test_one_of_several_outputs_is_chosen(tmp_path: Path) -> None:
    model = write_net(tmp_path / "theirs.onnx", extra_output=True)
    kept = read_model(model, POSE, output="raw")
    assert [value.name for value in kept.graph.output] == ["raw"]
    assert [node.op_type for node in kept.graph.node] == ["Conv"]
    with pytest.raises(UserError, match=r"several outputs; choose one with --output: out, raw"):
        read_model(model, POSE)
    with pytest.raises(UserError, match=r"no output 'heat': out, raw"):
        read_model(model, POSE, output="heat")


def test_sizes_that_differ_from_the_recipe_are_named(tmp_path: Path) -> None:
    model = write_net(tmp_path / "theirs.onnx")
    with pytest.raises(UserError, match=r"shape \[1, 3, 64, 32\]; the recipe's pictures are .* \(1, 3, 256, 192\)"):
        read_model(model, pose_recipe("lspet-14"))
    with pytest.raises(UserError, match=r"shape \[4, 3, 64, 32\]; batch 1 is needed"):
        read_model(write_net(tmp_path / "four.onnx", batch=4), POSE)


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no ONNX file .*none\.onnx"):
        read_model(tmp_path / "none.onnx", POSE)
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(UserError, match=r"text\.onnx is not a usable ONNX file"):
        read_model(tmp_path / "text.onnx", POSE)


def test_channels_that_differ_from_the_recipe_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_net(tmp_path / "theirs.onnx")
    recipe = write_recipe(tmp_path / "recipe.json", segmentation_recipe("camvid-11", size=SIZE))
    assert run(["bundle", str(model), "--recipe", str(recipe), *TARGETS, "--out", str(tmp_path / "out")]) == 2
    assert "11 classes, stride 4) needs an output float32 (B, 11, 16, 8)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
