"""The operations that layers are made of, as the full export writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from scalenas_export.fast_graph.writer import Attributes, CannotEmit, GraphWriter, Shape, Value, factors_name
from scalenas_export.folding import folded_scale, folded_shift

Array = NDArray[np.float32]


def convolution(writer: GraphWriter, path: str, conv: nn.Module, x: Value, *, norm: nn.Module | None = None) -> Value:
    """Adds a convolution, with the BN that follows it inside its weights, and returns its output.

    Args:
        writer: Takes the node.
        path: Path of the convolution.
        conv: An `nn.Conv2d`.
        x: The input.
        norm: The BN that alone reads the convolution, or an identity where it is folded already.

    Raises:
        CannotEmit: another class of convolution or BN, or a variant of it that is not known here.
    """
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise CannotEmit(f"{path} is {conv}")
    weight, bias = _weights(path, conv, norm)
    kernel, stride, padding, dilation = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    inputs = [x.name, writer.constant(f"{path}.weight", weight)]
    # The exporter leaves a bias of zeros out, and so may engines run another kernel.
    if bias is not None and bias.any():
        inputs.append(writer.constant(f"{path}.bias", bias))
    height, width = (
        (length + 2 * pad - step * (size - 1) - 1) // move + 1
        for length, size, move, pad, step in zip(x.shape[1:], kernel, stride, padding, dilation, strict=True)
    )
    attributes: Attributes = {
        "group": conv.groups,
        "pads": (*padding, *padding),
        "auto_pad": "NOTSET",
        "strides": tuple(stride),
        "dilations": tuple(dilation),
        "kernel_shape": tuple(kernel),
    }
    return writer.node("Conv", path, inputs, (conv.out_channels, height, width), attributes=attributes)


def relu(writer: GraphWriter, path: str, x: Value) -> Value:
    """Adds a ReLU and returns its output."""
    return writer.node("Relu", path, [x.name], x.shape)


def add(writer: GraphWriter, path: str, first: Value, second: Value) -> Value:
    """Adds a sum of two tensors of one shape and returns its output."""
    if first.shape != second.shape:
        raise CannotEmit(f"{path} adds the shapes {first.shape} and {second.shape}")
    return writer.node("Add", path, [first.name, second.name], first.shape)


def concat(writer: GraphWriter, path: str, values: Sequence[Value]) -> Value:
    """Adds a concatenation along the channels and returns its output."""
    channels = sum(value.shape[0] for value in values)
    shape = (channels, *values[0].shape[1:])
    return writer.node("Concat", path, [value.name for value in values], shape, attributes={"axis": 1})


def resize(
    writer: GraphWriter, path: str, x: Value, size: tuple[int, int], *, mode: str, align_corners: bool = False
) -> Value:
    """Adds a resize by factors and returns its output.

    Args:
        writer: Takes the node.
        path: Path of the module.
        x: The input.
        size: Height and width of the output.
        mode: `nearest` or `bilinear`, as torch's `interpolate` has them.
        align_corners: Of `bilinear` alone.

    Raises:
        CannotEmit: another mode.
    """
    if mode not in ("nearest", "bilinear"):
        raise CannotEmit(f"{path} resizes by mode {mode}")
    factors = np.array([1, 1, size[0] / x.shape[1], size[1] / x.shape[2]], np.float32)
    corners = "align_corners" if align_corners else "half_pixel"
    attributes: Attributes = {
        "keep_aspect_ratio_policy": "stretch",
        "antialias": 0,
        "extrapolation_value": 0.0,
        "exclude_outside": 0,
        "nearest_mode": "floor",
        "coordinate_transformation_mode": "asymmetric" if mode == "nearest" else corners,
        "cubic_coeff_a": -0.75,
        "mode": "nearest" if mode == "nearest" else "linear",
    }
    inputs = [x.name, "", writer.constant(factors_name(factors), factors)]
    shape: Shape = (x.shape[0], *size)
    return writer.node("Resize", path, inputs, shape, attributes=attributes)


def _weights(path: str, conv: nn.Conv2d, norm: nn.Module | None) -> tuple[Array, Array | None]:
    weight, bias = _array(conv.weight), None if conv.bias is None else _array(conv.bias)
    if norm is None or type(norm) is nn.Identity:
        return weight, bias
    if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or norm.training:
        raise CannotEmit(f"{path} is followed by {norm}{' in train mode' if norm.training else ''}")
    scale = folded_scale(norm)
    folded = np.empty_like(weight)
    # Computed in float64 and rounded once, block by block: no array of twice the size comes into being.
    np.multiply(weight, scale.numpy()[:, None, None, None], out=folded, dtype=np.float64, casting="same_kind")
    return folded, folded_shift(conv, norm, scale).float().numpy()


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().float().contiguous().numpy()
