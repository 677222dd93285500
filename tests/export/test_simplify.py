"""Simplification is kept only where it changes nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from scalenas_export.graphs import set_initialiser
from scalenas_export.ladder import REFERENCE, Ladder, graph_outputs
from scalenas_export.simplify import TOLERANCE, Judge, onnxsim, simplify
from scalenas_runtime.parity import Comparison, Verdict
from tests.small_exports import SmallExport


@pytest.fixture
def model(small_pose: SmallExport) -> onnx.ModelProto:
    return onnx.load(small_pose.bundle / "model.onnx")


@pytest.fixture
def judge(small_pose: SmallExport, model: onnx.ModelProto) -> Judge:
    pictures = np.load(small_pose.bundle / "golden" / "inputs.npy")[:2]
    ladder = Ladder(small_pose.request.recipe, pictures, lambda line: None, small_pose.bundle.parent)
    before = graph_outputs(model, REFERENCE, pictures)

    def compare(candidate: onnx.ModelProto) -> tuple[Comparison, Verdict]:
        return ladder.compare(before, graph_outputs(candidate, REFERENCE, pictures), tolerance=TOLERANCE)

    return compare


def test_a_simplified_graph_that_agrees_is_kept(model: onnx.ModelProto, judge: Judge) -> None:
    longer = onnx.ModelProto()
    longer.CopyFrom(model)
    last = longer.graph.node[-1]
    (output,) = last.output
    last.output[0] = "before"
    longer.graph.node.append(onnx.helper.make_node("Identity", ["before"], [output], "useless"))
    done = simplify(longer, judge)
    assert not done.warning
    assert "useless" not in [node.name for node in done.model.graph.node]
    assert done.model.ir_version == model.ir_version
    assert not done.model.graph.value_info


def test_a_simplifier_that_changes_the_outputs_is_rolled_back(model: onnx.ModelProto, judge: Judge) -> None:
    def wrong(given: onnx.ModelProto) -> onnx.ModelProto:
        other = onnxsim(given)
        weight = next(item for item in other.graph.initializer if item.name == "stem.conv1.conv.weight")
        set_initialiser(other.graph, weight.name, onnx.numpy_helper.to_array(weight) * np.float32(1.01))
        return other

    done = simplify(model, judge, simplifier=wrong)
    assert done.model is model
    assert "changed the outputs and was rolled back (relative error" in done.warning


def test_a_simplifier_that_fails_is_rolled_back(model: onnx.ModelProto, judge: Judge) -> None:
    def failing(given: onnx.ModelProto) -> onnx.ModelProto:
        raise IndexError("out of its depth")

    done = simplify(model, judge, simplifier=failing)
    assert done.model is model
    assert done.warning == "simplification failed and was rolled back (IndexError: out of its depth)"
