"""Tiny real nets, and bundles of them: one 4x4 convolution with stride 4 on the picture itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalenas_runtime.backends import get_backend
from scalenas_runtime.bundle import BundleContents, ModelFile, Provenance, WeightsEntry
from scalenas_runtime.golden import Golden, decode_outputs
from scalenas_runtime.session import TensorSpec
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import PoseRecipe, Recipe, SegmentationRecipe

POSE = PoseRecipe(height=64, width=32, joints=tuple(f"joint{index}" for index in range(7)))
CLASSES = ("road", "sky", "tree")
SEGMENTATION = SegmentationRecipe(
    height=32, width=64, classes=CLASSES, palette=((128, 64, 128), (70, 130, 180), (107, 142, 35))
)
OUTPUTS = {"pose": "heatmaps", "segmentation": "logits"}
RECIPES: dict[str, Recipe] = {"pose": POSE, "segmentation": SEGMENTATION}

SaveModel = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "scalenas-export"


def net(channels: int, height: int, width: int, output: str, *, batch: int = 1, noise: float = 0.0) -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(channels, 3, 4, 4)) / 255
    weights -= weights.mean(axis=(1, 2, 3), keepdims=True)  # so that every joint has a clear peak somewhere
    weights += noise * np.random.default_rng(6).normal(size=weights.shape)
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], [output], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, channels, height // 4, width // 4])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="tests")


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """Writes the tiny net of a task: (task, batch=, noise=) -> its path."""

    def save(task: str, *, batch: int = 1, noise: float = 0.0) -> Path:
        recipe = RECIPES[task]
        channels = len(recipe.joints) if isinstance(recipe, PoseRecipe) else len(recipe.classes)
        path = tmp_path / f"{task}-{batch}-{noise}.onnx"
        onnx.save(net(channels, recipe.height, recipe.width, OUTPUTS[task], batch=batch, noise=noise), path)
        return path

    return save


def make_contents(task: str, save: SaveModel, *, count: int = 16) -> BundleContents:
    recipe = RECIPES[task]
    path = save(task)
    config = EngineConfig(Target.parse("onnxruntime:cpu/fp32"))
    inputs = np.random.default_rng(7).integers(0, 256, (count, recipe.height, recipe.width, 3), dtype=np.uint8)
    with get_backend("onnxruntime").compile(path, config) as session:
        runs = [session.run({"image": inputs[index : index + 1]})[OUTPUTS[task]] for index in range(count)]
        specs = (session.inputs, session.outputs)
    outputs = np.concatenate(runs)
    return BundleContents(
        name=f"tiny-{task}",
        recipe=recipe,
        models=(ModelFile(path, *specs),),
        golden=Golden(inputs, outputs, decode_outputs(outputs, recipe)),
        provenance=Provenance(
            tool="scalenas-export 0.1.0", weights=WeightsEntry(source="random", licence="CC0-1.0", digest="0" * 64)
        ),
        golden_source="noise",
    )


@pytest.fixture
def contents(save_model: SaveModel) -> BundleContents:
    """A pose bundle's contents: 16 pictures of noise, one graph."""
    return make_contents("pose", save_model)


@pytest.fixture
def segmentation_contents(save_model: SaveModel) -> BundleContents:
    """A segmentation bundle's contents: 4 pictures of noise, one graph."""
    return make_contents("segmentation", save_model, count=4)


@pytest.fixture
def batched_contents(contents: BundleContents, save_model: SaveModel) -> BundleContents:
    """The pose bundle's contents with a second graph of batch 3."""
    first = contents.models[0]
    specs = [
        tuple(TensorSpec(spec.name, spec.dtype, (3, *spec.shape[1:])) for spec in part)
        for part in (first.inputs, first.outputs)
    ]
    second = ModelFile(save_model("pose", batch=3), specs[0], specs[1], batch=3)
    return replace(contents, models=(first, second))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB, so small that no bundle of these tests fits."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
