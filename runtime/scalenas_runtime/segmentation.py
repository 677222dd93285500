"""`Segmenter`: a picture of any size in, the class of every pixel out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.decode.segmentation import WindowLogits, class_map, merge_flipped
from scalenas_runtime.errors import UserError
from scalenas_runtime.loading import default_target, open_for
from scalenas_runtime.pictures import Picture, as_picture
from scalenas_runtime.preprocess_segmentation import Plan, plan_inputs, write_input
from scalenas_runtime.results import SegmentationResult
from scalenas_runtime.session import Session
from scalenas_runtime.sources import Source, open_source
from scalenas_runtime.targets import Target
from scalenas_runtime.tasks.segmentation import SegmentationRecipe
from scalenas_runtime.timing import Timing

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle

Float = NDArray[np.float32]


class Segmenter:
    """Semantic segmentation on the engine of one net.

    The recipe's `fit` says how a picture meets the net: stretched to its input size, scaled and padded, or in
    overlapping windows whose logits are averaged. Several threads may call it; each call takes a set of buffers,
    which are kept for the next ones. Sliding keeps the logits of the whole picture: 4 * classes / stride**2 bytes a
    pixel, 4.75 for 19 classes at stride 4.
    """

    def __init__(self, session: Session, recipe: SegmentationRecipe) -> None:
        """Takes an engine with one input uint8 (B, H, W, 3) and the output logits float32 (B, C, h, w).

        Raises:
            UserError: input or output do not fit the recipe, or windows cannot share one grid of logits.
        """
        outputs = {spec.name: spec for spec in session.outputs}
        output = outputs.get("logits", session.outputs[0] if len(session.outputs) == 1 else None)
        shape = (recipe.height, recipe.width, 3)
        if len(session.inputs) != 1 or session.inputs[0].shape[1:] != shape or session.inputs[0].dtype != "uint8":
            raise UserError(
                f"segmentation takes one input uint8 (B, {', '.join(map(str, shape))}), got {session.inputs}"
            )
        self.batch = session.inputs[0].shape[0]
        wanted = (self.batch, len(recipe.classes), *recipe.logits_size)
        if output is None or output.shape != wanted or output.dtype != "float32":
            raise UserError(f"segmentation takes one output logits float32 {wanted}, got {session.outputs}")
        if recipe.fit == "sliding" and (recipe.height % recipe.stride or recipe.width % recipe.stride):
            raise UserError(
                f"windows of {recipe.height} x {recipe.width} are no multiple of the stride {recipe.stride}"
            )
        self.recipe = recipe
        self._session = session
        self._input, self._output = session.inputs[0].name, output.name
        self._spare: list[_Buffers] = []

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle,
        target: str | Target | None = None,
        *,
        build: Literal["never", "cached", "auto"] = "never",
        trust: bool = False,
        batch: int = 1,
        threads: int | None = None,
    ) -> Segmenter:
        """Returns a segmenter of a segmentation bundle.

        Args:
            bundle: The bundle's directory or `.zip`, or the opened bundle.
            target: `backend:device/precision`; the first that the bundle has an engine for where it is left out.
            build: What to do when no engine fits: refuse, take one built earlier on this machine, or build.
            trust: Load native engines that were built elsewhere.
            batch: Windows in one inference; the bundle must hold a graph of this batch.
            threads: CPU threads of one inference; None leaves the number to the backend.

        Raises:
            UserError: not a bundle, one of another task, or no engine for the target.
        """
        opened, recipe = open_for(SegmentationRecipe, bundle, trust=trust)
        session = opened.load(target or default_target(opened), build=build, threads=threads, batch=batch)
        try:
            return cls(session, recipe)
        except BaseException:
            session.close()
            raise

    def __call__(self, picture: NDArray[Any]) -> SegmentationResult:
        """Returns the class of every pixel; see `segment`."""
        return self.segment(picture)

    def segment(self, picture: NDArray[Any]) -> SegmentationResult:
        """Returns the class of every pixel of a picture, at the picture's own size.

        Args:
            picture: uint8 (H, W, 3), BGR; grey, alpha and 16 bits are converted (`pictures.as_picture`).

        Raises:
            UserError: not a picture, or a net that gives NaN or infinities.
        """
        return self.segment_timed(picture)[0]

    def segment_timed(self, picture: NDArray[Any]) -> tuple[SegmentationResult, Timing]:
        """Returns what `segment` does, and where the time went."""
        start = time.perf_counter()
        picture = as_picture(picture)
        buffers = self._spare.pop() if self._spare else _Buffers(self.batch, self.recipe)
        try:
            plan = plan_inputs((picture.shape[0], picture.shape[1]), self.recipe)
            logits, inferring = self._logits(picture, plan, buffers)
            decoding = time.perf_counter()
            _check_finite(logits, self.recipe)
            labels = class_map(
                logits,
                (picture.shape[0], picture.shape[1]),
                align_corners=self.recipe.align_corners,
                extent=plan.extent(self.recipe),
            )
        finally:
            self._spare.append(buffers)
        end = time.perf_counter()
        preparing = decoding - start - inferring
        return SegmentationResult(labels, self.recipe), Timing(preparing * 1e3, inferring * 1e3, (end - decoding) * 1e3)

    def stream(self, source: Source | str | Path | int | Sequence[str | Path]) -> Iterator[SegmentationResult]:
        """Yields one result a frame of `source` (`sources.open_source`), with `.frame` set.

        Args:
            source: A picture, directory, glob, video, camera, URL, or an opened source.
        """
        for frame in source if isinstance(source, Source) else open_source(source):
            yield replace(self.segment(frame.picture), frame=frame)

    def close(self) -> None:
        """Frees the engine and the buffers."""
        self._session.close()
        self._spare.clear()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _logits(self, picture: Picture, plan: Plan, buffers: _Buffers) -> tuple[Float, float]:
        """Returns the logits (C, h, w) of all inputs together, and the engine's seconds."""
        count, stride = len(plan.offsets), self.recipe.stride
        if count > 1:
            buffers.merged.begin((len(self.recipe.classes), *plan.logits_size(self.recipe)))
        seconds = 0.0
        for start in range(0, count, self.batch):
            chunk = range(start, min(start + self.batch, count))
            for index, out in zip(chunk, buffers.pictures, strict=False):
                write_input(picture, plan, index, self.recipe, out)
            logits, taken = self._infer(buffers)
            seconds += taken
            if count == 1:
                return logits[0], seconds
            for index, one in zip(chunk, logits, strict=False):
                top, left = plan.offsets[index]
                buffers.merged.add(one, top // stride, left // stride)
        return buffers.merged.mean(), seconds

    def _infer(self, buffers: _Buffers) -> tuple[Float, float]:
        """Returns the logits (B, C, h, w) of the buffers' pictures, flip test included, and the engine's seconds."""
        start = time.perf_counter()
        self._session.run({self._input: buffers.pictures}, out={self._output: buffers.logits})
        seconds = time.perf_counter() - start
        if buffers.mirrored is None:
            return buffers.logits, seconds
        buffers.pictures[...] = buffers.pictures[:, :, ::-1]
        start = time.perf_counter()
        self._session.run({self._input: buffers.pictures}, out={self._output: buffers.mirrored})
        seconds += time.perf_counter() - start
        return merge_flipped(buffers.logits, buffers.mirrored), seconds


@dataclass(slots=True, eq=False)
class _Buffers:
    """What one call writes into: inputs, outputs, merged logits."""

    pictures: Picture
    logits: Float
    mirrored: Float | None
    merged: WindowLogits

    def __init__(self, batch: int, recipe: SegmentationRecipe) -> None:
        shape = (batch, len(recipe.classes), *recipe.logits_size)
        self.pictures = np.zeros((batch, recipe.height, recipe.width, 3), np.uint8)
        self.logits = np.empty(shape, np.float32)
        self.mirrored = np.empty(shape, np.float32) if recipe.flip_test else None
        self.merged = WindowLogits()


def _check_finite(logits: Float, recipe: SegmentationRecipe) -> None:
    # NaN and plus infinity both show in the maximum; minus infinity is how some nets switch a class off.
    if logits.max() < np.inf:
        return
    index = int(np.argwhere(~(logits < np.inf).all((1, 2)))[0, 0])
    raise UserError(
        f"the logits of class {recipe.classes[index]} hold NaN or infinities: the engine's numbers overflow; "
        "run `verify`, and take a target of higher precision"
    )
