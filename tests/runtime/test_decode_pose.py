"""Decoding agrees with plain loops over the published formulas, and finds known sub-pixel places."""

import math
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.decode.pose import decode_heatmaps, merge_flipped
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe

Heatmaps = NDArray[np.float32]
Method = Literal["argmax", "quarter", "dark", "dark-udp"]
METHODS: tuple[Method, ...] = ("argmax", "quarter", "dark", "dark-udp")


def recipe(decode: Method, *, joints: int = 4, blur: int = 11, **fields: Any) -> PoseRecipe:
    names = tuple(f"joint{index}" for index in range(joints))
    return PoseRecipe(height=256, width=192, joints=names, decode=decode, blur=blur, **fields)


def gaussians(places: NDArray[Any], *, size: tuple[int, int] = (64, 48), sigma: float = 2.0) -> Heatmaps:
    """Heatmaps (N, K, h, w) with an unrounded Gaussian of height 1 at every place (N, K, 2)."""
    y, x = np.mgrid[: size[0], : size[1]]
    distance = (x - places[..., 0, None, None]) ** 2 + (y - places[..., 1, None, None]) ** 2
    maps: Heatmaps = np.exp(-distance / (2 * sigma**2)).astype(np.float32)
    return maps


def noise_maps(seed: int, size: tuple[int, int]) -> Heatmaps:
    """Smooth and rough maps, peaks at borders and corners, negative and flat maps."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-1, (size[1], size[0]), (2, 4, 2))
    maps = gaussians(places, size=size) * rng.uniform(0.1, 1.2, (2, 4, 1, 1))
    maps += rng.normal(0, 0.02, maps.shape)
    maps[0, 0] = rng.normal(0, 1, size)
    maps[0, 1] = 0.3
    maps[1, 0] = -np.abs(maps[1, 0])
    maps[1, 1] = gaussians(np.array([[[0, 0]]]), size=size)[0, 0]
    return maps.astype(np.float32)


def blur_by_hand(heatmap: NDArray[Any], kernel: int) -> NDArray[np.float64]:
    """OpenCV's Gaussian of size `kernel` (binomial up to 5), zeros outside, then scaled back to the old maximum."""
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    reach = kernel // 2
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    if kernel <= 5:
        weights = np.array([math.comb(kernel - 1, index) for index in range(kernel)], np.float64)
    weights /= weights.sum()
    padded = np.pad(heatmap.astype(np.float64), reach)
    rows = sum(weights[i] * padded[:, i : i + heatmap.shape[1]] for i in range(kernel))
    blurred = sum(weights[i] * np.asarray(rows)[i : i + heatmap.shape[0]] for i in range(kernel))
    result = np.asarray(blurred)
    peak = result.max()
    return result * (heatmap.max() / peak) if peak != 0 else result


def decode_by_hand(heatmap: NDArray[Any], method: Method, blur: int) -> tuple[float, float, float]:
    """One joint, by the loops of the authors' papers and programs."""
    height, width = heatmap.shape
    best, px, py = -math.inf, 0, 0
    for row in range(height):
        for column in range(width):
            if heatmap[row, column] > best:
                best, px, py = float(heatmap[row, column]), column, row
    if best <= 0:
        return 0.0, 0.0, best
    x, y = float(px), float(py)
    if method == "quarter" and 1 < px < width - 1 and 1 < py < height - 1:
        x += 0.25 * np.sign(heatmap[py, px + 1] - heatmap[py, px - 1])
        y += 0.25 * np.sign(heatmap[py + 1, px] - heatmap[py - 1, px])
    if method == "dark" and 1 < px < width - 2 and 1 < py < height - 2:
        v = np.log(np.maximum(blur_by_hand(heatmap, blur), 1e-10))
        gradient = np.array([0.5 * (v[py, px + 1] - v[py, px - 1]), 0.5 * (v[py + 1, px] - v[py - 1, px])])
        xx = 0.25 * (v[py, px + 2] - 2 * v[py, px] + v[py, px - 2])
        yy = 0.25 * (v[py + 2, px] - 2 * v[py, px] + v[py - 2, px])
        xy = 0.25 * (v[py + 1, px + 1] - v[py - 1, px + 1] - v[py + 1, px - 1] + v[py - 1, px - 1])
        if xx * yy - xy * xy != 0:
            x, y = np.array([x, y]) - np.linalg.inv(np.array([[xx, xy], [xy, yy]])) @ gradient
    if method == "dark-udp":
        v = np.pad(np.log(np.clip(blur_by_hand(heatmap, blur), 0.001, 50)), 1, mode="edge")
        cx, cy = px + 1, py + 1
        gradient = np.array([0.5 * (v[cy, cx + 1] - v[cy, cx - 1]), 0.5 * (v[cy + 1, cx] - v[cy - 1, cx])])
        xx = v[cy, cx + 1] - 2 * v[cy, cx] + v[cy, cx - 1]
        yy = v[cy + 1, cx] - 2 * v[cy, cx] + v[cy - 1, cx]
        cross = v[cy + 1, cx + 1] - v[cy, cx + 1] - v[cy + 1, cx] + v[cy, cx] + v[cy, cx]
        xy = 0.5 * (cross - v[cy, cx - 1] - v[cy - 1, cx] + v[cy - 1, cx - 1])
        hessian = np.array([[xx, xy], [xy, yy]]) + np.finfo(np.float32).eps * np.eye(2)
        x, y = np.array([x, y]) - np.linalg.inv(hessian) @ gradient
    return x, y, best


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("size", "blur"), [((64, 48), 11), ((32, 24), 3), ((17, 9), 5)], ids=["64x48", "32x24", "17x9"]
)
def test_it_agrees_with_plain_loops(method: Method, size: tuple[int, int], blur: int) -> None:
    maps = noise_maps(size[0], size)
    points, scores = decode_heatmaps(maps, recipe(method, blur=blur))
    assert points.dtype == scores.dtype == np.float32
    for person in range(2):
        for joint in range(4):
            x, y, score = decode_by_hand(maps[person, joint], method, blur)
            assert scores[person, joint] == np.float32(score)
            # On a map of noise the Hessian is nearly singular, so the step is large and its last digits are not known.
            slack = 1e-3 + 1e-3 * max(abs(x), abs(y)) if (person, joint) == (0, 0) else 2e-3
            np.testing.assert_allclose(points[person, joint], [x, y], atol=slack, err_msg=f"{person} {joint}")


@pytest.mark.parametrize(("method", "limit"), [("argmax", 0.5), ("quarter", 0.25), ("dark", 0.05), ("dark-udp", 0.05)])
def test_known_places_are_found(method: Method, limit: float) -> None:
    places = np.random.default_rng(0).uniform((8, 8), (40, 56), (20, 4, 2))
    points, scores = decode_heatmaps(gaussians(places), recipe(method))
    error = np.abs(points - places)
    assert error.max() <= limit + 1e-5
    assert (scores > 0.9).all()
    if method.startswith("dark"):
        assert error.mean() < 0.01


def test_dark_at_the_border_keeps_the_pixel_and_udp_refines_it() -> None:
    places = np.array([[[1.3, 20.0], [20.0, 0.8], [46.4, 30.0], [10.4, 62.6]]])
    dark, _ = decode_heatmaps(gaussians(places), recipe("dark"))
    np.testing.assert_array_equal(dark[0], [[1, 20], [20, 1], [46, 30], [10, 63]])
    udp, _ = decode_heatmaps(gaussians(places), recipe("dark-udp"))
    assert (udp != dark).any(2).all()
    assert np.abs(udp - places).max() < 1


def test_a_map_without_a_positive_value_gives_the_corner_and_its_score() -> None:
    maps = np.full((1, 4, 16, 12), -0.5, np.float32)
    maps[0, 1] = 0
    for method in METHODS:
        points, scores = decode_heatmaps(maps, recipe(method))
        np.testing.assert_array_equal(points, np.zeros((1, 4, 2)))
        np.testing.assert_array_equal(scores[0], [-0.5, 0, -0.5, -0.5])


def test_ties_go_to_the_first_pixel() -> None:
    maps = np.zeros((1, 4, 16, 12), np.float32)
    maps[0, :, 5, 3] = maps[0, :, 5, 9] = maps[0, :, 9, 1] = 1
    points, _ = decode_heatmaps(maps, recipe("argmax"))
    np.testing.assert_array_equal(points[0], [[3, 5]] * 4)


@pytest.mark.parametrize("method", METHODS)
def test_no_persons_give_empty_arrays_and_the_maps_stay(method: Method) -> None:
    points, scores = decode_heatmaps(np.zeros((0, 4, 64, 48), np.float32), recipe(method))
    assert points.shape == (0, 4, 2)
    assert scores.shape == (0, 4)
    maps = noise_maps(0, (32, 24))
    before = maps.copy()
    decode_heatmaps(maps, recipe(method))
    np.testing.assert_array_equal(maps, before)


@pytest.mark.parametrize("method", METHODS)
def test_very_small_maps_are_decoded(method: Method) -> None:
    points, _ = decode_heatmaps(np.ones((1, 4, 1, 1), np.float32), recipe(method))
    np.testing.assert_array_equal(points, np.zeros((1, 4, 2)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_heatmaps_that_are_not_finite_are_an_error_that_names_the_joint(method: Method, value: float) -> None:
    maps = gaussians(np.full((2, 4, 2), 20.0))
    maps[1, 2, 60, 40] = value
    with pytest.raises(UserError, match=r"heatmap 1 of joint joint2 holds NaN or infinities: .* higher precision"):
        decode_heatmaps(maps, recipe(method))


def test_huge_finite_heatmaps_are_no_error() -> None:
    maps = np.full((1, 4, 16, 12), 3e38, np.float32)
    points, _ = decode_heatmaps(maps, recipe("quarter"))
    np.testing.assert_array_equal(points, np.zeros((1, 4, 2)))


@pytest.mark.parametrize(
    "maps", [np.zeros((4, 64, 48), np.float32), np.zeros((1, 4, 64, 48)), np.zeros((1, 4, 0, 48), np.float32)]
)
def test_other_shapes_and_dtypes_are_refused(maps: Any) -> None:
    with pytest.raises(ValueError, match=r"heatmaps must be float32 \(N, K, h, w\)"):
        decode_heatmaps(maps, recipe("quarter"))


PAIRS = ((0, 1), (2, 3))


def test_flipped_maps_are_mirrored_and_left_and_right_change_places() -> None:
    rng = np.random.default_rng(0)
    maps, flipped = rng.normal(size=(2, 2, 5, 6, 7)).astype(np.float32)
    udp = merge_flipped(maps, flipped, recipe("argmax", joints=5, affine="udp", flip_pairs=PAIRS))
    shifted = merge_flipped(maps, flipped, recipe("argmax", joints=5, flip_pairs=PAIRS))
    plain = merge_flipped(maps, flipped, recipe("argmax", joints=5, flip_pairs=PAIRS, flip_shift=False))
    other = (1, 0, 3, 2, 4)
    for person, joint, row, column in np.ndindex(2, 5, 6, 7):
        own, mirror = maps[person, joint, row, column], flipped[person, other[joint], row]
        assert udp[person, joint, row, column] == pytest.approx((own + mirror[6 - column]) / 2)
        assert plain[person, joint, row, column] == udp[person, joint, row, column]
        assert shifted[person, joint, row, column] == pytest.approx((own + mirror[6 - max(column - 1, 0)]) / 2)


def test_udp_flip_test_is_exact() -> None:
    places = np.random.default_rng(1).uniform((8, 8), (40, 56), (3, 4, 2))
    mirrored = places[:, [1, 0, 3, 2]] * [-1, 1] + [47, 0]
    settings = recipe("dark-udp", affine="udp", flip_pairs=PAIRS, flip_shift=False)
    merged = merge_flipped(gaussians(places), gaussians(mirrored), settings)
    np.testing.assert_allclose(merged, gaussians(places), atol=1e-6)
    np.testing.assert_allclose(decode_heatmaps(merged, settings)[0], places, atol=0.05)


def test_maps_of_different_shapes_do_not_merge() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        merge_flipped(np.zeros((1, 4, 8, 8), np.float32), np.zeros((2, 4, 8, 8), np.float32), recipe("argmax"))


@pytest.mark.parametrize("kernel", [3, 5, 11, 17])
def test_the_hand_written_blur_is_opencvs(kernel: int) -> None:
    heatmap, reach = noise_maps(3, (32, 24))[0, 2], kernel // 2
    blurred = np.asarray(cv2.GaussianBlur(np.pad(heatmap, reach), (kernel, kernel), 0))
    inner = blurred[reach:-reach, reach:-reach]
    np.testing.assert_allclose(blur_by_hand(heatmap, kernel), inner * heatmap.max() / inner.max(), atol=1e-5)
