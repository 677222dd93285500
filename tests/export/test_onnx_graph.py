"""The exported graph: what engines and people find in it, and that it is the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from scalenas.static import StaticNet, static_net
from scalenas_export.folding import fold
from scalenas_export.graphs import drop_unused, with_batch
from scalenas_export.ladder import REFERENCE, run_graph
from scalenas_export.onnx_export import to_onnx
from scalenas_runtime.errors import UserError
from scalenas_runtime.targets import EngineConfig
from tests.small_exports import small_request

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (3, 64, 96)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> StaticNet:
    request = small_request("segmentation", tmp_path_factory.mktemp("net") / "out", "onnxruntime:cpu/fp32")
    built = static_net(request.spec, seed=3).eval()
    rng = torch.Generator().manual_seed(0)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=rng) * 0.01
            module.running_var = torch.rand(module.num_features, generator=rng) * 1e-4 + 1e-4
    return built


@pytest.fixture(scope="module")
def model(net: StaticNet) -> onnx.ModelProto:
    return to_onnx(fold(net), SHAPE, output="logits")


def _pictures(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float32)


def test_opset_and_ir_version_are_the_lowest_that_the_graph_needs(model: onnx.ModelProto) -> None:
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    assert model.ir_version == 9
    onnx.checker.check_model(model, full_check=True)


def test_no_traces_of_the_exporting_machine_are_left(model: onnx.ModelProto) -> None:
    text = model.SerializeToString()
    assert b".py" not in text
    assert b"site-packages" not in text
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not model.graph.value_info


def test_every_weight_is_inside_under_its_name_in_the_net(model: onnx.ModelProto, net: StaticNet) -> None:
    kept = {item.name for item in model.graph.initializer if not item.name.startswith("resize/")}
    assert kept <= set(dict(fold(net).named_parameters()))
    assert "stage2.0.branch0.block0.conv1.conv.weight" in kept
    assert not any(item.external_data for item in model.graph.initializer)


def test_nodes_and_values_are_named_by_module_and_operator(model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert names[0] == "stem.conv1.conv/Conv"
    assert "stage2.0.step1.branch0_from_branch1/Resize" in names
    assert all(node.output[0] in (node.name, "logits") for node in model.graph.node)


def test_batch_norms_are_gone_and_factors_of_resizes_are_constants(model: onnx.ModelProto) -> None:
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "Relu", "Add", "Resize", "Concat"}
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Resize":
            assert len(node.input) == 3
            assert arrays[node.input[2]][:2].tolist() == [1, 1]


def test_the_same_net_gives_the_same_bytes(model: onnx.ModelProto, net: StaticNet) -> None:
    assert to_onnx(fold(net), SHAPE, output="logits").SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("batch", [1, 3])
def test_graph_computes_what_the_net_computes(model: onnx.ModelProto, net: StaticNet, batch: int) -> None:
    pictures = _pictures(batch)
    with torch.no_grad():
        expected = net(torch.from_numpy(pictures)).numpy()
    config = EngineConfig(REFERENCE.target, batch=batch)
    made = run_graph(with_batch(model, batch), config, [pictures])
    assert np.abs(made - expected).max() <= 1e-4 * np.ptp(expected)


def test_graph_that_computes_with_its_batch_is_refused_another_one() -> None:
    nodes = [onnx.helper.make_node("Reshape", ["x", "shape"], ["y"], "flatten")]
    shape = numpy_helper.from_array(np.array([1, 12], np.int64), "shape")
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
        for name, sizes in (("x", [1, 3, 4]), ("y", [1, 12]))
    )
    fixed = onnx.helper.make_model(onnx.helper.make_graph(nodes, "fixed", [x], [y], [shape]))
    with pytest.raises(UserError, match=r"made for batch 1 and takes no batch of 4"):
        with_batch(fixed, 4)


def test_unused_nodes_and_weights_are_dropped(model: onnx.ModelProto) -> None:
    longer = onnx.ModelProto()
    longer.CopyFrom(model)
    longer.graph.node.append(onnx.helper.make_node("Relu", ["unused.weight"], ["nowhere"], "nowhere"))
    longer.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "unused.weight"))
    drop_unused(longer.graph)
    assert longer.SerializeToString() == model.SerializeToString()


class TwoReaders(nn.Module):
    """A convolution whose output is read before its BN too, and one that runs twice: neither may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, bias=False)
        self.norm, self.first, self.second = (nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.once(x)
        x = x + self.norm(x)
        result: torch.Tensor = self.second(self.twice(self.first(self.twice(x))))
        return result


def test_folding_keeps_outputs_and_paths(net: StaticNet) -> None:
    folded = fold(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert [name for name, _ in folded.named_modules()] == [name for name, _ in net.named_modules()]
    inputs = torch.from_numpy(_pictures(1))
    with torch.no_grad():
        expected, made = net(inputs), folded(inputs)
    assert (made - expected).abs().max() <= 1e-5 * np.ptp(expected.numpy())


def test_norms_that_cannot_be_folded_stay() -> None:
    net = TwoReaders().eval()
    folded = fold(net)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 3
    inputs = torch.from_numpy(_pictures(1))
    with torch.no_grad():
        torch.testing.assert_close(folded(inputs), net(inputs))


def test_a_net_in_train_mode_is_not_folded() -> None:
    with pytest.raises(ValueError, match=r"needs a net in eval mode"):
        fold(TwoReaders())


def test_the_side_file_of_large_weights_is_never_written(model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
