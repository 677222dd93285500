"""Tiny ONNX models, one per behaviour, with their outputs computed by NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE, PATCH, CHANNELS = (16, 12), 4, 5


@dataclass(frozen=True)
class TinyModels:
    """uint8 pictures (B, 16, 12, 3) -> `heatmaps` (B, 5, 4, 3): a 4x4 convolution of stride 4, then ReLU."""

    folder: Path
    weights: NDArray[np.float32]

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.onnx"

    def pictures(self, batch: int = 1, *, seed: int = 0) -> NDArray[np.uint8]:
        return np.random.default_rng(seed).integers(0, 256, (batch, *SIZE, 3), dtype=np.uint8)

    def expected(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        batch, rows, columns = len(pictures), SIZE[0] // PATCH, SIZE[1] // PATCH
        patches = pictures.reshape(batch, rows, PATCH, columns, PATCH, 3).astype(np.float64) / 255
        raw: NDArray[np.float64] = np.einsum("brpcqi,oipq->borc", patches, self.weights.astype(np.float64))
        return np.maximum(raw, 0)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    folder = tmp_path_factory.mktemp("tiny")
    weights = np.random.default_rng(7).standard_normal((CHANNELS, 3, PATCH, PATCH)).astype(np.float32)
    for name, batch in (("one", 1), ("four", 4), ("open", "batch")):
        onnx.save(_picture_model(weights, batch), folder / f"{name}.onnx")
    tall = _picture_model(weights, 1)
    tall.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    onnx.save(tall, folder / "open-height.onnx")
    (folder / "broken.onnx").write_bytes((folder / "one.onnx").read_bytes()[:200])
    (folder / "text.onnx").write_text("this is no model")
    return TinyModels(folder, weights)


def _picture_model(weights: NDArray[np.float32], batch: int | str) -> Any:
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weights"], ["raw"], strides=[PATCH, PATCH], name="stem.conv"),
        helper.make_node("Relu", ["raw"], ["heatmaps"]),
    ]
    output = [batch, CHANNELS, SIZE[0] // PATCH, SIZE[1] // PATCH]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, *SIZE, 3])],
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"model_info model_type": "keypoint_detection"})
    onnx.checker.check_model(model)
    return model
