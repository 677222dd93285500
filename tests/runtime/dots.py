"""A tiny pose net that really computes: joint k is the brightest dot of colour channel k."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scalenas_runtime.backends import get_backend
from scalenas_runtime.session import Session
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import PoseRecipe

HEIGHT, WIDTH, KERNEL = 128, 96, 9
JOINTS = ("left_hand", "right_hand", "nose")


def dot_recipe(**fields: Any) -> PoseRecipe:
    settings: dict[str, Any] = {"edges": ((0, 2), (1, 2)), "decode": "dark", "blur": 5, **fields}
    return PoseRecipe(height=HEIGHT, width=WIDTH, joints=JOINTS, **settings)


def dot_model(batch: int = 1) -> Any:
    """uint8 (B, 128, 96, 3) -> heatmaps (B, 3, 32, 24): each channel blurred, then every fourth pixel."""
    offsets = np.arange(KERNEL) - KERNEL // 2
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / 8)
    weights = np.broadcast_to(kernel / kernel.sum(), (3, 1, KERNEL, KERNEL)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["planes", "levels"], ["scaled"]),
        # The first output pixel's window is centred on the first input pixel.
        helper.make_node("Conv", ["scaled", "weights"], ["heatmaps"], strides=[4, 4], pads=[4, 4, 1, 1], group=3),
    ]
    graph = helper.make_graph(
        nodes,
        "dots",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, [batch, 3, HEIGHT // 4, WIDTH // 4])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array(255, np.float32), "levels")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def dot_session(folder: Path, batch: int = 1) -> Session:
    path = folder / f"dots{batch}.onnx"
    onnx.save(dot_model(batch), path)
    target = Target.parse("onnxruntime:cpu/fp32")
    return get_backend("onnxruntime").compile(path, EngineConfig(target, threads=1, batch=batch))


def dot_picture(places: NDArray[Any], *, size: tuple[int, int], sigma: float = 8) -> NDArray[np.uint8]:
    """A black picture of `size` (height, width) with soft dots at `places` (N, 3, 2), each in its joint's channel."""
    y, x = np.mgrid[: size[0], : size[1]]
    picture = np.zeros((*size, 3))
    for person in np.asarray(places, np.float64):
        for joint, (column, row) in enumerate(person):
            picture[:, :, joint] += 255 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * sigma**2))
    return np.clip(picture.round(), 0, 255).astype(np.uint8)
