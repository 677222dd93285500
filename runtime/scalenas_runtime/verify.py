"""Verifying an engine: golden pictures in, outputs compared with the recorded ones, undecoded first, then decoded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.backends import get_backend
from scalenas_runtime.bundle.reader import Build, Bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.golden import Golden, decode_outputs
from scalenas_runtime.parity import Comparer, Comparison, Tolerance, Verdict, judge, tolerance_of
from scalenas_runtime.records import Record
from scalenas_runtime.session import Array, Session, TensorSpec
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import PoseRecipe, Recipe
from scalenas_runtime.tasks.common import IMAGENET_MEAN, IMAGENET_STD

NOISE_COUNT, SCENE_COUNT = 4, 4


class VerifyReport(Record, frozen=True):
    """How an engine does on the golden pictures.

    Attributes:
        target: The target in its text form, and `config` everything else it was loaded with.
        pictures: Number of golden pictures.
        undecoded: Against the golden outputs; None for an engine of form `end2end`, which has none.
        decoded: Against the golden results.
        tolerance: Of the target's precision.
        verdict: Passed when both comparisons did.
        seconds: Time for running and comparing, without loading.
    """

    target: str
    config: dict[str, Any]
    pictures: int
    undecoded: Comparison | None
    decoded: Comparison
    tolerance: Tolerance
    verdict: Verdict
    seconds: float

    @property
    def worst(self) -> int:
        """Index of the golden picture that agrees least."""
        first = self.decoded if self.undecoded is None else self.undecoded
        return first.worst % self.pictures


class ModelsReport(Record, frozen=True):
    """How two graphs of the same inputs and outputs differ.

    Attributes:
        reference, candidate: The files.
        target: What both ran on.
        inputs: What both were fed with, in words.
        outputs: The comparison of each output, by name.
        tolerance: Of the target's precision.
        verdict: Passed when every output did.
        seconds: Time for running and comparing, without loading.
    """

    reference: str
    candidate: str
    target: str
    inputs: str
    outputs: dict[str, Comparison]
    tolerance: Tolerance
    verdict: Verdict
    seconds: float


def verify(bundle: Bundle, config: EngineConfig, *, build: Build = "never") -> VerifyReport:
    """Returns how the engine of a bundle for this config does on the bundle's golden pictures.

    Needs the engine's package alone. The tolerance is that of the target's precision.

    Raises:
        UserError: no engine fits (see `Bundle.load_config`), or its precision has no parity tolerance.
    """
    tolerance = tolerance_of(config.target.precision)
    golden = bundle.golden()
    with bundle.load_config(config, build=build) as session:
        started = time.monotonic()
        undecoded, decoded = _compare(session, golden, bundle.recipe, config, tolerance)
        seconds = time.monotonic() - started
    return VerifyReport(
        target=str(config.target),
        config=dict(config.to_json()),
        pictures=len(golden.inputs),
        undecoded=undecoded,
        decoded=decoded,
        tolerance=tolerance,
        verdict=_join({"outputs": undecoded, "results": decoded}, tolerance),
        seconds=round(seconds, 3),
    )


def engine_outputs(
    session: Session, inputs: NDArray[np.uint8], *, start: int = 0, stop: int | None = None
) -> Iterator[Array]:
    """Yields the first output of a session for each picture of `inputs[start:stop]`, in order.

    Pictures go through in batches of the session's size; the last is filled up, see `slot_outputs`.

    Args:
        session: An engine that takes one uint8 (B, H, W, 3).
        inputs: uint8 (n, H, W, 3).
        start: First picture.
        stop: End of the range, exclusive; all by default.

    Raises:
        UserError: the session takes something else.
    """
    end = len(inputs) if stop is None else stop
    for _, output in islice(slot_outputs(session, inputs, start=start, stop=end), max(end - start, 0)):
        yield output


def slot_outputs(
    session: Session, inputs: NDArray[np.uint8], *, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Array]]:
    """Yields index of the picture and first output for every slot of every batch, so that each slot is seen at work.

    Pictures of `inputs[start:stop]` go through in order and begin anew until the last batch is full, so that the
    n-th slot holds picture `start + n % (stop - start)`.

    Args:
        session: An engine that takes one uint8 (B, H, W, 3).
        inputs: uint8 (n, H, W, 3).
        start: First picture.
        stop: End of the range, exclusive; all by default.

    Raises:
        UserError: the session takes something else.
    """
    wanted = session.inputs[0]
    if len(session.inputs) != 1 or wanted.dtype != "uint8" or wanted.shape[1:] != inputs.shape[1:]:
        raise UserError(f"the engine takes {_describe(session.inputs)}, the golden pictures are uint8 {inputs.shape}")
    batch = wanted.shape[0]
    name = session.outputs[0].name
    count = (len(inputs) if stop is None else stop) - start
    for first in range(0, count, batch):
        indices = start + np.arange(first, first + batch) % count
        outputs = session.run({wanted.name: np.ascontiguousarray(inputs[indices])})[name]
        yield from zip(indices.tolist(), outputs, strict=True)


def verify_models(reference: Path, candidate: Path, config: EngineConfig, *, seed: int = 0) -> ModelsReport:
    """Returns how two ONNX files differ on the same inputs: noise, and drawn people where an input is a picture.

    Args:
        reference: The one that counts as right.
        candidate: The other.
        config: What both run on; its batch must be that of both files.
        seed: Of the noise and the scenes.

    Raises:
        UserError: a file cannot be run, or the two differ in names, dtypes or shapes of inputs or outputs.
    """
    tolerance = tolerance_of(config.target.precision)
    backend = get_backend(config.target.backend)
    with backend.compile(reference, config) as one, backend.compile(candidate, config) as other:
        for what, ours, theirs in (("inputs", one.inputs, other.inputs), ("outputs", one.outputs, other.outputs)):
            if sorted(ours, key=_name) != sorted(theirs, key=_name):
                raise UserError(
                    f"{what} differ: {reference} has {_describe(ours)}, {candidate} has {_describe(theirs)}"
                )
        started = time.monotonic()
        comparers = {spec.name: Comparer() for spec in one.outputs}
        feeds, words = _feeds(one.inputs, seed)
        for feed in feeds:
            left, right = one.run(feed), other.run(feed)
            for name, comparer in comparers.items():
                comparer.update(np.atleast_1d(left[name]), np.atleast_1d(right[name]))
        seconds = time.monotonic() - started
    outputs = {name: comparer.result() for name, comparer in comparers.items()}
    return ModelsReport(
        reference=str(reference),
        candidate=str(candidate),
        target=str(config.target),
        inputs=words,
        outputs=outputs,
        tolerance=tolerance,
        verdict=_join(outputs, tolerance),
        seconds=round(seconds, 3),
    )


def worst_picture(bundle: Bundle, config: EngineConfig, index: int) -> bytes:
    """Returns a PNG that shows the golden result of picture `index` and this engine's; see `difference_picture`.

    Raises:
        UserError: no engine fits (see `Bundle.load_config`).
    """
    from scalenas_runtime.difference_picture import difference_picture

    golden = bundle.golden()
    with bundle.load_config(config, build="cached") as session:
        output = next(engine_outputs(session, golden.inputs, start=index, stop=index + 1))
    result = decode_one(output, bundle.recipe) if config.io == "raw" else output
    picture = difference_picture(golden.inputs[index], golden.decoded[index], result, bundle.recipe)
    done, data = cv2.imencode(".png", picture)
    assert done
    return bytes(data)


def _compare(
    session: Session, golden: Golden, recipe: Recipe, config: EngineConfig, tolerance: Tolerance
) -> tuple[Comparison | None, Comparison]:
    undecoded = Comparer(recipe, tolerance=tolerance) if config.io == "raw" else None
    decoded = Comparer(recipe, stage="decoded", tolerance=tolerance)
    for index, output in slot_outputs(session, golden.inputs):
        result = output
        if undecoded is not None:
            undecoded.update(golden.outputs[index : index + 1], output[np.newaxis])
            result = decode_one(output, recipe)
        heatmaps = golden.outputs[index : index + 1] if isinstance(recipe, PoseRecipe) else None
        decoded.update(golden.decoded[index : index + 1], result[np.newaxis], heatmaps=heatmaps)
    return None if undecoded is None else undecoded.result(), decoded.result()


def decode_one(output: Array, recipe: Recipe) -> Array:
    """Returns what the recipe makes of one picture's output (K, h, w) or (C, h, w).

    Keypoints are all NaN where the output is not finite, so that they compare as what they are.
    """
    if isinstance(recipe, PoseRecipe) and not np.isfinite(output).all():
        return np.full((len(recipe.joints), 3), np.nan, np.float32)
    result: Array = decode_outputs(output[np.newaxis], recipe)[0]
    return result


def _join(comparisons: Mapping[str, Comparison | None], tolerance: Tolerance) -> Verdict:
    verdicts = {name: judge(item, tolerance) for name, item in comparisons.items() if item is not None}
    return Verdict(
        passed=all(verdict.passed for verdict in verdicts.values()),
        informative=all(verdict.informative for verdict in verdicts.values()),
        reasons=tuple(f"{name}: {reason}" for name, verdict in verdicts.items() for reason in verdict.reasons),
    )


def _feeds(specs: Sequence[TensorSpec], seed: int) -> tuple[list[dict[str, Array]], str]:
    rng = np.random.default_rng(seed)
    feeds = [{spec.name: _noise(spec, rng) for spec in specs} for _ in range(NOISE_COUNT)]
    words = f"{NOISE_COUNT} of noise"
    if len(specs) == 1 and _picture_size(specs[0]) is not None:
        feeds += [{specs[0].name: _scene(specs[0], seed, index)} for index in range(SCENE_COUNT)]
        words += f", {SCENE_COUNT} of drawn people"
    return feeds, words


def _noise(spec: TensorSpec, rng: np.random.Generator) -> Array:
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        return rng.standard_normal(spec.shape).astype(kind)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, spec.shape, dtype=np.uint8)
    # Small numbers are valid as an index, a count and a flag.
    return rng.integers(0, 2, spec.shape).astype(kind)


def _picture_size(spec: TensorSpec) -> tuple[int, int] | None:
    """Returns height and width of an input that takes pictures, uint8 NHWC or float NCHW, else None."""
    if len(spec.shape) == 4 and spec.dtype == "uint8" and spec.shape[3] == 3:
        return spec.shape[1], spec.shape[2]
    if len(spec.shape) == 4 and spec.dtype in ("float32", "float16") and spec.shape[1] == 3:
        return spec.shape[2], spec.shape[3]
    return None


def _scene(spec: TensorSpec, seed: int, index: int) -> Array:
    from scalenas_runtime.scenes import person_scene

    size = _picture_size(spec)
    assert size is not None
    drawn = [person_scene(seed, index * spec.shape[0] + number).picture for number in range(spec.shape[0])]
    shrunk = [cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA) for picture in drawn]
    pictures = np.stack(shrunk).astype(np.uint8)
    if spec.dtype == "uint8":
        return pictures
    rgb = (pictures[..., ::-1] - np.asarray(IMAGENET_MEAN)) / np.asarray(IMAGENET_STD)
    return np.ascontiguousarray(rgb.transpose(0, 3, 1, 2).astype(spec.dtype))


def _describe(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in specs)


def _name(spec: TensorSpec) -> str:
    return spec.name
