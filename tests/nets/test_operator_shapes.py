"""Shapes, parameters and MACs of every operator against arithmetic written down from the definitions."""

import math

import pytest

from scalenas.operators import (
    AddReLU,
    BasicBlock,
    Bottleneck,
    ConvBN,
    FuseDown,
    FuseUp,
    Operator,
    PoseHead,
    SegmentationHead,
    Shape,
)


def sliding_windows(length: int, kernel: int, stride: int) -> int:
    """Counts the places of a kernel on a padded line by walking along it."""
    padded = length + 2 * (kernel // 2)
    return sum(1 for start in range(0, padded, stride) if start + kernel <= padded)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_sizes_equal_counted_windows(kernel: int, stride: int) -> None:
    for length in range(1, 40):
        shape = ConvBN(4, 6, kernel=kernel, stride=stride).output_shape((4, length, length + 1))
        assert shape == (6, sliding_windows(length, kernel, stride), sliding_windows(length + 1, kernel, stride))
        assert shape[1] == math.ceil(length / stride)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_fusions_reach_each_other_s_size_on_multiples_of_32(steps: int) -> None:
    for height in (64, 96, 256):
        high = (8, height, 128)
        low = FuseDown(8, 8 << steps, steps).output_shape(high)
        assert low == (8 << steps, height >> steps, 128 >> steps)
        assert FuseUp(8 << steps, 8, 1 << steps).output_shape(low) == high


# (operator, input shapes, output shape, [(kind, params, macs), ...]) with every figure multiplied out by hand.
TABLE: list[tuple[Operator, list[Shape], Shape, list[tuple[str, int, int]]]] = [
    (
        ConvBN(3, 64, stride=2),
        [(3, 8, 6)],
        (64, 4, 3),
        [("conv", 3 * 64 * 9, 3 * 64 * 9 * 12), ("bn", 128, 64 * 12)],
    ),
    (
        BasicBlock(8),
        [(8, 4, 4)],
        (8, 4, 4),
        2 * [("conv", 8 * 8 * 9, 8 * 8 * 9 * 16), ("bn", 16, 8 * 16)],
    ),
    (
        Bottleneck(64, 16, 256),
        [(64, 2, 2)],
        (256, 2, 2),
        [
            ("conv", 64 * 16, 64 * 16 * 4),
            ("bn", 32, 64),
            ("conv", 16 * 16 * 9, 16 * 16 * 9 * 4),
            ("bn", 32, 64),
            ("conv", 16 * 256, 16 * 256 * 4),
            ("bn", 512, 1024),
            ("conv", 64 * 256, 64 * 256 * 4),
            ("bn", 512, 1024),
        ],
    ),
    (
        Bottleneck(256, 16, 256),
        [(256, 1, 1)],
        (256, 1, 1),
        [
            ("conv", 4096, 4096),
            ("bn", 32, 16),
            ("conv", 2304, 2304),
            ("bn", 32, 16),
            ("conv", 4096, 4096),
            ("bn", 512, 256),
        ],
    ),
    # The 1x1 convolution runs before the upsampling, at the low resolution.
    (FuseUp(32, 8, 4), [(32, 2, 3)], (8, 8, 12), [("conv", 256, 256 * 6), ("bn", 16, 48)]),
    (
        FuseDown(8, 32, 2),
        [(8, 8, 8)],
        (32, 2, 2),
        [("conv", 8 * 8 * 9, 8 * 8 * 9 * 16), ("bn", 16, 128), ("conv", 8 * 32 * 9, 8 * 32 * 9 * 4), ("bn", 64, 128)],
    ),
    (AddReLU(), [(8, 4, 4)] * 3, (8, 4, 4), []),
    (PoseHead(32, 17), [(32, 4, 3)], (17, 4, 3), [("conv", 32 * 17 + 17, 32 * 17 * 12)]),
    (
        SegmentationHead((2, 4), 19),
        [(2, 4, 4), (4, 2, 2)],
        (19, 4, 4),
        [("conv", 36 + 6, 36 * 16), ("bn", 12, 6 * 16), ("conv", 6 * 19 + 19, 6 * 19 * 16)],
    ),
]


@pytest.mark.parametrize(("operator", "inputs", "output", "parts"), TABLE, ids=lambda value: type(value).__name__)
def test_figures_equal_those_by_hand(
    operator: Operator, inputs: list[Shape], output: Shape, parts: list[tuple[str, int, int]]
) -> None:
    assert operator.output_shape(*inputs) == output
    assert [(part.kind, part.params, part.macs) for part in operator.parts(*inputs)] == parts


@pytest.mark.parametrize("operator", [row[0] for row in TABLE if not isinstance(row[0], AddReLU)], ids=repr)
def test_inputs_that_do_not_fit_are_refused(operator: Operator) -> None:
    with pytest.raises(ValueError, match=r"takes inputs of \[.*\] channels, got shapes \[\(5, 8, 8\)\]"):
        operator.output_shape((5, 8, 8))
    with pytest.raises(ValueError, match=r"got shapes \[\]"):
        operator.parts()


def test_sums_need_one_shape() -> None:
    with pytest.raises(ValueError, match=r"AddReLU needs inputs of one shape, got \[\(8, 4, 4\), \(8, 2, 2\)\]"):
        AddReLU().output_shape((8, 4, 4), (8, 2, 2))
    with pytest.raises(ValueError, match=r"AddReLU needs inputs of one shape, got \[\]"):
        AddReLU().output_shape()
