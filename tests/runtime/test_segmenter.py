"""`Segmenter` on a session that computes a real function: how near a pixel's colour is to each class's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.results import SegmentationResult
from scalenas_runtime.segmentation import Segmenter
from scalenas_runtime.session import Array, Feeds, Session, TensorSpec
from scalenas_runtime.tasks.segmentation import SegmentationRecipe
from tests.resident import growth_per_call

Picture = NDArray[np.uint8]

# (R, G, B); every picture below is painted in these colours alone.
PALETTE = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 40))


def recipe(**fields: Any) -> SegmentationRecipe:
    plain = {"height": 64, "width": 96, "classes": ("red", "green", "blue", "yellow"), "palette": PALETTE}
    return SegmentationRecipe(**{**plain, **fields})


class ColourSession(Session):
    """Logit of class k: minus the distance of the mean colour of a stride x stride block to the class's colour."""

    def __init__(self, recipe: SegmentationRecipe, batch: int = 1, lean: float = 0) -> None:
        shape = (batch, len(recipe.classes), *recipe.logits_size)
        super().__init__(
            [TensorSpec("image", "uint8", (batch, recipe.height, recipe.width, 3))],
            [TensorSpec("logits", "float32", shape)],
        )
        self.calls = 0
        self._stride = recipe.stride
        self._colours = np.array(recipe.palette, np.float32)[:, ::-1]
        # A net whose answer leans to the left, so that a flip test changes it.
        self._lean = np.linspace(lean, -lean, shape[3], dtype=np.float32)

    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        self.calls += 1
        for picture, logits in zip(feeds["image"], out["logits"], strict=True):
            small = cv2.resize(picture, logits.shape[:0:-1], interpolation=cv2.INTER_AREA).astype(np.float32)
            for index, colour in enumerate(self._colours):
                logits[index] = -np.linalg.norm(small - colour, axis=2)
            logits[0] += self._lean

    def _close(self) -> None:
        pass


def painted(height: int, width: int, seed: int = 0, cell: int = 23) -> tuple[Picture, NDArray[np.uint8]]:
    """A picture of coloured rectangles, BGR, with its class map."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, len(PALETTE), (-(-height // cell), -(-width // cell))).astype(np.uint8)
    classes = coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return np.array(PALETTE, np.uint8)[:, ::-1][classes], classes


def away_from_borders(classes: NDArray[np.uint8], pixels: int) -> NDArray[np.bool_]:
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    same: NDArray[np.bool_] = cv2.erode(classes, kernel) == cv2.dilate(classes, kernel)
    return same


SIZES = {
    "the net's own": (64, 96),
    "larger": (180, 260),
    "odd": (101, 131),
    "tall": (200, 70),
    "wide": (66, 333),
    "smaller": (40, 50),
}


@pytest.mark.parametrize("align_corners", [False, True], ids=["half pixel", "align corners"])
@pytest.mark.parametrize("fit", ["stretch", "pad", "sliding"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_classes_come_back_at_the_size_of_the_picture(size: tuple[int, int], fit: str, align_corners: bool) -> None:
    # Rectangles as large as the coarsest scale needs, so that they survive the net's stride.
    scale = max(1.0, size[0] / 64, size[1] / 96) if fit != "sliding" else 1
    cell = int(20 * scale)
    picture, classes = painted(*size, cell=cell)
    settings = recipe(fit=fit, align_corners=align_corners)
    with Segmenter(ColourSession(settings), settings) as segmenter:
        found = segmenter(picture).class_map
    assert found.shape == size
    assert found.dtype == np.uint8
    inside = away_from_borders(classes, int(4 * scale))
    assert inside.any()
    assert (found == classes)[inside].mean() > 0.995
    # At the borders two colours mix; the classes still meet there within a logit pixel.
    assert (found == classes).mean() > 0.8


@pytest.mark.parametrize("fit", ["pad", "sliding"])
def test_the_grey_of_the_padding_does_not_show(fit: str) -> None:
    settings = recipe(fit=fit, border=255)
    picture, _ = painted(41, 30)
    segmenter = Segmenter(ColourSession(settings), settings)
    first = segmenter.segment(picture).class_map
    settings_dark = recipe(fit=fit, border=0)
    second = Segmenter(ColourSession(settings_dark), settings_dark).segment(picture).class_map
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (150, 200), (333, 96)])
def test_windows_do_not_depend_on_the_batch(size: tuple[int, int]) -> None:
    settings = recipe(fit="sliding", overlap=0.5)
    picture, _ = painted(*size)
    maps = []
    for batch in (1, 3, 4):
        session = ColourSession(settings, batch)
        maps.append(Segmenter(session, settings).segment(picture).class_map)
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_a_larger_batch_needs_fewer_inferences() -> None:
    settings = recipe(fit="sliding", overlap=0.0)
    picture, _ = painted(128, 288)
    sessions = [ColourSession(settings, batch) for batch in (1, 4)]
    for session in sessions:
        Segmenter(session, settings).segment(picture)
    assert [session.calls for session in sessions] == [6, 2]


@pytest.mark.parametrize("fit", ["stretch", "pad", "sliding"])
def test_flip_test_makes_the_answer_symmetric(fit: str) -> None:
    picture, _ = painted(80, 120, seed=4)
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    answers = {}
    for flip in (False, True):
        settings = recipe(fit=fit, flip_test=flip)
        segmenter = Segmenter(ColourSession(settings, lean=300), settings)
        straight = segmenter.segment(picture).class_map
        answers[flip] = (straight == segmenter.segment(mirrored).class_map[:, ::-1]).mean()
    assert answers[True] > 0.99 > 0.9 > answers[False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: np.zeros((4, 4, 3), np.float32), "uint8 or uint16, got float32"),
        (lambda: np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (lambda: "photo.jpg", "a picture is a NumPy array, got str"),
    ],
    ids=["float", "empty", "path"],
)
def test_what_is_no_picture_is_refused(make: Any, message: str) -> None:
    settings = recipe()
    with pytest.raises(UserError, match=message):
        Segmenter(ColourSession(settings), settings).segment(make())


@pytest.mark.parametrize("fit", ["stretch", "pad", "sliding"])
def test_one_pixel_and_grey_pictures_work(fit: str) -> None:
    settings = recipe(fit=fit)
    segmenter = Segmenter(ColourSession(settings), settings)
    assert segmenter.segment(np.full((1, 1, 3), (30, 200, 30), np.uint8)).class_map.tolist() == [[1]]
    assert segmenter.segment(np.full((70, 5), 90, np.uint8)).class_map.shape == (70, 5)


class Overflowing(ColourSession):
    """Its second class is what a given number says, at one place."""

    value = np.nan

    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        super()._infer(feeds, out)
        out["logits"][:, 1, 3, 4] = self.value


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "infinity"])
def test_numbers_that_overflow_are_an_error(value: float) -> None:
    settings = recipe()
    session = Overflowing(settings)
    session.value = value
    with pytest.raises(UserError, match="logits of class green hold NaN or infinities"):
        Segmenter(session, settings).segment(painted(64, 96)[0])


@pytest.mark.parametrize(
    ("built", "asked", "message"),
    [
        (recipe(height=96), recipe(), r"one input uint8 \(B, 64, 96, 3\)"),
        (recipe(stride=8), recipe(), r"one output logits float32 \(1, 4, 16, 24\)"),
        (recipe(stride=3, fit="sliding"), recipe(stride=3, fit="sliding"), "64 x 96 are no multiple of the stride 3"),
    ],
    ids=["input", "output", "stride"],
)
def test_a_session_that_does_not_fit_is_refused(
    built: SegmentationRecipe, asked: SegmentationRecipe, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Segmenter(ColourSession(built), asked)


def test_results_survive_the_next_picture() -> None:
    settings = recipe(fit="sliding")
    segmenter = Segmenter(ColourSession(settings), settings)
    first = segmenter.segment(painted(100, 120, seed=1)[0])
    kept = first.class_map.copy()
    segmenter.segment(painted(100, 120, seed=2)[0])
    np.testing.assert_array_equal(first.class_map, kept)


def test_threads_do_not_disturb_each_other() -> None:
    settings = recipe(fit="sliding", flip_test=True)
    segmenter = Segmenter(ColourSession(settings), settings)
    pictures = [painted(90, 130, seed=seed)[0] for seed in range(24)]
    expected = [segmenter.segment(picture).class_map for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda picture: segmenter.segment(picture).class_map, pictures))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_stream_yields_a_result_per_picture(tmp_path: Path) -> None:
    for seed in range(3):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), painted(50 + seed, 60, seed)[0])
    (tmp_path / "notes.txt").write_text("not a picture")
    settings = recipe()
    segmenter = Segmenter(ColourSession(settings), settings)
    results = list(segmenter.stream(tmp_path))
    assert [result.class_map.shape for result in results] == [(50, 60), (51, 60), (52, 60)]
    frames = [result.frame for result in results]
    assert [frame.name for frame in frames if frame is not None] == ["0.png", "1.png", "2.png"]
    assert results[0].draw().shape == (50, 60, 3)


def test_the_parts_of_the_time_add_up() -> None:
    settings = recipe(fit="sliding", flip_test=True)
    _, timing = Segmenter(ColourSession(settings), settings).segment_timed(painted(200, 300)[0])
    assert min(timing.pre_ms, timing.infer_ms, timing.post_ms) > 0
    assert timing.total_ms == pytest.approx(timing.pre_ms + timing.infer_ms + timing.post_ms)


@pytest.mark.parametrize("fit", ["stretch", "sliding"])
def test_ten_thousand_frames_leave_nothing_behind(fit: str, tmp_path: Path) -> None:
    settings = recipe(height=32, width=32, fit=fit)
    before = threading.active_count()
    with Segmenter(ColourSession(settings), settings) as segmenter:
        picture = painted(48, 40)[0]
        calls = 10_000 if fit == "stretch" else 2_000
        assert growth_per_call(lambda: segmenter.segment(picture), calls=calls, warm=500) < 500
    assert threading.active_count() == before


def test_shares_are_told_by_name() -> None:
    settings = recipe()
    result = SegmentationResult(np.array([[0, 1, 1, 3]] * 5, np.uint8), settings)
    assert result.shares() == {"red": 0.25, "green": 0.5, "blue": 0, "yellow": 0.25}


def test_drawing_lays_the_palette_over_the_picture() -> None:
    settings = recipe()
    picture, classes = painted(120, 200)
    grey = np.full_like(picture, 100)
    result = SegmentationResult(classes, settings)
    np.testing.assert_array_equal(result.draw(grey, alpha=1, legend=False), picture)
    np.testing.assert_array_equal(result.draw(grey, alpha=0, legend=False), grey)
    mixed = result.draw(grey, alpha=0.5, legend=False).astype(int)
    assert np.abs(mixed - (picture.astype(int) + 100) / 2).max() <= 1
    assert (grey == 100).all()


def test_the_legend_stays_at_the_top_left() -> None:
    settings = recipe()
    picture, classes = painted(300, 400)
    result = SegmentationResult(classes, settings)
    with_legend, without = result.draw(picture), result.draw(picture, legend=False)
    changed = np.argwhere((with_legend != without).any(2))
    assert with_legend.shape == picture.shape
    assert 0 < changed[:, 0].max() < 150
    assert 0 < changed[:, 1].max() < 300


def test_a_picture_too_small_for_a_legend_gets_none() -> None:
    settings = recipe()
    picture, classes = painted(12, 12)
    result = SegmentationResult(classes, settings)
    np.testing.assert_array_equal(result.draw(picture), result.draw(picture, legend=False))


@pytest.mark.parametrize(
    ("size", "alpha", "message"),
    [((10, 12), 0.5, r"class map is \(10, 10\), the picture \(10, 12\)"), ((10, 10), 1.5, "alpha 1.5 is outside 0..1")],
    ids=["size", "alpha"],
)
def test_drawing_refuses(size: tuple[int, int], alpha: float, message: str) -> None:
    result = SegmentationResult(np.zeros((10, 10), np.uint8), recipe())
    with pytest.raises(UserError, match=message):
        result.draw(np.zeros((*size, 3), np.uint8), alpha=alpha)
