"""`PoseEstimator`: a picture and boxes in, joints out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalenas_runtime.boxes import Detections
from scalenas_runtime.decode.pose import decode_heatmaps, merge_flipped
from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import Float, check_boxes, heatmap_to_picture, whole_picture
from scalenas_runtime.loading import default_target, open_for
from scalenas_runtime.pictures import Picture, as_picture
from scalenas_runtime.preprocess import pose_crops
from scalenas_runtime.results import PoseResult, no_persons
from scalenas_runtime.session import Session
from scalenas_runtime.sources import Source, open_source
from scalenas_runtime.targets import Target
from scalenas_runtime.tasks.pose import PoseRecipe
from scalenas_runtime.timing import Timing

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle

BoxFinder = Callable[[Picture], Detections]


class PoseEstimator:
    """Top-down pose on the engines of one net, one engine per batch size.

    It keeps nothing between calls, so several threads may call it; the engine serves them one after another.
    """

    def __init__(self, sessions: Session | Sequence[Session], recipe: PoseRecipe) -> None:
        """Takes the engines of one net for batch 1, batch N or both; `close` closes them.

        Raises:
            ValueError: no engine, or two of one batch size.
            UserError: an engine whose input or output does not fit the recipe.
        """
        self.recipe = recipe
        several = [sessions] if isinstance(sessions, Session) else list(sessions)
        self._engines: dict[int, _Engine] = {}
        for session in several:
            engine = _Engine(session, recipe)
            if engine.batch in self._engines:
                raise ValueError(f"two sessions of batch {engine.batch}")
            self._engines[engine.batch] = engine
        if not self._engines:
            raise ValueError("a pose estimator needs at least one session")

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle,
        target: str | Target | None = None,
        *,
        build: Literal["never", "cached", "auto"] = "never",
        trust: bool = False,
        batch: int | None = None,
        threads: int | None = None,
    ) -> PoseEstimator:
        """Returns an estimator of a pose bundle.

        Args:
            bundle: The bundle's directory or `.zip`, or the opened bundle.
            target: `backend:device/precision`; the first that the bundle has an engine for where it is left out.
            build: What to do when no engine fits: refuse, take one built earlier on this machine, or build.
            trust: Load native engines that were built elsewhere.
            batch: Batch size of the engine that takes several boxes; the bundle must hold a graph of it. 1 is one
                box at a time. Where it is left out, every batch size is used that the bundle has a graph for and
                (unless `build` is `auto`) an engine that fits here.
            threads: CPU threads of one inference; None leaves the number to the backend.

        Raises:
            UserError: not a bundle, one of another task, or no engine for the target.
        """
        opened, recipe = open_for(PoseRecipe, bundle, trust=trust)
        chosen = target or default_target(opened)
        sessions: list[Session] = []
        try:
            for size in _batches(opened, str(chosen), build) if batch is None else sorted({1, batch}):
                sessions.append(opened.load(chosen, build=build, threads=threads, batch=size))
            return cls(sessions, recipe)
        except BaseException:
            for session in sessions:
                session.close()
            raise

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes of the engines, ascending."""
        return tuple(sorted(self._engines))

    def __call__(
        self, picture: NDArray[Any], boxes: ArrayLike | None = None, *, box_scores: ArrayLike | None = None
    ) -> PoseResult:
        """Returns the joints of the persons in `boxes`; see `estimate`."""
        return self.estimate(picture, boxes, box_scores=box_scores)

    def estimate(
        self, picture: NDArray[Any], boxes: ArrayLike | None = None, *, box_scores: ArrayLike | None = None
    ) -> PoseResult:
        """Returns the joints of the persons in `boxes`, in their order.

        Args:
            picture: uint8 (H, W, 3), BGR; grey, alpha and 16 bits are converted (`pictures.as_picture`).
            boxes: (N, 4), x1, y1, x2, y2 in pixels of the picture, reaching over its edge or not. An empty list gives
                an empty result; None takes the whole picture as one box.
            box_scores: (N,), 1 where left out.

        Raises:
            UserError: not a picture, a box that is not finite, has no area or lies outside the picture (named by its
                index), or a net that gives NaN.
        """
        return self.estimate_timed(picture, boxes, box_scores=box_scores)[0]

    def estimate_timed(
        self, picture: NDArray[Any], boxes: ArrayLike | None = None, *, box_scores: ArrayLike | None = None
    ) -> tuple[PoseResult, Timing]:
        """Returns what `estimate` does, and where the time went."""
        start = time.perf_counter()
        picture = as_picture(picture)
        height, width = picture.shape[:2]
        given = whole_picture(height, width) if boxes is None else check_boxes(boxes, height, width)
        scores = _box_scores(box_scores, len(given))
        if len(given) == 0:
            return no_persons(self.recipe), Timing((time.perf_counter() - start) * 1e3, 0.0, 0.0)
        pieces = self._plan(len(given) * (1 + self.recipe.flip_test))
        crops, transforms = self._crops(picture, given, sum(pieces))
        prepared = time.perf_counter()
        heatmaps = self._infer(crops, pieces)
        inferred = time.perf_counter()
        if self.recipe.flip_test:
            heatmaps = merge_flipped(heatmaps[: len(given)], heatmaps[len(given) : 2 * len(given)], self.recipe)
        coordinates, joint_scores = decode_heatmaps(heatmaps[: len(given)], self.recipe)
        keypoints = heatmap_to_picture(coordinates, transforms, self.recipe)
        result = PoseResult(keypoints, joint_scores, given, scores, self.recipe)
        done = time.perf_counter()
        return result, Timing((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3)

    def stream(
        self, source: Source | str | Path | int | Sequence[str | Path], *, detector: BoxFinder | None = None
    ) -> Iterator[PoseResult]:
        """Yields one result a frame of `source` (`sources.open_source`), with `.frame` set.

        Args:
            source: A picture, directory, glob, video, camera, URL, or an opened source.
            detector: Gives each frame's boxes; without one the whole frame is one box.
        """
        for frame in source if isinstance(source, Source) else open_source(source):
            found = None if detector is None else detector(frame.picture)
            boxes, scores = (None, None) if found is None else (found.boxes, found.scores)
            yield replace(self.estimate(frame.picture, boxes, box_scores=scores), frame=frame)

    def close(self) -> None:
        """Frees the engines."""
        for engine in self._engines.values():
            engine.session.close()

    def __enter__(self) -> PoseEstimator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _plan(self, count: int) -> list[int]:
        """Returns the batch sizes to run, in order; their sum is `count` or, with the last batch padded, more.

        A batch is padded where more than half of it is filled: below that, smaller batches are quicker.
        """
        sizes = self.batches
        pieces: list[int] = []
        while count > 0:
            fitting = [size for size in sizes if size <= count]
            whole = fitting[-1] if fitting else 0
            padded = [size for size in sizes if count < size < 2 * count and size > 2 * whole]
            size = padded[0] if padded else whole or sizes[0]
            pieces.append(size)
            count -= size
        return pieces

    def _crops(self, picture: Picture, boxes: Float, places: int) -> tuple[Picture, NDArray[np.float64]]:
        """Returns `places` crops, the mirrored ones of a flip test after the others, black ones at the end."""
        count = len(boxes)
        crops = np.empty((places, self.recipe.height, self.recipe.width, 3), np.uint8)
        _, transforms = pose_crops(picture, boxes, self.recipe, out=crops)
        used = count
        if self.recipe.flip_test:
            crops[count : 2 * count] = crops[:count, :, ::-1]
            used *= 2
        crops[used:] = 0
        return crops, transforms

    def _infer(self, crops: Picture, pieces: Sequence[int]) -> Float:
        outputs: list[Float] = []
        start = 0
        for size in pieces:
            outputs.append(self._engines[size].run(crops[start : start + size]))
            start += size
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)


class _Engine:
    """A session with the one input and output that pose takes."""

    def __init__(self, session: Session, recipe: PoseRecipe) -> None:
        self.session = session
        outputs = {spec.name: spec for spec in session.outputs}
        output = outputs.get("heatmaps", session.outputs[0] if len(session.outputs) == 1 else None)
        shape = (recipe.height, recipe.width, 3)
        if len(session.inputs) != 1 or session.inputs[0].shape[1:] != shape or session.inputs[0].dtype != "uint8":
            raise UserError(f"pose takes one input uint8 (B, {', '.join(map(str, shape))}), got {session.inputs}")
        self.batch = session.inputs[0].shape[0]
        wanted = (self.batch, len(recipe.joints), *recipe.heatmap_size)
        if output is None or output.shape != wanted:
            raise UserError(f"pose takes one output heatmaps {wanted}, got {session.outputs}")
        self._input, self._output = session.inputs[0].name, output.name

    def run(self, crops: Picture) -> Float:
        feeds: Mapping[str, NDArray[Any]] = {self._input: crops}
        heatmaps: Float = self.session.run(feeds)[self._output].astype(np.float32, copy=False)
        return heatmaps


def _batches(bundle: Bundle, target: str, build: Literal["never", "cached", "auto"]) -> list[int]:
    """Returns 1 and the other batch sizes of the bundle's graphs that need no build, or all with `auto`."""
    graphs = {entry.batch for entry in bundle.manifest.models if entry.io == "raw"}
    if build != "auto":
        engines = [status.entry for status in bundle.engines() if status.fits and status.entry.target == target]
        graphs &= {1, *(entry.config.get("batch", 1) for entry in engines)}
    return sorted({1, *graphs})


def _box_scores(scores: ArrayLike | None, count: int) -> Float:
    if scores is None:
        return np.ones(count, np.float32)
    given = np.asarray(scores, np.float32).reshape(-1)
    if given.shape != (count,) or not np.isfinite(given).all():
        raise UserError(f"box_scores must be {count} finite numbers, one a box; got {given.tolist()[:8]}")
    return given
