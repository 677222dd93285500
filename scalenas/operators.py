"""The operators that nets are made of: shapes, parameters and MACs, without torch.

An operator is one node of a `scalenas.graph.Graph`. It knows its output shape and its countable parts; what it computes
on tensors is in `scalenas.layers`, one module class per operator. Shapes are (channels, height, width) of one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Shape = tuple[int, int, int]
UpsampleMode = Literal["nearest", "bilinear"]


@dataclass(frozen=True, slots=True)
class Part:
    """One countable piece of an operator.

    Attributes:
        kind: `conv`, `linear`, `bn` or `attention`; `scalenas.cost.Counting` decides by it what counts.
        params: Learnable parameters, biases included, running statistics not.
        macs: Multiply-adds for one picture. A bias costs none; a `bn` part has one per element of its output.
    """

    kind: str
    params: int
    macs: int


class Operator(Protocol):
    """What graph, cost and the torch layers need of an operator: a frozen, hashable record with two methods."""

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns the shape of the output for the shapes of the inputs, each (channels, height, width).

        Raises:
            ValueError: number of inputs, channels or sizes do not fit the operator.
        """
        ...

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns the countable pieces for the shapes of the inputs, each (channels, height, width)."""
        ...


@dataclass(frozen=True, slots=True)
class ConvBN:
    """A convolution without bias, zero-padded by kernel // 2, batch normalisation, then ReLU if asked for."""

    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    relu: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns (out_channels, height, width), the size divided by the stride and rounded up for odd kernels."""
        ((_, height, width),) = _checked(self, inputs, self.in_channels)
        return self.out_channels, self._length(height), self._length(width)

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns the convolution and its BN."""
        _, height, width = self.output_shape(*inputs)
        weights = self.in_channels * self.out_channels * self.kernel**2
        elements = self.out_channels * height * width
        return (
            Part("conv", weights, weights * height * width),
            Part("bn", 2 * self.out_channels, elements),
        )

    def _length(self, length: int) -> int:
        return (length + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1


@dataclass(frozen=True, slots=True)
class BasicBlock:
    """Two 3x3 `ConvBN`, the second without ReLU, plus the input, then ReLU (He et al., CVPR 2016)."""

    channels: int

    @property
    def convolutions(self) -> tuple[ConvBN, ConvBN]:
        """The two convolutions in order."""
        return ConvBN(self.channels, self.channels), ConvBN(self.channels, self.channels, relu=False)

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns the input's shape."""
        return _checked(self, inputs, self.channels)[0]

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns both convolutions and their BNs."""
        return _chain_parts(self.convolutions, self.output_shape(*inputs))


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """1x1, 3x3 and 1x1 `ConvBN`, the last without ReLU, plus the shortcut, then ReLU.

    The shortcut is the input, or a 1x1 `ConvBN` without ReLU where the channels differ.
    """

    in_channels: int
    mid_channels: int
    out_channels: int

    @property
    def convolutions(self) -> tuple[ConvBN, ConvBN, ConvBN]:
        """The three convolutions of the main path in order."""
        return (
            ConvBN(self.in_channels, self.mid_channels, kernel=1),
            ConvBN(self.mid_channels, self.mid_channels),
            ConvBN(self.mid_channels, self.out_channels, kernel=1, relu=False),
        )

    @property
    def shortcut(self) -> ConvBN | None:
        """The projection of the input, None where the input is added as it is."""
        if self.in_channels == self.out_channels:
            return None
        return ConvBN(self.in_channels, self.out_channels, kernel=1, relu=False)

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns (out_channels, height, width) of the input's size."""
        ((_, height, width),) = _checked(self, inputs, self.in_channels)
        return self.out_channels, height, width

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns the convolutions and BNs of the main path, then those of the projection."""
        (shape,) = _checked(self, inputs, self.in_channels)
        projection = () if self.shortcut is None else self.shortcut.parts(shape)
        return _chain_parts(self.convolutions, shape) + projection


@dataclass(frozen=True, slots=True)
class FuseUp:
    """1x1 convolution without bias, BN, then upsampling by `scale`: a fusion from a lower to a higher resolution.

    The convolution comes before the upsampling: only so do the published MACs come out.
    """

    in_channels: int
    out_channels: int
    scale: int
    mode: UpsampleMode = "nearest"
    align_corners: bool = False

    @property
    def convolution(self) -> ConvBN:
        """The 1x1 convolution with its BN."""
        return ConvBN(self.in_channels, self.out_channels, kernel=1, relu=False)

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns (out_channels, height x scale, width x scale)."""
        ((_, height, width),) = _checked(self, inputs, self.in_channels)
        return self.out_channels, height * self.scale, width * self.scale

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns the convolution and its BN."""
        return self.convolution.parts(*_checked(self, inputs, self.in_channels))


@dataclass(frozen=True, slots=True)
class FuseDown:
    """A chain of 3x3 convolutions of stride 2 with BN: a fusion from a higher to a lower resolution.

    All but the last keep the source's channels and have a ReLU; the last has the destination's and no ReLU.
    """

    in_channels: int
    out_channels: int
    steps: int

    @property
    def convolutions(self) -> tuple[ConvBN, ...]:
        """The convolutions in order."""
        inner = ConvBN(self.in_channels, self.in_channels, stride=2)
        return (inner,) * (self.steps - 1) + (ConvBN(self.in_channels, self.out_channels, stride=2, relu=False),)

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns (out_channels, height, width) with the size halved `steps` times, rounded up each time."""
        (shape,) = _checked(self, inputs, self.in_channels)
        for convolution in self.convolutions:
            shape = convolution.output_shape(shape)
        return shape

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns the convolutions and BNs in order."""
        return _chain_parts(self.convolutions, _checked(self, inputs, self.in_channels)[0])


@dataclass(frozen=True, slots=True)
class AddReLU:
    """The sum of all inputs in the order given, then ReLU."""

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns the shape that all inputs share."""
        if not inputs or len(set(inputs)) != 1:
            raise ValueError(f"AddReLU needs inputs of one shape, got {list(inputs)}")
        return inputs[0]

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns nothing: additions are no multiply-adds."""
        return ()


@dataclass(frozen=True, slots=True)
class PoseHead:
    """A 1x1 convolution with bias to one heatmap per joint."""

    in_channels: int
    joints: int

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns (joints, height, width) of the input's size."""
        ((_, height, width),) = _checked(self, inputs, self.in_channels)
        return self.joints, height, width

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns the convolution."""
        _, height, width = self.output_shape(*inputs)
        return (_biased(self.in_channels, self.joints, height * width),)


@dataclass(frozen=True, slots=True)
class SegmentationHead:
    """All branches upsampled to the first and concatenated, 1x1 convolution, BN, ReLU, 1x1 convolution to logits.

    Both convolutions have a bias; the first keeps the number of channels (HRNetV2).
    """

    channels: tuple[int, ...]
    classes: int
    mode: UpsampleMode = "bilinear"
    align_corners: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        """Returns (classes, height, width) of the first input's size."""
        _, height, width = _checked(self, inputs, *self.channels)[0]
        return self.classes, height, width

    def parts(self, *inputs: Shape) -> tuple[Part, ...]:
        """Returns the two convolutions and the BN between them."""
        _, height, width = self.output_shape(*inputs)
        total, pixels = sum(self.channels), height * width
        return (
            _biased(total, total, pixels),
            Part("bn", 2 * total, total * pixels),
            _biased(total, self.classes, pixels),
        )


def _biased(in_channels: int, out_channels: int, pixels: int) -> Part:
    weights = in_channels * out_channels
    return Part("conv", weights + out_channels, weights * pixels)


def _chain_parts(convolutions: Sequence[ConvBN], shape: Shape) -> tuple[Part, ...]:
    parts: tuple[Part, ...] = ()
    for convolution in convolutions:
        parts += convolution.parts(shape)
        shape = convolution.output_shape(shape)
    return parts


def _checked(operator: object, inputs: tuple[Shape, ...], *channels: int) -> tuple[Shape, ...]:
    if tuple(shape[0] for shape in inputs) != channels:
        raise ValueError(f"{operator} takes inputs of {list(channels)} channels, got shapes {list(inputs)}")
    return inputs
