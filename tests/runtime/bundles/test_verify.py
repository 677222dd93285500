from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scalenas_runtime.bundle import Bundle, BundleContents, ModelFile, write_bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.golden import Golden
from scalenas_runtime.parity import judge, tolerance_of
from scalenas_runtime.session import TensorSpec
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.verify import _compare, engine_outputs, verify, verify_models, worst_picture

ORT = EngineConfig(Target.parse("onnxruntime:cpu/fp32"))
OPENVINO = EngineConfig(Target.parse("openvino:cpu/fp32"))


@pytest.fixture
def bundle(tmp_path: Path, contents: BundleContents) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "net", contents))


def changed(
    contents: BundleContents,
    *,
    outputs: NDArray[np.float32] | None = None,
    decoded: NDArray[Any] | None = None,
) -> BundleContents:
    golden = contents.golden
    outputs = golden.outputs if outputs is None else outputs
    decoded = golden.decoded if decoded is None else decoded
    return replace(contents, golden=Golden(golden.inputs, outputs, decoded))


@pytest.mark.parametrize("config", [ORT, OPENVINO], ids=str)
def test_an_engine_that_agrees_passes(bundle: Bundle, config: EngineConfig) -> None:
    report = verify(bundle, config, build="auto")
    assert report.verdict.passed
    assert report.verdict.informative
    assert report.pictures == 16
    assert report.undecoded is not None
    assert report.undecoded.relative < 1e-5
    assert report.undecoded.joints == report.decoded.joints == 16 * 7
    assert (report.decoded.stage, report.decoded.joint_shift_max) == ("decoded", 0)


def test_segmentation_is_verified_by_pixels(tmp_path: Path, segmentation_contents: BundleContents) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "net", segmentation_contents))
    report = verify(bundle, ORT, build="auto")
    assert report.verdict.passed
    assert report.undecoded is not None
    assert report.undecoded.class_agreement == report.decoded.class_agreement == 1
    assert report.decoded.pixels == 4 * 32 * 64


def test_outputs_that_differ_fail(tmp_path: Path, contents: BundleContents) -> None:
    outputs = contents.golden.outputs.copy()
    outputs[5] += np.ptp(outputs) * 0.001
    bundle = Bundle.open(write_bundle(tmp_path / "net", changed(contents, outputs=outputs)))
    report = verify(bundle, ORT, build="auto")
    assert not report.verdict.passed
    assert report.worst == 5
    assert report.verdict.reasons[0].startswith("outputs: relative error 0.001 exceeds 0.0001")


def test_results_that_differ_fail_although_outputs_agree(tmp_path: Path, contents: BundleContents) -> None:
    decoded = contents.golden.decoded.copy()
    decoded[3:6, :, 0] += 2
    bundle = Bundle.open(write_bundle(tmp_path / "net", changed(contents, decoded=decoded)))
    report = verify(bundle, ORT, build="auto")
    assert not report.verdict.passed
    assert report.verdict.reasons[0].startswith("results: joint shift p99 0.5 heatmap pixels exceeds 0.05")


def test_a_batched_engine_serves_all_pictures(tmp_path: Path, batched_contents: BundleContents) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "net", batched_contents))
    report = verify(bundle, replace(ORT, batch=3), build="auto")
    assert (report.verdict.passed, report.pictures) == (True, 16)
    golden = bundle.golden()
    with bundle.load_config(replace(ORT, batch=3), build="cached") as session:
        part = list(engine_outputs(session, golden.inputs, start=4, stop=9))
    np.testing.assert_allclose(part, golden.outputs[4:9], atol=1e-4)


@pytest.mark.parametrize("broken", [False, True], ids=["right", "wrong beyond the pictures"])
def test_every_slot_of_a_batch_is_compared(
    broken: bool, tmp_path: Path, segmentation_contents: BundleContents, save_model: Callable[..., Path]
) -> None:
    # Four golden pictures in a batch of 8: the last four slots are only ever filled up.
    path = save_model("segmentation", batch=8)
    model = onnx.load(path)
    factors = np.ones((8, 1, 1, 1), np.float32)
    factors[6:] = 0 if broken else 1
    model.graph.initializer.append(numpy_helper.from_array(factors, "factors"))
    model.graph.node[-1].output[0] = "whole"
    model.graph.node.append(helper.make_node("Mul", ["whole", "factors"], ["logits"]))
    onnx.save(model, path)
    first = segmentation_contents.models[0]
    specs = [TensorSpec(spec.name, spec.dtype, (8, *spec.shape[1:])) for spec in (*first.inputs, *first.outputs)]
    second = ModelFile(path, (specs[0],), (specs[1],), batch=8)
    bundle = Bundle.open(write_bundle(tmp_path / "net", replace(segmentation_contents, models=(first, second))))
    report = verify(bundle, replace(ORT, batch=8), build="auto")
    assert report.verdict.passed is not broken
    assert report.pictures == 4
    assert report.worst in ((2, 3) if broken else range(4))


def test_random_keypoints_of_an_unsure_net_fail(tmp_path: Path, contents: BundleContents) -> None:
    golden = contents.golden
    scale = np.float32(0.01 / np.abs(golden.outputs).max())
    outputs = golden.outputs * scale
    decoded = golden.decoded * np.array([1, 1, scale], np.float32)
    unsure = changed(contents, outputs=outputs, decoded=decoded)
    bundle = Bundle.open(write_bundle(tmp_path / "net", unsure))

    class Guessing:
        inputs = (TensorSpec("image", "uint8", (1, 64, 32, 3)),)
        outputs = (TensorSpec("keypoints", "float32", (1, 7, 3)),)
        count = 0

        def run(self, feeds: object) -> dict[str, NDArray[np.float32]]:
            made = decoded[self.count : self.count + 1].copy()
            made[..., :2] = np.random.default_rng(self.count).uniform(0, 32, made[..., :2].shape)
            self.count += 1
            return {"keypoints": made}

    config, tolerance = replace(ORT, io="end2end"), tolerance_of("fp32")
    _, comparison = _compare(Guessing(), bundle.golden(), bundle.recipe, config, tolerance)  # type: ignore[arg-type]
    verdict = judge(comparison, tolerance)
    assert (verdict.passed, verdict.informative) == (False, False)
    assert "below its peak" in verdict.reasons[0]


def test_an_engine_that_decodes_is_compared_decoded(tmp_path: Path, segmentation_contents: BundleContents) -> None:
    # A graph of form end2end: the class is the brighter half of the blue channel.
    nodes = [
        helper.make_node("Slice", ["image", "zero", "one", "axis"], ["blue"]),
        helper.make_node("Squeeze", ["blue", "axis"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["number"], to=TensorProto.INT32),
        helper.make_node("Div", ["number", "half"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["class_map"], to=TensorProto.UINT8),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [3]),
        helper.make_tensor("half", TensorProto.INT32, [], [128]),
    ]
    graph = helper.make_graph(
        nodes,
        "end2end",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 32, 64, 3])],
        [helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, 32, 64])],
        constants,
    )
    path = tmp_path / "end2end.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    golden = segmentation_contents.golden
    decoded = (golden.inputs[..., 0] // 128).astype(np.uint8)
    graph_file = ModelFile(
        path,
        (TensorSpec("image", "uint8", (1, 32, 64, 3)),),
        (TensorSpec("class_map", "uint8", (1, 32, 64)),),
        io="end2end",
    )
    contents = replace(
        segmentation_contents,
        models=(*segmentation_contents.models, graph_file),
        golden=Golden(golden.inputs, golden.outputs, decoded),
    )
    bundle = Bundle.open(write_bundle(tmp_path / "net", contents))
    report = verify(bundle, replace(ORT, io="end2end"), build="auto")
    assert report.undecoded is None
    assert report.verdict.passed
    assert report.decoded.class_agreement == 1
    assert report.worst in range(4)


def test_the_worst_picture_is_a_png_of_both_results(bundle: Bundle) -> None:
    report = verify(bundle, ORT, build="auto")
    data = np.frombuffer(worst_picture(bundle, ORT, report.worst), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (768, 384, 3)


def test_the_worst_street_shows_what_differs_in_red(tmp_path: Path, segmentation_contents: BundleContents) -> None:
    decoded = segmentation_contents.golden.decoded.copy()
    decoded[2, 28:, :16] = (decoded[2, 28:, :16] + 1) % 3
    bundle = Bundle.open(write_bundle(tmp_path / "net", changed(segmentation_contents, decoded=decoded)))
    report = verify(bundle, ORT, build="auto")
    assert report.decoded.worst == 2
    picture = cv2.imdecode(np.frombuffer(worst_picture(bundle, ORT, 2), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (3 * 32, 64, 3)
    red = (picture[64:] == (60, 60, 255)).all(axis=2)
    assert red[28:, :16].all()
    assert not red[28:, 16:].any()


def test_two_models_are_compared_on_the_same_inputs(tmp_path: Path, contents: BundleContents) -> None:
    first = contents.models[0].path
    same = verify_models(first, first, ORT)
    assert same.verdict.passed
    assert same.inputs == "4 of noise, 4 of drawn people"
    assert same.outputs["heatmaps"].max_abs == 0
    model = onnx.load(first)
    weights = np.array(onnx.numpy_helper.to_array(model.graph.initializer[0]))
    weights[2, 1, 3, 0] += 0.01
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
    onnx.save(model, tmp_path / "other.onnx")
    other = verify_models(first, tmp_path / "other.onnx", ORT)
    assert not other.verdict.passed
    assert other.outputs["heatmaps"].max_abs == pytest.approx(0.01 * 255, rel=0.02)


def test_models_of_other_inputs_are_not_compared(
    contents: BundleContents, segmentation_contents: BundleContents
) -> None:
    first, second = contents.models[0].path, segmentation_contents.models[0].path
    with pytest.raises(
        UserError, match=r"inputs differ: .* has image uint8 \(1, 64, 32, 3\), .* has image uint8 \(1, 32, 64, 3\)"
    ):
        verify_models(first, second, ORT)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL], ids=["float", "int", "bool"])
def test_models_of_any_input_are_compared_on_noise(tmp_path: Path, kind: int) -> None:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        "cast",
        [helper.make_tensor_value_info("x", kind, [1, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
    )
    path = tmp_path / "cast.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    report = verify_models(path, path, ORT)
    assert (report.verdict.passed, report.inputs) == (True, "4 of noise")


def test_float_pictures_see_drawn_people_too(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 40, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 1, 1])],
    )
    path = tmp_path / "mean.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    assert verify_models(path, path, ORT).inputs == "4 of noise, 4 of drawn people"


def test_pictures_of_another_size_than_the_engines_are_refused(bundle: Bundle) -> None:
    with (
        bundle.load_config(ORT, build="auto") as session,
        pytest.raises(
            UserError, match=r"takes image uint8 \(1, 64, 32, 3\), the golden pictures are uint8 \(2, 32, 32, 3\)"
        ),
    ):
        list(engine_outputs(session, np.zeros((2, 32, 32, 3), np.uint8)))


def test_a_precision_without_tolerance_cannot_be_verified(bundle: Bundle) -> None:
    config = EngineConfig(Target.parse("onnxruntime:cpu/int8"))
    with pytest.raises(UserError, match="'int8' has no parity tolerance"):
        verify(bundle, config)
    with pytest.raises(UserError, match="'int8' has no parity tolerance"):
        verify_models(bundle.model(), bundle.model(), config)
