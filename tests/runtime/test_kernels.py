"""The fused bilinear upsampling and argmax: native and NumPy against each other, brute force, torch and OpenCV."""

from __future__ import annotations

import gc
import importlib
import threading
import time
import tracemalloc
import warnings
from fractions import Fraction
from types import ModuleType

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime import kernels
from scalenas_runtime.kernels import Sampling, bilinear_sampling

Float = NDArray[np.float32]
Labels = NDArray[np.uint8]

try:
    NATIVE: ModuleType | None = importlib.import_module("scalenas_runtime._native")
except ImportError:
    NATIVE = None
INSTRUCTIONS = tuple(NATIVE.instruction_sets()) if NATIVE is not None else ()
needs_native = pytest.mark.skipif(NATIVE is None, reason="the native extension is not built here")

# (classes, source height, source width, output height, output width)
SHAPES = {
    "one pixel to one": (3, 1, 1, 1, 1),
    "one pixel to many": (3, 1, 1, 7, 130),
    "one class": (1, 4, 5, 16, 20),
    "same size": (5, 9, 70, 9, 70),
    "fourfold": (19, 16, 40, 64, 160),
    "fourfold, wide": (4, 3, 100, 12, 400),
    "eightfold": (7, 5, 9, 40, 72),
    "twofold": (7, 5, 35, 10, 70),
    "odd sizes": (11, 13, 17, 61, 103),
    "not an integer": (6, 20, 30, 47, 71),
    "up in height, down in width": (6, 8, 90, 31, 33),
    "smaller": (5, 40, 60, 13, 7),
    "to one pixel": (5, 40, 60, 1, 1),
    "to one row": (4, 6, 8, 1, 65),
    "one row": (4, 1, 8, 9, 33),
    "255 classes": (255, 3, 4, 9, 10),
}


def sampling(shape: tuple[int, ...], align_corners: bool) -> tuple[Sampling, Sampling]:
    _, h, w, H, W = shape
    return (
        bilinear_sampling(h, H, align_corners=align_corners),
        bilinear_sampling(w, W, align_corners=align_corners),
    )


def random_logits(shape: tuple[int, ...], seed: int = 0) -> Float:
    return np.random.default_rng(seed).normal(size=shape[:3]).astype(np.float32)


def by_numpy(logits: Float, shape: tuple[int, ...], align_corners: bool = False) -> Labels:
    out = np.full(shape[3:], 77, np.uint8)
    kernels.class_map_numpy(logits, out, *sampling(shape, align_corners))
    return out


def by_native(logits: Float, shape: tuple[int, ...], instructions: str, align_corners: bool = False) -> Labels:
    assert NATIVE is not None
    out = np.full(shape[3:], 77, np.uint8)
    NATIVE.class_map(logits, out, *sampling(shape, align_corners), instructions)
    return out


def interpolate_slowly(logits: Float, size: tuple[int, int], align_corners: bool) -> NDArray[np.float64]:
    """The textbook formula, pixel by pixel, in double precision: (C, H, W)."""
    _, h, w = logits.shape
    planes = logits.astype(np.float64)
    values = np.empty((len(logits), *size))
    for y in range(size[0]):
        for x in range(size[1]):
            if align_corners:
                sy, sx = (y * (h - 1) / max(size[0] - 1, 1), x * (w - 1) / max(size[1] - 1, 1))
            else:
                sy, sx = (y + 0.5) * h / size[0] - 0.5, (x + 0.5) * w / size[1] - 0.5
            sy, sx = min(max(sy, 0), h - 1), min(max(sx, 0), w - 1)
            top, left = int(sy), int(sx)
            below, right = min(top + 1, h - 1), min(left + 1, w - 1)
            dy, dx = sy - top, sx - left
            upper = planes[:, top, left] * (1 - dx) + planes[:, top, right] * dx
            lower = planes[:, below, left] * (1 - dx) + planes[:, below, right] * dx
            values[:, y, x] = upper * (1 - dy) + lower * dy
    return values


def assert_best(labels: Labels, values: NDArray[np.float64]) -> None:
    """Every label's value is the largest, up to what float32 arithmetic can tell apart."""
    chosen = np.take_along_axis(values, labels[None].astype(np.intp), 0)[0]
    assert (values.max(0) - chosen).max() <= 1e-5 * np.abs(values).max()


@pytest.mark.parametrize("align_corners", [False, True], ids=["half pixel", "align corners"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_numpy_kernel_picks_the_largest_interpolated_logit(shape: tuple[int, ...], align_corners: bool) -> None:
    logits = random_logits(shape)
    labels = by_numpy(logits, shape, align_corners)
    values = interpolate_slowly(logits, (shape[3], shape[4]), align_corners)
    assert_best(labels, values)
    assert np.mean(labels == values.argmax(0)) > 0.999


@needs_native
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("align_corners", [False, True], ids=["half pixel", "align corners"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_native_kernel_gives_the_labels_of_numpy(
    shape: tuple[int, ...], align_corners: bool, instructions: str
) -> None:
    for seed in range(3):
        logits = random_logits(shape, seed)
        expected = by_numpy(logits, shape, align_corners)
        np.testing.assert_array_equal(by_native(logits, shape, instructions, align_corners), expected)


@needs_native
def test_native_kernel_gives_the_labels_of_numpy_on_random_shapes() -> None:
    rng = np.random.default_rng(1)
    for seed in range(150):
        shape = tuple(int(rng.integers(1, high)) for high in (30, 25, 80, 90, 200))
        # Few distinct values: near ties and exact ties everywhere.
        logits = np.round(random_logits(shape, seed) * 4) / 4 + random_logits(shape, seed + 1) * 1e-7
        logits = logits.astype(np.float32)
        align_corners = bool(rng.integers(2))
        expected = by_numpy(logits, shape, align_corners)
        for instructions in INSTRUCTIONS:
            np.testing.assert_array_equal(by_native(logits, shape, instructions, align_corners), expected)


@pytest.mark.parametrize("align_corners", [False, True], ids=["half pixel", "align corners"])
@pytest.mark.parametrize("shape", [(19, 16, 32, 64, 128), (6, 13, 17, 61, 103)], ids=["fourfold", "odd"])
def test_labels_are_those_of_torch(shape: tuple[int, ...], align_corners: bool) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits = random_logits(shape)
    wide = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=shape[3:], mode="bilinear", align_corners=align_corners
    )[0].numpy()
    labels = by_numpy(logits, shape, align_corners)
    assert_best(labels, wide.astype(np.float64))
    assert np.mean(labels == wide.argmax(0)) > 0.9999


def test_labels_are_those_of_opencv() -> None:
    shape = (19, 64, 128, 256, 512)
    logits = random_logits(shape)
    wide = np.stack([cv2.resize(plane, (512, 256), interpolation=cv2.INTER_LINEAR) for plane in logits])
    labels = by_numpy(logits, shape)
    assert_best(labels, wide.astype(np.float64))
    assert np.mean(labels == wide.argmax(0)) > 0.9999


@pytest.mark.parametrize("implementation", ["numpy", *INSTRUCTIONS])
def test_ties_go_to_the_lowest_class(implementation: str) -> None:
    shape = (6, 10, 20, 40, 80)
    # Small integers and eighths: float32 arithmetic is exact here, so ties are true ties.
    logits = np.random.default_rng(3).integers(0, 3, shape[:3]).astype(np.float32)
    expected = interpolate_slowly(logits, (40, 80), False).argmax(0)
    labels = by_numpy(logits, shape) if implementation == "numpy" else by_native(logits, shape, implementation)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("implementation", ["numpy", *INSTRUCTIONS])
def test_equal_planes_go_to_the_lowest_class_at_any_ratio(implementation: str) -> None:
    shape = (5, 7, 9, 23, 71)
    logits = random_logits(shape)
    logits[3], logits[4] = logits[1], logits[0]
    labels = by_numpy(logits, shape) if implementation == "numpy" else by_native(logits, shape, implementation)
    assert set(np.unique(labels)) == {0, 1, 2}


@pytest.mark.parametrize("implementation", ["numpy", *INSTRUCTIONS])
def test_nan_and_minus_infinity_never_win(implementation: str) -> None:
    shape = (3, 4, 4, 16, 16)
    logits = random_logits(shape)
    logits[0, 1, 1] = np.nan
    logits[1] = -np.inf
    labels = by_numpy(logits, shape) if implementation == "numpy" else by_native(logits, shape, implementation)
    assert 1 not in labels
    assert (labels[4:8, 4:8] == 2).all()
    logits[...] = np.nan
    labels = by_numpy(logits, shape) if implementation == "numpy" else by_native(logits, shape, implementation)
    assert (labels == 0).all()


@pytest.mark.parametrize(
    ("source", "target", "align_corners", "extent"),
    [(8, 32, False, None), (8, 29, True, None), (8, 29, False, Fraction(13, 2)), (8, 5, True, Fraction(15, 2))],
    ids=["half pixel", "align corners", "half pixel, part", "align corners, part"],
)
def test_sampling_follows_the_formula(source: int, target: int, align_corners: bool, extent: Fraction | None) -> None:
    step, offset, denominator = bilinear_sampling(source, target, align_corners=align_corners, extent=extent)
    covered = source if extent is None else extent
    for i in range(target):
        if align_corners:
            expected = i * (covered - 1) / Fraction(target - 1)
        else:
            expected = (i + Fraction(1, 2)) * covered / target - Fraction(1, 2)
        assert Fraction(step * i + offset, denominator) == expected


def test_the_chosen_kernel_takes_strided_logits_and_rows() -> None:
    shape = (4, 6, 10, 24, 40)
    big = random_logits((4, 9, 15, 24, 40))
    expected = by_numpy(np.ascontiguousarray(big[:, 2:8, 3:13]), shape)
    whole = np.zeros((30, 50), np.uint8)
    kernels.class_map(big[:, 2:8, 3:13], whole[3:27, 5:45], *sampling(shape, False))
    np.testing.assert_array_equal(whole[3:27, 5:45], expected)
    assert whole[:3].sum() + whole[27:].sum() + whole[:, :5].sum() + whole[:, 45:].sum() == 0
    channels_last = np.ascontiguousarray(big[:, 2:8, 3:13].transpose(1, 2, 0)).transpose(2, 0, 1)
    out = np.empty((24, 40), np.uint8)
    kernels.class_map(channels_last, out, *sampling(shape, False))
    np.testing.assert_array_equal(out, expected)


@needs_native
@pytest.mark.parametrize(
    ("logits", "out", "instructions", "message"),
    [
        (np.zeros((2, 3, 4), np.float32), np.zeros((6, 8), np.uint8), "mmx", "this processor does not run 'mmx'"),
        (np.zeros((2, 0, 4), np.float32), np.zeros((6, 8), np.uint8), "baseline", "must not be empty"),
        (np.zeros((256, 1, 1), np.float32), np.zeros((6, 8), np.uint8), "baseline", "at most 255 classes"),
        (np.zeros((2, 3, 8), np.float32)[:, :, ::2], np.zeros((6, 8), np.uint8), "baseline", "must be adjacent"),
        (np.zeros((2, 3, 4), np.float32), np.zeros((6, 16), np.uint8)[:, ::2], "baseline", "must be adjacent"),
    ],
    ids=["instructions", "empty", "classes", "strided logits", "strided out"],
)
def test_native_kernel_refuses(logits: Float, out: Labels, instructions: str, message: str) -> None:
    assert NATIVE is not None
    with pytest.raises(ValueError, match=message):
        NATIVE.class_map(logits, out, (1, 0, 1), (1, 0, 1), instructions)


@needs_native
@pytest.mark.parametrize("values", [(-1, 0, 1), (1, 0, 0)], ids=["backwards", "no denominator"])
def test_native_kernel_refuses_a_sampling(values: tuple[int, int, int]) -> None:
    assert NATIVE is not None
    with pytest.raises(ValueError, match="a step >= 0 and a denominator > 0"):
        NATIVE.class_map(np.zeros((2, 3, 4), np.float32), np.zeros((6, 8), np.uint8), values, (1, 0, 1), "baseline")


@needs_native
def test_native_kernel_converts_nothing_in_silence() -> None:
    assert NATIVE is not None
    read_only = np.zeros((6, 8), np.uint8)
    read_only.flags.writeable = False
    for logits, out in [
        (np.zeros((2, 3, 4)), np.zeros((6, 8), np.uint8)),
        (np.zeros((2, 3, 4), np.float32), np.zeros((6, 8))),
        (np.zeros((2, 3, 4), np.float32), read_only),
    ]:
        with pytest.raises(TypeError, match="incompatible function arguments"):
            NATIVE.class_map(logits, out, (1, 0, 1), (1, 0, 1), "baseline")


@needs_native
def test_native_kernel_lets_other_threads_run() -> None:
    shape = (19, 128, 256, 512, 1024)
    logits = random_logits(shape)
    done = threading.Event()

    def work() -> None:
        for _ in range(20):
            by_native(logits, shape, "baseline")
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    steps = 0
    while not done.is_set():
        steps += 1
        time.sleep(0.0005)
    thread.join()
    # With the GIL held through each call, this loop would get one turn a call at most.
    assert steps > 25


@needs_native
def test_native_kernel_keeps_no_memory() -> None:
    shape = (19, 32, 64, 128, 256)
    logits, out = random_logits(shape), np.empty((128, 256), np.uint8)
    rows, columns = sampling(shape, False)
    kernels.class_map(logits, out, rows, columns)
    gc.collect()
    tracemalloc.start()
    for _ in range(200):
        kernels.class_map(logits, out, rows, columns)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 10_000


def test_without_the_extension_numpy_works_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_native", None)
    monkeypatch.setattr(kernels, "_reason", "no module named _native")
    assert not kernels.status().native
    assert "NumPy fallback" in kernels.status().detail
    assert "no module named _native" in kernels.status().detail
    shape = (3, 4, 5, 16, 20)
    out = np.empty((16, 20), np.uint8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            kernels.class_map(random_logits(shape), out, *sampling(shape, False))
    assert [str(item.message) for item in caught] == [kernels.status().detail]
    np.testing.assert_array_equal(out, by_numpy(random_logits(shape), shape))


@needs_native
def test_status_names_the_instruction_set() -> None:
    state = kernels.status()
    assert state.native
    assert state.instructions == INSTRUCTIONS[-1]
    assert state.instructions in state.detail
