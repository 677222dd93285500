"""Logits to class maps: sizes, batches, padding, windows, flip test."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.decode.segmentation import (
    WindowLogits,
    class_map,
    covered,
    fitted_size,
    merge_flipped,
    window_offsets,
)

Float = NDArray[np.float32]


def random_logits(*shape: int, seed: int = 0) -> Float:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_batch_is_decoded_one_by_one() -> None:
    logits = random_logits(3, 5, 6, 8)
    labels = class_map(logits, (24, 32))
    assert labels.shape == (3, 24, 32)
    for one, expected in zip(labels, logits, strict=True):
        np.testing.assert_array_equal(one, class_map(expected, (24, 32)))


def test_same_size_is_a_plain_argmax() -> None:
    logits = random_logits(7, 31, 45)
    np.testing.assert_array_equal(class_map(logits, (31, 45)), logits.argmax(0))
    np.testing.assert_array_equal(class_map(logits, (31, 45), align_corners=True), logits.argmax(0))


def test_out_receives_the_labels() -> None:
    logits = random_logits(4, 6, 8)
    whole = np.full((30, 40), 9, np.uint8)
    returned = class_map(logits, (24, 32), out=whole[2:26, 4:36])
    np.testing.assert_array_equal(returned, class_map(logits, (24, 32)))
    np.testing.assert_array_equal(whole[2:26, 4:36], returned)
    assert whole[0, 0] == 9


@pytest.mark.parametrize("align_corners", [False, True], ids=["half pixel", "align corners"])
def test_the_part_of_an_extent_equals_a_crop_of_the_whole(align_corners: bool) -> None:
    # 40 x 52 of 64 x 96 input pixels show the picture; decoding that part at the input's scale is a crop, but for
    # the last logit pixel, where the whole reads padding.
    logits = random_logits(4, 16, 24)
    whole = class_map(logits, (64, 96), align_corners=align_corners)
    extent = (
        covered(40, 64, 16, align_corners=align_corners),
        covered(52, 96, 24, align_corners=align_corners),
    )
    part = class_map(logits, (40, 52), align_corners=align_corners, extent=extent)
    np.testing.assert_array_equal(part[:38, :50], whole[:38, :50])


def test_padding_is_not_read() -> None:
    logits = random_logits(4, 16, 24)
    poisoned = logits.copy()
    poisoned[:, 10:] = 1e9
    poisoned[2, :, 13:] = 1e9
    extent = (Fraction(10), Fraction(13))
    np.testing.assert_array_equal(
        class_map(poisoned, (80, 104), extent=extent), class_map(logits[:, :10, :13], (80, 104))
    )


@pytest.mark.parametrize(
    ("logits", "arguments", "message"),
    [
        (random_logits(3, 4), {}, r"must be \(C, h, w\) or \(N, C, h, w\).*got \(3, 4\)"),
        (random_logits(2, 0, 4), {}, r"without an empty side, got \(2, 0, 4\)"),
        (random_logits(2, 3, 4).astype(np.float64), {}, "must be float32, got float64"),
        (random_logits(256, 1, 1), {}, "at most 255 classes, got 256"),
        (random_logits(2, 3, 4), {"size": (0, 5)}, r"size must be positive, got \(0, 5\)"),
        (
            random_logits(2, 3, 4),
            {"out": np.zeros((8, 9), np.uint8)},
            r"out must be uint8 \(8, 8\).*got uint8 \(8, 9\)",
        ),
        (random_logits(2, 3, 4), {"out": np.zeros((8, 8), np.int64)}, r"out must be uint8 \(8, 8\).*got int64"),
        (random_logits(2, 3, 4), {"out": np.zeros((8, 16), np.uint8)[:, ::2]}, "adjacent columns"),
        (random_logits(2, 3, 4), {"extent": (Fraction(4), Fraction(4))}, r"extent 4.0 x 4.0 is outside the logits"),
        (random_logits(2, 3, 4), {"extent": (Fraction(0), Fraction(4))}, r"extent 0.0 x 4.0 is outside the logits"),
    ],
    ids=["axes", "empty", "dtype", "classes", "size", "out shape", "out dtype", "out strides", "extent", "no extent"],
)
def test_misuse_is_refused(logits: NDArray[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_map(logits, **{"size": (8, 8), **arguments})


def test_flip_merge_undoes_the_mirror() -> None:
    logits = random_logits(2, 3, 4, 5)
    np.testing.assert_array_equal(merge_flipped(logits, logits[..., ::-1]), logits)
    other = random_logits(2, 3, 4, 5, seed=1)
    np.testing.assert_allclose(merge_flipped(logits, other), (logits + other[..., ::-1]) / 2, rtol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5\), the others \(2, 3, 4, 5\)"):
        merge_flipped(logits, logits[0])


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((360, 480), (256, 512), (256, 341)),
        ((1080, 1920), (512, 1024), (512, 910)),
        ((100, 400), (256, 512), (128, 512)),
        ((1, 10_000), (64, 64), (1, 64)),
        ((64, 64), (64, 64), (64, 64)),
    ],
    ids=["height decides", "rounded", "width decides", "at least one pixel", "same"],
)
def test_fitted_size_keeps_the_aspect_ratio(
    size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted_size(size, limits) == expected


@pytest.mark.parametrize("length", [1, 63, 64, 65, 96, 100, 127, 128, 129, 200, 333, 1000, 4001])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("stride", [1, 4, 8, 32])
def test_windows_cover_the_picture_exactly(length: int, overlap: float, stride: int) -> None:
    offsets = window_offsets(length, 64, overlap=overlap, stride=stride)
    assert offsets[0] == 0
    assert all(offset % stride == 0 for offset in offsets)
    end = offsets[-1] + 64
    assert length <= end < max(length, 64) + stride
    steps = np.diff(offsets)
    assert (steps > 0).all()
    assert (steps <= max(64 * (1 - overlap), stride)).all()


def test_windows_are_as_few_as_the_overlap_allows() -> None:
    assert window_offsets(64, 64, overlap=0.25, stride=4) == (0,)
    assert window_offsets(112, 64, overlap=0.25, stride=4) == (0, 48)
    assert window_offsets(116, 64, overlap=0.25, stride=4) == (0, 24, 52)


def test_window_logits_are_averaged_where_they_overlap() -> None:
    merged = WindowLogits()
    for seed in range(2):
        pieces = [(0, 0), (0, 3), (2, 0), (2, 3)]
        logits = random_logits(4, 3, 4, 5, seed=seed)
        merged.begin((3, 6, 8))
        for one, (top, left) in zip(logits, pieces, strict=True):
            merged.add(one, top, left)
        expected = np.full((4, 3, 6, 8), np.nan)
        for index, (top, left) in enumerate(pieces):
            expected[index, :, top : top + 4, left : left + 5] = logits[index]
        np.testing.assert_allclose(merged.mean(), np.nanmean(expected, 0), rtol=1e-5, atol=1e-6)


def test_a_gap_between_windows_is_refused() -> None:
    merged = WindowLogits()
    merged.begin((2, 4, 4))
    merged.add(random_logits(2, 4, 3), 0, 0)
    with pytest.raises(ValueError, match="do not cover the picture"):
        merged.mean()
