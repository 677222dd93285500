"""One emitter per layer class: how a layer of a static net is written as ONNX nodes.

Another family adds its own beside `scalenas.layers.register`: `@register_emitter(MyLayer)` on a function of the same
signature. Classes are looked up exactly: a subclass may compute something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from scalenas import layers
from scalenas_export.fast_graph.operations import add, concat, convolution, relu, resize
from scalenas_export.fast_graph.writer import CannotEmit, GraphWriter, Value

L = TypeVar("L", bound=nn.Module)
# (writer, layer, path of the layer, inputs in the order of its forward) -> output
Emitter = Callable[[GraphWriter, L, str, tuple[Value, ...]], Value]

_EMITTERS: dict[type[nn.Module], Emitter[nn.Module]] = {}


def register_emitter(layer: type[L]) -> Callable[[Emitter[L]], Emitter[L]]:
    """Makes the decorated function the one that writes layers of exactly this class.

    Raises:
        ValueError: another function writes the class already.
    """

    def keep(emitter: Emitter[L]) -> Emitter[L]:
        known = _EMITTERS.setdefault(layer, emitter)  # type: ignore[arg-type]
        if known is not emitter:
            raise ValueError(f"{layer.__name__} is written by {known.__name__} already")
        return emitter

    return keep


def emit(writer: GraphWriter, layer: nn.Module, path: str, *inputs: Value) -> Value:
    """Writes a layer with the emitter of its class and returns its output.

    Raises:
        CannotEmit: the class has no emitter, or its emitter does not know this variant.
    """
    emitter = _EMITTERS.get(type(layer))
    if emitter is None:
        raise CannotEmit(f"no emitter for the layer {type(layer).__name__} at {path}")
    return emitter(writer, layer, path, inputs)


@register_emitter(layers.ConvBN)
def _conv_bn(writer: GraphWriter, layer: layers.ConvBN, path: str, inputs: tuple[Value, ...]) -> Value:
    (x,) = inputs
    x = convolution(writer, f"{path}.conv", layer.conv, x, norm=layer.bn)
    return relu(writer, path, x) if layer.relu else x


@register_emitter(layers.BasicBlock)
def _basic_block(writer: GraphWriter, layer: layers.BasicBlock, path: str, inputs: tuple[Value, ...]) -> Value:
    (x,) = inputs
    y = emit(writer, layer.conv1, f"{path}.conv1", x)
    y = emit(writer, layer.conv2, f"{path}.conv2", y)
    return relu(writer, path, add(writer, path, y, x))


@register_emitter(layers.Bottleneck)
def _bottleneck(writer: GraphWriter, layer: layers.Bottleneck, path: str, inputs: tuple[Value, ...]) -> Value:
    (x,) = inputs
    residual = x if layer.shortcut is None else emit(writer, layer.shortcut, f"{path}.shortcut", x)
    for name in ("conv1", "conv2", "conv3"):
        x = emit(writer, layer.get_submodule(name), f"{path}.{name}", x)
    return relu(writer, path, add(writer, path, x, residual))


@register_emitter(layers.FuseUp)
def _fuse_up(writer: GraphWriter, layer: layers.FuseUp, path: str, inputs: tuple[Value, ...]) -> Value:
    (x,) = inputs
    x = emit(writer, layer.conv1, f"{path}.conv1", x)
    size = (x.shape[1] * layer.scale, x.shape[2] * layer.scale)
    return resize(writer, path, x, size, mode=layer.mode, align_corners=layer.align_corners)


@register_emitter(layers.FuseDown)
def _fuse_down(writer: GraphWriter, layer: layers.FuseDown, path: str, inputs: tuple[Value, ...]) -> Value:
    (x,) = inputs
    for name, step in layer.chain.named_children():
        x = emit(writer, step, f"{path}.chain.{name}", x)
    return x


@register_emitter(layers.AddReLU)
def _add_relu(writer: GraphWriter, layer: layers.AddReLU, path: str, inputs: tuple[Value, ...]) -> Value:
    total, *others = inputs
    for other in others:
        total = add(writer, path, total, other)
    return relu(writer, path, total)


@register_emitter(layers.PoseHead)
def _pose_head(writer: GraphWriter, layer: layers.PoseHead, path: str, inputs: tuple[Value, ...]) -> Value:
    (x,) = inputs
    return convolution(writer, f"{path}.conv", layer.conv, x)


@register_emitter(layers.SegmentationHead)
def _segmentation_head(
    writer: GraphWriter, layer: layers.SegmentationHead, path: str, inputs: tuple[Value, ...]
) -> Value:
    first, *others = inputs
    size = first.shape[1:]
    resized = [resize(writer, path, x, size, mode=layer.mode, align_corners=layer.align_corners) for x in others]
    x = concat(writer, path, [first, *resized])
    x = relu(writer, path, convolution(writer, f"{path}.mix", layer.mix, x, norm=layer.bn))
    return convolution(writer, f"{path}.classify", layer.classify, x)
