"""A third party's ONNX file gets the same bundle, ladder and runtime."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalenas_export.calibration import normalised_array
from scalenas_export.cli.app import run
from scalenas_export.io_forms import end2end_form, raw_form
from scalenas_export.ladder import REFERENCE, run_graph
from scalenas_export.model_files import model_digest
from scalenas_export.third_party import _name_values, read_model
from scalenas_runtime.bundle import Bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256
from scalenas_runtime.golden import decode_outputs
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


def write_clashing(path: Path) -> Path:
    """Writes a net whose inner values have the names of our inputs, outputs and constants, one inside a branch."""
    rng = np.random.default_rng(0)
    maps = [1, 14, SIZE[0] // 4, SIZE[1] // 4]
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["logits", "input.mean"], [f"keypoints{number}"])],
            f"branch {number}",
            [],
            [helper.make_tensor_value_info(f"keypoints{number}", TensorProto.FLOAT, maps)],
        )
        for number in range(2)
    ]
    branches[0].node[0].output[0] = branches[0].output[0].name = "keypoints"
    nodes = [
        helper.make_node("Conv", ["heatmaps", "w"], ["logits"], "conv", pads=[3] * 4, strides=[4, 4]),
        helper.make_node("If", ["yes"], ["decode/flat"], "if", then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Sigmoid", ["decode/flat"], ["image"], "sigmoid"),
    ]
    tensors = [
        numpy_helper.from_array(rng.standard_normal((14, 3, 7, 7)).astype(np.float32) * np.float32(0.05), "w"),
        numpy_helper.from_array(np.array(2, np.float32), "input.mean"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, [1, 3, *SIZE])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, maps)],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_values_may_have_the_names_of_ours(tmp_path: Path) -> None:
    path = write_clashing(tmp_path / "theirs.onnx")
    given = np.random.default_rng(1).standard_normal((1, 3, *SIZE)).astype(np.float32)
    freed = read_model(path, POSE)
    np.testing.assert_array_equal(run_graph(freed, REFERENCE, [given]), run_graph(onnx.load(path), REFERENCE, [given]))
    pictures = np.random.default_rng(2).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    raw = raw_form(freed, POSE)
    _name_values(raw, POSE)
    both = end2end_form(raw, POSE)
    for model in (raw, both):
        onnx.checker.check_model(model, full_check=True)
    assert (raw.graph.input[0].name, raw.graph.output[0].name) == ("image", "heatmaps")
    expected = run_graph(onnx.load(path), REFERENCE, [normalised_array(pictures, POSE)])
    made = run_graph(raw, REFERENCE, [pictures])
    np.testing.assert_allclose(made, expected, atol=1e-5)
    np.testing.assert_allclose(run_graph(both, REFERENCE, [pictures]), decode_outputs(made, POSE), atol=1e-4)


def write_external(folder: Path, *, seed: int) -> Path:
    """Writes a net whose weights lie beside it; the graph is the same for every seed."""
    folder.mkdir()
    model = onnx.load(write_net(folder / "m.onnx"))
    weight = np.random.default_rng(seed).standard_normal((14, 3, 7, 7)).astype(np.float32) * np.float32(0.05)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    return folder / "m.onnx"


def test_weights_beside_the_graph_are_part_of_its_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (write_external(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert one.read_bytes() == other.read_bytes()
    assert model_digest(one) != model_digest(other)
    alone = write_net(tmp_path / "alone.onnx")
    assert model_digest(alone) == file_sha256(alone)
    line = ["--recipe", str(write_recipe(tmp_path / "r.json")), "--target", "onnxruntime:cpu/fp32"]
    assert run(["bundle", str(one), *line, "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.digests["model"] == manifest.provenance.weights.digest == model_digest(one)


@pytest.mark.parametrize("name", ["thesis", "file", "thesis.zip"])
def test_overwrite_replaces_no_files_of_others(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, recipe = write_net(tmp_path / "theirs.onnx"), write_recipe(tmp_path / "recipe.json")
    out = tmp_path / name
    if name == "file":
        out.write_text("precious")
    else:
        out.mkdir()
        (out / "precious.txt").write_text("precious")
    line = ["bundle", str(model), "--recipe", str(recipe), "--target", "onnxruntime:cpu/fp32", "--out", str(out)]
    assert run([*line, "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert f"{out} cannot be replaced by a bundle: " in error
    assert error.count("\n") == 1  # nothing was drawn or run before
    assert (out if name == "file" else out / "precious.txt").read_text() == "precious"


def test_segmentation_of_opset_11_decodes_in_its_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_net(tmp_path / "theirs.onnx", channels=11)
    model = onnx.load(path)
    model.opset_import[0].version = 11
    onnx.save(model, path)
    recipe = write_recipe(tmp_path / "recipe.json", segmentation_recipe("camvid-11", size=SIZE))
    line = ["bundle", str(path), "--recipe", str(recipe), "--target", "onnxruntime:cpu/fp32", "--io", "end2end"]
    assert run([*line, "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err


def test_a_graph_that_is_no_valid_onnx_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(raw: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(raw)
        model.graph.node.append(helper.make_node("Sigmoid", ["nowhere"], ["more"]))
        return model

    monkeypatch.setattr("scalenas_export.packing.end2end_form", broken)
    model, recipe = write_net(tmp_path / "theirs.onnx"), write_recipe(tmp_path / "recipe.json")
    line = ["bundle", str(model), "--recipe", str(recipe), "--target", "onnxruntime:cpu/fp32", "--io", "end2end"]
    assert run([*line, "--out", str(tmp_path / "out")]) == 2
    assert "error: the graph of batch 1 and io end2end is not valid ONNX: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
