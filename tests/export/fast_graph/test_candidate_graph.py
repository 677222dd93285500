"""The fast graph of a candidate: the full export's in all that counts, and honest where it does not know a layer."""

from __future__ import annotations

import ast
import copy
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

import scalenas_export.export_bundle as shipped
from scalenas import layers, resolve_spec
from scalenas.registry import get_space
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet, static_net
from scalenas_export.calibration import calibration_pictures
from scalenas_export.fast_graph import GraphWriter, Value, candidate_graph
from scalenas_export.fast_graph.emitters import emit, register_emitter
from scalenas_export.fast_graph.operations import convolution
from scalenas_export.folding import fold
from scalenas_export.graphs import dtype_name, static_shape, with_batch
from scalenas_export.io_forms import make_raw, output_name
from scalenas_export.ladder import REFERENCE, graph_outputs, torch_outputs
from scalenas_export.onnx_export import to_onnx
from scalenas_export.random_nets import settle
from scalenas_export.recipes import spec_recipe
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.scenes import pictures
from scalenas_runtime.tasks import Recipe
from tests.small_exports import one_thread

SMALL: dict[str, Json] = {"modules": [1, 1, 1], "stage1_blocks": 1, "depths": [1, 2]}
EXAMPLE = Path(__file__).parents[3] / "examples" / "own_space.py"


def _own_space() -> SearchSpace:
    found = importlib.util.spec_from_file_location("own_space", EXAMPLE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    space = module.SPACE
    assert isinstance(space, SearchSpace)
    return space


OWN = _own_space()


def _sampled(group: str, size: tuple[int, int], seed: int = 0, **settings: Json) -> SubnetSpec:
    space = get_space("scalenas")
    chosen: Mapping[str, Json] = {**SMALL, **settings}
    rng = np.random.default_rng(seed)
    return space.sample(rng, settings=chosen, inputs={"image": (3, *size)}, group=group)


CANDIDATES = {
    "pose-w6-little-fusion": _sampled("depth1-2_fuse0.2", (64, 64), width=6),
    "pose-w16-deep": _sampled("depth4-5_fuse0.8", (64, 32), width=16, depths=[2, 3, 4, 5], joints=14),
    "pose-bilinear-corners": _sampled(
        "uniform", (64, 64), width=8, fuse_upsample={"mode": "bilinear", "align_corners": True}
    ),
    "seg-w4-much-fusion": _sampled("depth1-2_fuse0.8", (64, 96), width=4, task="segmentation", classes=11),
    "seg-nearest-head": _sampled(
        "uniform", (64, 64), width=8, task="segmentation", head_upsample={"mode": "nearest", "align_corners": False}
    ),
    "own-family": OWN.max(),
}


def _settled(spec: SubnetSpec) -> tuple[StaticNet, Recipe]:
    recipe = spec_recipe(spec)
    net = static_net(spec, space=OWN if spec.space == OWN.name else None, seed=1).eval()
    calibration = calibration_pictures("synthetic", recipe, count=8)
    assert calibration is not None
    settle(net, recipe, calibration, seed=0)
    return net, recipe


def _full(net: StaticNet, recipe: Recipe) -> ModelProto:
    model = to_onnx(fold(net), (3, recipe.height, recipe.width), output=output_name(recipe))
    make_raw(model, recipe)
    return model


def _weights(model: ModelProto) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def _nodes(model: ModelProto) -> dict[str, tuple[object, ...]]:
    return {
        node.name: (
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            tuple(sorted((item.name, str(onnx.helper.get_attribute_value(item))) for item in node.attribute)),
        )
        for node in model.graph.node
    }


def _expect_equal(fast: ModelProto, full: ModelProto, recipe: Recipe) -> None:
    assert _nodes(fast) == _nodes(full)
    ours, theirs = _weights(fast), _weights(full)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-6, atol=0, err_msg=name)
    for one, other in zip(
        (*fast.graph.input, *fast.graph.output), (*full.graph.input, *full.graph.output), strict=True
    ):
        assert one.name == other.name
        assert (dtype_name(one), static_shape(one)) == (dtype_name(other), static_shape(other))
    seen = pictures(recipe, seed=3, count=2)
    made, expected = (graph_outputs(model, REFERENCE, seen) for model in (fast, full))
    assert np.abs(made - expected).max() <= 1e-5 * np.ptp(expected)
    assert np.ptp(expected) > 0


@pytest.mark.parametrize("name", CANDIDATES)
def test_fast_graph_is_the_full_export(name: str) -> None:
    with one_thread():
        net, recipe = _settled(CANDIDATES[name])
        graph = candidate_graph(net, recipe)
        assert (graph.path, graph.reason) == ("fast", "")
        _expect_equal(graph.model, _full(net, recipe), recipe)
    onnx.checker.check_model(graph.model, full_check=True)


def _published(name: str) -> tuple[StaticNet, Recipe]:
    spec = resolve_spec(name)
    return _settled(get_space(spec.space).adapt(spec, settings={}, size=(64, 64)))


@pytest.mark.slow
def test_fast_graph_of_a_published_net_is_the_full_export() -> None:
    net, recipe = _published("hrnet-w18")
    graph = candidate_graph(net, recipe)
    assert graph.path == "fast"
    _expect_equal(graph.model, _full(net, recipe), recipe)


@pytest.mark.parametrize("name", ["scalenet-p1", "scalenet-s1"])
def test_fast_graph_of_a_large_published_net_computes_what_torch_computes(name: str) -> None:
    # Their full export takes a minute.
    net, recipe = _published(name)
    graph = candidate_graph(net, recipe)
    assert graph.path == "fast"
    seen = pictures(recipe, seed=3, count=1)
    expected = torch_outputs(net, seen, recipe)
    assert np.abs(graph_outputs(graph.model, REFERENCE, seen) - expected).max() <= 1e-4 * np.ptp(expected)


@pytest.fixture(scope="module")
def small() -> tuple[StaticNet, Recipe]:
    with one_thread():
        return _settled(CANDIDATES["own-family"])


def test_the_same_net_gives_the_same_bytes(small: tuple[StaticNet, Recipe]) -> None:
    net, recipe = small
    first, second = (candidate_graph(net, recipe).model.SerializeToString() for _ in range(2))
    assert first == second


def test_the_net_is_left_as_it_was(small: tuple[StaticNet, Recipe]) -> None:
    net, recipe = small
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = candidate_graph(net, recipe)
    # Not even through shared memory.
    for item in graph.model.graph.initializer:
        item.raw_data = b"\0" * len(item.raw_data)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_graph_takes_any_batch_once_its_batch_is_opened(small: tuple[StaticNet, Recipe]) -> None:
    net, recipe = small
    seen = pictures(recipe, seed=3, count=2)
    one = candidate_graph(net, recipe).model
    both = graph_outputs(with_batch(one, 2), replace(REFERENCE, batch=2), seen)
    np.testing.assert_allclose(both, graph_outputs(one, REFERENCE, seen), rtol=1e-4, atol=1e-5)


class Squashed(layers.ConvBN):
    """Computes something else than the class it derives from."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns what lies between -1 and 1."""
        return torch.tanh(super().forward(x))


def _with_squashed(net: StaticNet) -> StaticNet:
    other = copy.deepcopy(net)
    other.get_submodule("stem.conv1").__class__ = Squashed
    return other


def test_a_layer_it_does_not_know_goes_the_slow_way_and_says_so(small: tuple[StaticNet, Recipe]) -> None:
    net, recipe = _with_squashed(small[0]), small[1]
    with one_thread():
        graph = candidate_graph(net, recipe)
        assert graph.path == "full"
        assert graph.reason == "no emitter for the layer Squashed at stem.conv1"
        assert set(graph.seconds) == {"emit", "export", "forms"}
        _expect_equal(graph.model, _full(net, recipe), recipe)
    assert any(node.op_type == "Tanh" for node in graph.model.graph.node)


def test_a_net_with_hooks_goes_the_slow_way(small: tuple[StaticNet, Recipe]) -> None:
    net, recipe = small
    hook = net.get_submodule("stem.conv2").register_forward_hook(lambda module, inputs, output: 2 * output)
    try:
        with one_thread():
            graph = candidate_graph(net, recipe)
    finally:
        hook.remove()
    assert (graph.path, graph.reason) == ("full", "stem.conv2 has hooks, which may change what it computes")


def test_a_registered_emitter_is_used_and_kept(small: tuple[StaticNet, Recipe]) -> None:
    class Doubled(layers.ConvBN):
        pass

    @register_emitter(Doubled)
    def written(writer: GraphWriter, layer: Doubled, path: str, inputs: tuple[Value, ...]) -> Value:
        return convolution(writer, f"{path}.conv", layer.conv, inputs[0], norm=layer.bn)

    layer = small[0].get_submodule("stem.conv1")
    assert isinstance(layer, layers.ConvBN)
    doubled = copy.deepcopy(layer)
    doubled.__class__ = Doubled
    writer = GraphWriter()
    assert emit(writer, doubled, "a", Value("x", (3, 8, 8))) == Value("a.conv/Conv", (8, 4, 4))
    with pytest.raises(ValueError, match=r"Doubled is written by written already"):
        register_emitter(Doubled)(lambda writer, layer, path, inputs: inputs[0])


def test_a_net_in_train_mode_and_another_recipe_are_refused(small: tuple[StaticNet, Recipe]) -> None:
    net, recipe = small
    with pytest.raises(ValueError, match=r"needs a net in eval mode, call net.eval\(\) first"):
        candidate_graph(static_net(net.spec, space=OWN), recipe)
    with pytest.raises(UserError, match=r"the recipe \(14 joints, stride 4\) needs an output float32"):
        candidate_graph(net, spec_recipe(CANDIDATES["pose-w16-deep"]))


def test_shipped_bundles_take_the_full_export() -> None:
    # What is shipped never depends on the fast path: its module imports none of it.
    tree = ast.parse(Path(shipped.__file__).read_text())
    names = {
        name
        for node in ast.walk(tree)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + ([each.name for each in node.names] if isinstance(node, ast.Import) else [])
    }
    assert not any("fast_graph" in name for name in names)
