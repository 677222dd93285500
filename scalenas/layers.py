"""What each operator computes on tensors: one module class per operator record.

Another family adds its own: `@register(MyOperator)` on a module class whose constructor takes the record.
All modules take and give tensors (B, C, H, W).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalenas import operators
from scalenas.operators import Operator, UpsampleMode
from scalenas_runtime.errors import UserError

M = TypeVar("M", bound=type[nn.Module])

CONV_STD = 0.001

_LAYERS: dict[type, type[nn.Module]] = {}


def register(operator: type) -> Callable[[M], M]:
    """Makes the decorated module class the one that computes `operator`; its constructor takes the record.

    Raises:
        ValueError: another class computes the operator already.
    """

    def add(layer: M) -> M:
        known = _LAYERS.setdefault(operator, layer)
        if known is not layer:
            raise ValueError(f"{operator.__name__} is computed by {known.__name__} already")
        return layer

    return add


def build(operator: Operator) -> nn.Module:
    """Returns a new module that computes `operator`, with torch's default initial weights.

    Raises:
        UserError: no module class is registered for the operator's type.
    """
    layer = _LAYERS.get(type(operator))
    if layer is None:
        known = ", ".join(sorted(kind.__name__ for kind in _LAYERS))
        raise UserError(
            f"no layer computes {type(operator).__name__}; register one with scalenas.layers.register in the "
            f"module that the family's `layers` imports (known: {known})"
        )
    return cast(Callable[[Operator], nn.Module], layer)(operator)


@torch.no_grad()
def initialise(net: nn.Module, seed: int) -> None:
    """Sets initial weights in place, as HRNet does: convolutions N(0, 0.001), biases 0, BN scale 1 and shift 0.

    Other modules are set by their own `reset_parameters`.

    Every tensor's numbers come from `seed` and its name alone, so a static net and a supernet of one seed agree. In
    eval such a net gives next to nothing, since its BN statistics fit no data: `scalenas.recalibrate` on pictures
    gives it statistics with which it behaves like a trained net as far as ranges go.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            generator = torch.Generator().manual_seed(_seed(seed, name))
            weight = module.weight
            # Drawn on the CPU, so that the numbers are the same on every device.
            drawn = weight if weight.device.type == "cpu" else torch.empty_like(weight, device="cpu")
            weight.copy_(drawn.normal_(0, CONV_STD, generator=generator))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif hasattr(module, "reset_parameters") and not _is_meta(module):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_seed(seed, name))
                module.reset_parameters()


def _is_meta(module: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in module.parameters(recurse=False))


@register(operators.ConvBN)
class ConvBN(nn.Module):
    """Convolution, BN, and ReLU where the operator has one."""

    def __init__(self, operator: operators.ConvBN) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            operator.in_channels,
            operator.out_channels,
            operator.kernel,
            stride=operator.stride,
            padding=operator.kernel // 2,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(operator.out_channels)
        self.relu = operator.relu

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, out_channels, H / stride, W / stride)."""
        x = self.bn(self.conv(x))
        return functional.relu(x) if self.relu else x


@register(operators.BasicBlock)
class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual."""

    def __init__(self, operator: operators.BasicBlock) -> None:
        super().__init__()
        self.conv1, self.conv2 = (ConvBN(convolution) for convolution in operator.convolutions)

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of the shape of `x`."""
        return functional.relu(self.conv2(self.conv1(x)) + x)


@register(operators.Bottleneck)
class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a residual, projected where the channels differ."""

    def __init__(self, operator: operators.Bottleneck) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (ConvBN(convolution) for convolution in operator.convolutions)
        self.shortcut = None if operator.shortcut is None else ConvBN(operator.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, out_channels, H, W)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        return functional.relu(self.conv3(self.conv2(self.conv1(x))) + residual)


@register(operators.FuseUp)
class FuseUp(nn.Module):
    """1x1 convolution and BN at the source's resolution, then upsampling."""

    def __init__(self, operator: operators.FuseUp) -> None:
        super().__init__()
        self.conv1 = ConvBN(operator.convolution)
        self.scale = operator.scale
        self.mode = operator.mode
        self.align_corners = operator.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, out_channels, H x scale, W x scale)."""
        x = self.conv1(x)
        size = (x.shape[-2] * self.scale, x.shape[-1] * self.scale)
        return _resize(x, size, self.mode, self.align_corners)


@register(operators.FuseDown)
class FuseDown(nn.Module):
    """A chain of 3x3 convolutions of stride 2."""

    def __init__(self, operator: operators.FuseDown) -> None:
        super().__init__()
        self.chain = nn.Sequential(*(ConvBN(convolution) for convolution in operator.convolutions))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, out_channels, H / 2^steps, W / 2^steps)."""
        return cast(Tensor, self.chain(x))


@register(operators.AddReLU)
class AddReLU(nn.Module):
    """The sum of all inputs, then ReLU."""

    def __init__(self, operator: operators.AddReLU) -> None:
        super().__init__()

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        """Returns a tensor of the inputs' shape; the order of the additions is that of the arguments."""
        for other in others:
            first = first + other
        return functional.relu(first)


@register(operators.PoseHead)
class PoseHead(nn.Module):
    """1x1 convolution to heatmaps."""

    def __init__(self, operator: operators.PoseHead) -> None:
        super().__init__()
        self.conv = nn.Conv2d(operator.in_channels, operator.joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns heatmaps (B, joints, H, W)."""
        return cast(Tensor, self.conv(x))


@register(operators.SegmentationHead)
class SegmentationHead(nn.Module):
    """All branches at the resolution of the first, then two 1x1 convolutions to logits."""

    def __init__(self, operator: operators.SegmentationHead) -> None:
        super().__init__()
        total = sum(operator.channels)
        self.mix = nn.Conv2d(total, total, 1)
        self.bn = nn.BatchNorm2d(total)
        self.classify = nn.Conv2d(total, operator.classes, 1)
        self.mode = operator.mode
        self.align_corners = operator.align_corners

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        """Returns logits (B, classes, H, W) at the size of `first`."""
        size = (first.shape[-2], first.shape[-1])
        resized = [_resize(x, size, self.mode, self.align_corners) for x in others]
        x = functional.relu(self.bn(self.mix(torch.cat([first, *resized], dim=1))))
        return cast(Tensor, self.classify(x))


def _resize(x: Tensor, size: tuple[int, int], mode: UpsampleMode, align_corners: bool) -> Tensor:
    # torch refuses any align_corners beside mode nearest.
    corners = align_corners if mode == "bilinear" else None
    return functional.interpolate(x, size=size, mode=mode, align_corners=corners)


def _seed(seed: int, name: str) -> int:
    value = hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8]
    return int.from_bytes(value, "little") >> 1
