"""Single operations of the fast graph against torch, and the variants that it leaves to the full export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from scalenas_export.fast_graph import CannotEmit, GraphWriter, Value
from scalenas_export.fast_graph.operations import convolution, resize
from scalenas_export.ladder import REFERENCE, run_graph

VARIANTS: dict[str, tuple[nn.Module, nn.Module | None, str]] = {
    "padding by reflection": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), None, r"a is Conv2d\(.*reflect"),
    "padding by name": (nn.Conv2d(3, 4, 3, padding="same"), None, r"a is Conv2d\(.*padding=same"),
    "another class": (nn.ConvTranspose2d(3, 4, 3), None, r"a is ConvTranspose2d"),
    "norm in train mode": (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), r"a is followed by BatchNorm2d\(.* in train mode"),
    "norm without statistics": (
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, track_running_stats=False).eval(),
        r"a is followed by BatchNorm2d",
    ),
    "another norm": (nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), r"a is followed by GroupNorm"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_a_convolution_that_are_not_known_are_not_written(variant: str) -> None:
    conv, norm, text = VARIANTS[variant]
    with pytest.raises(CannotEmit, match=text):
        convolution(GraphWriter(), "a", conv, Value("x", (3, 8, 8)), norm=norm)


def test_a_resize_of_another_mode_is_not_written() -> None:
    with pytest.raises(CannotEmit, match=r"a resizes by mode bicubic"):
        resize(GraphWriter(), "a", Value("x", (3, 8, 8)), (16, 16), mode="bicubic")


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.Conv2d(4, 4, 3, groups=4, padding=2),
    ],
    ids=["every option", "no bias", "depthwise"],
)
@pytest.mark.parametrize("affine", [True, False, None], ids=["norm", "plain norm", "no norm"])
def test_convolutions_compute_what_torch_computes(conv: nn.Conv2d, affine: bool | None) -> None:
    norm = None if affine is None else nn.BatchNorm2d(conv.out_channels, affine=affine).eval()
    rng = torch.Generator().manual_seed(2)
    if norm is not None:
        norm.running_mean = torch.randn(conv.out_channels, generator=rng)
        norm.running_var = torch.rand(conv.out_channels, generator=rng) + 0.5
    given = Value("x", (4, 11, 13))
    writer = GraphWriter()
    model = writer.model(given, convolution(writer, "a", conv, given, norm=norm), "y")
    x = torch.randn(1, *given.shape, generator=rng)
    with torch.no_grad():
        expected = conv(x) if norm is None else norm(conv(x))
    made = run_graph(model, REFERENCE, [x.numpy()])
    # The shape that was declared is the one that comes out.
    assert tuple(size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim) == made.shape
    np.testing.assert_allclose(made, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_graph_without_layers_is_not_written() -> None:
    given = Value("x", (3, 4, 4))
    with pytest.raises(CannotEmit, match=r"a net without layers"):
        GraphWriter().model(given, given, "y")
