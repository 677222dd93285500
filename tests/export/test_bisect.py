"""Finding the first diverging node, on engines that really compute something else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scalenas.static import StaticNet, static_net
from scalenas_export.bisect import Values, engine_probe, first_divergence, relative_error, save_piece
from scalenas_export.folding import fold
from scalenas_export.graphs import set_initialiser
from scalenas_export.io_forms import raw_form
from scalenas_export.ladder import REFERENCE, Ladder, graph_outputs
from scalenas_export.onnx_export import to_onnx
from scalenas_runtime.backends import get_backend
from scalenas_runtime.errors import CheckFailed
from scalenas_runtime.parity import tolerance_of
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks.sets import pose_recipe
from tests.nets.lively import enliven
from tests.small_exports import SmallExport

OPENVINO = EngineConfig(Target("openvino", "cpu", "fp32"))
ENGINES = {"onnxruntime": REFERENCE, "openvino": OPENVINO}
NUDGED = "stage3.0.branch1.block0.conv2.conv"
RESIZED = "stage4.0.step0.branch0_from_branch2/Resize"


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    return other


def lively(export: SmallExport) -> StaticNet:
    net = static_net(export.request.spec).eval()
    enliven(net, seed=1)
    return net


def nudge_a_weight(model: onnx.ModelProto) -> onnx.ModelProto:
    other = _copy(model)
    (weight,) = (item for item in model.graph.initializer if item.name == f"{NUDGED}.weight")
    set_initialiser(other.graph, weight.name, numpy_helper.to_array(weight) * np.float32(1.5))
    return other


def change_a_resize(model: onnx.ModelProto) -> onnx.ModelProto:
    other = _copy(model)
    (node,) = (node for node in other.graph.node if node.name == RESIZED)
    for attribute in node.attribute:
        if attribute.name == "mode":
            attribute.s = b"linear"
    return other


CASES = {"weight": (nudge_a_weight, f"{NUDGED}/Conv", "Conv"), "resize": (change_a_resize, RESIZED, "Resize")}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_the_changed_node_is_named_and_its_piece_fails_alone(
    small_pose: SmallExport, tmp_path: Path, case: str, engine: str
) -> None:
    change, node, operator = CASES[case]
    model = onnx.load(small_pose.bundle / "model.onnx")
    pictures = np.load(small_pose.bundle / "golden" / "inputs.npy")
    ladder = Ladder(small_pose.request.recipe, pictures[:4], lambda line: None, tmp_path)
    broken, config = change(model), ENGINES[engine]
    right, made = (graph_outputs(each, REFERENCE, ladder.pictures) for each in (model, broken))
    assert relative_error(right, made) > 1e-4
    culprit = ladder.where_engines_part(model, broken, config, rung="engine under test", tolerance=1e-4)
    with pytest.raises(CheckFailed, match=r"first diverging node is " + node.replace(".", r"\.")):
        ladder.climb("engine", ("one", "other"), (right, made), tolerance=tolerance_of("fp32"), culprit=culprit)
    folder = tmp_path / "engine-under-test"
    record = json.loads((folder / "divergence.json").read_text())
    assert (record["operator"], record["piece"]) == (operator, [node])
    _check_piece(folder, config)


def _check_piece(folder: Path, config: EngineConfig) -> None:
    inputs, expected = (dict(np.load(folder / name)) for name in ("inputs.npz", "expected.npz"))
    with get_backend(config.target.backend).compile(folder / "piece.onnx", config) as session:
        made = session.run({spec.name: inputs[spec.name] for spec in session.inputs})
    (name,) = expected
    assert relative_error(expected[name], made[name]) > 1e-4


def test_engines_that_agree_have_no_divergence(small_pose: SmallExport) -> None:
    model = onnx.load(small_pose.bundle / "model.onnx")
    feeds = {"image": np.load(small_pose.bundle / "golden" / "inputs.npy")[:1]}
    probes = (engine_probe(model, REFERENCE, feeds), engine_probe(model, OPENVINO, feeds))
    assert first_divergence(Values(model), *probes, output="heatmaps", tolerance=1e-4) is None


def test_errors_that_only_add_up_give_a_piece_of_several_nodes(tmp_path: Path) -> None:
    """Each of eight steps is wrong by 1 %, the tolerance is 3 %: no step fails alone, four in a row do."""
    model, drifting = (_chain([factor] * 8) for factor in (2.0, 2.02))
    feeds = {"x": np.linspace(1, 2, 12, dtype=np.float32).reshape(1, 12)}
    right = engine_probe(model, REFERENCE, feeds)

    def reference(names: object) -> dict[str, NDArray[np.float32]]:
        wanted = list(names)  # type: ignore[call-overload]
        inner = [name for name in wanted if name not in feeds]
        return {**(right(inner) if inner else {}), **{name: feeds[name] for name in wanted if name in feeds}}

    values = Values(drifting)
    candidate = engine_probe(drifting, REFERENCE, feeds)
    found = first_divergence(values, reference, candidate, output="v8", tolerance=0.03)
    assert found is not None
    assert found.relative > 0.03 >= max(found.inputs.values())
    saved = save_piece(tmp_path / "piece", values, found, reference=reference, config=REFERENCE, tolerance=0.03)
    assert len(saved.piece) > 1
    assert saved.piece[-1] == found.node


def test_evidence_of_an_earlier_failure_is_kept(tmp_path: Path) -> None:
    model, broken = _chain([2.0]), _chain([3.0])
    pictures = np.linspace(1, 2, 24, dtype=np.float32).reshape(2, 12)
    ladder = Ladder(pose_recipe("lspet-14"), pictures, lambda line: None, tmp_path)  # type: ignore[arg-type]
    find = ladder.where_engines_part(model, broken, REFERENCE, rung="engine", tolerance=1e-4)
    folders = [f"is in {tmp_path / name}" for name in ("engine", "engine-2", "engine-3")]
    for folder in folders:
        assert find(0).endswith(folder)


def _chain(factors: list[float]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Mul", [f"v{step}" if step else "x", f"c{step}"], [f"v{step + 1}"], f"mul{step}")
        for step in range(len(factors))
    ]
    tensors = [numpy_helper.from_array(np.array(factor, np.float32), f"c{step}") for step, factor in enumerate(factors)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 12]) for name in ("x", f"v{len(factors)}"))
    graph = helper.make_graph(nodes, "chain", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_where_only_one_side_is_finite_the_error_is_infinite() -> None:
    one, other = np.ones(3, np.float32), np.array([1, np.nan, 1], np.float32)
    assert relative_error(one, other) == np.inf
    assert relative_error(other, other) == 0


def test_a_net_and_its_graph_are_compared_at_convolutions(small_pose: SmallExport, tmp_path: Path) -> None:
    net = fold(lively(small_pose))
    recipe = pose_recipe("lspet-14", size=(96, 64))
    pictures = np.random.default_rng(0).integers(0, 256, (1, 96, 64, 3), dtype=np.uint8)
    raw = raw_form(to_onnx(net, (3, 96, 64), output="heatmaps"), recipe)
    ladder = Ladder(recipe, pictures, lambda line: None, tmp_path)
    where = ladder.where_export_parts(net, nudge_a_weight(raw), rung="onnx", tolerance=1e-4)
    assert f"first diverging node is {NUDGED}/Conv" in where(0)
    assert (tmp_path / "onnx" / "piece.onnx").is_file()


def test_two_nets_are_compared_module_by_module(small_pose: SmallExport, tmp_path: Path) -> None:
    net = lively(small_pose)
    folded = fold(net)
    with torch.no_grad():
        folded.get_submodule(NUDGED).weight.mul_(1.5)  # type: ignore[operator]
    pictures = np.random.default_rng(0).integers(0, 256, (1, 96, 64, 3), dtype=np.uint8)
    ladder = Ladder(small_pose.request.recipe, pictures, lambda line: None, tmp_path)
    where = ladder.where_modules_part(net, folded, 1e-4)
    assert where(0) == f"the first diverging module is {NUDGED.rpartition('.')[0]}.bn"
