"""The parity ladder: every step of an export is compared with the one before it, on drawn pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from scalenas_export.bisect import (
    Divergence,
    Probe,
    Values,
    engine_probe,
    first_divergence,
    relative_error,
    save_piece,
    torch_probe,
)
from scalenas_export.calibration import batch_size, normalised
from scalenas_runtime.backends import get_backend
from scalenas_runtime.errors import CheckFailed
from scalenas_runtime.golden import POSE_COUNT, SEED, SEGMENTATION_COUNT
from scalenas_runtime.parity import (
    MIN_JOINTS,
    TOLERANCES,
    Comparer,
    Comparison,
    ParityRecord,
    Rung,
    Tolerance,
    Verdict,
    compare,
    joints_text,
    judge,
)
from scalenas_runtime.session import Array, Session
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import PoseRecipe, Recipe
from scalenas_runtime.verify import slot_outputs

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from torch import nn

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float32]
Progress = Callable[[str], None]
Stage = Literal["undecoded", "decoded"]
Culprit = Callable[[int], str]

# What every graph is held against: fp32, on the engine that changes a graph least.
REFERENCE = EngineConfig(Target("onnxruntime", "cpu", "fp32"))
MOST_PICTURES = 64
# Nets of one or two joints get more pictures, until there are so many joints in them.
MOST_JOINTS = 160


@dataclass(slots=True)
class Ladder:
    """The rungs of one export, in order.

    Attributes:
        recipe: Says how outputs are decoded.
        pictures: uint8 (n, H, W, 3), BGR: what every rung runs on.
        progress: Takes a line per rung.
        failures: Where pieces of failed rungs are saved.
        rungs: What was compared so far.
    """

    recipe: Recipe
    pictures: Pictures
    progress: Progress
    failures: Path
    rungs: list[Rung] = field(default_factory=list)

    def climb(
        self,
        name: str,
        sides: tuple[str, str],
        outputs: tuple[Array, Array],
        *,
        tolerance: Tolerance,
        stage: Stage = "undecoded",
        heatmaps: Array | None = None,
        culprit: Culprit | None = None,
    ) -> Rung:
        """Adds a rung and returns it.

        Args:
            name: The step.
            sides: What reference and candidate are, in words.
            outputs: Of the reference and of the candidate, pictures first.
            tolerance: How far they may be apart.
            stage: What the outputs are.
            heatmaps: What keypoints of the reference were decoded from; see `Comparer.update`.
            culprit: Says where a failure comes from; takes the index of the worst picture.

        Raises:
            CheckFailed: the two are further apart; the text says why and, where that could be found out, where.
        """
        comparison, verdict = self.compare(*outputs, tolerance=tolerance, stage=stage, heatmaps=heatmaps)
        self.add(name, sides, comparison, tolerance, verdict)
        if not verdict.passed:
            where = _located(culprit, comparison.worst % len(self.pictures)) if culprit else ""
            raise CheckFailed(f"{name}: {sides[1]} does not agree with {sides[0]}: {'; '.join(verdict.reasons)}{where}")
        return self.rungs[-1]

    def compare(
        self,
        reference: Array,
        candidate: Array,
        *,
        tolerance: Tolerance,
        stage: Stage = "undecoded",
        heatmaps: Array | None = None,
    ) -> tuple[Comparison, Verdict]:
        """Returns how far two outputs are apart and what the tolerance makes of it; adds no rung."""
        comparer = Comparer(self.recipe, stage=stage, tolerance=tolerance)
        comparer.update(reference, candidate, heatmaps=heatmaps)
        comparison = comparer.result()
        return comparison, judge(comparison, tolerance)

    def add(
        self, name: str, sides: tuple[str, str], comparison: Comparison, tolerance: Tolerance, verdict: Verdict
    ) -> None:
        """Adds a rung that was judged elsewhere."""
        inputs = f"{len(self.pictures)} drawn pictures"
        rung = Rung(
            name=name,
            reference=sides[0],
            candidate=sides[1],
            inputs=inputs,
            comparison=comparison,
            tolerance=tolerance,
            verdict=verdict,
        )
        self.rungs.append(rung)
        self.progress(rung_line(rung))

    @property
    def record(self) -> ParityRecord:
        """All rungs so far, as a bundle keeps them."""
        return ParityRecord(rungs=tuple(self.rungs))

    def where_engines_part(
        self, model: ModelProto, candidate: ModelProto, config: EngineConfig, *, rung: str, tolerance: float
    ) -> Culprit:
        """Returns what finds the first diverging node of an engine against ONNX Runtime fp32, for `climb`."""

        def find(picture: int) -> str:
            feeds = {model.graph.input[0].name: self.pictures[picture : picture + 1]}
            reference = _with_inputs(engine_probe(model, REFERENCE, feeds), feeds)
            return self._locate(candidate, reference, config, feeds, rung=rung, tolerance=tolerance)

        return find

    def where_export_parts(self, net: nn.Module, model: ModelProto, *, rung: str, tolerance: float) -> Culprit:
        """Returns what finds the first convolution at which a graph parts from the module it was exported from."""

        def find(picture: int) -> str:
            chosen = self.pictures[picture : picture + 1]
            feeds = {model.graph.input[0].name: chosen}
            paths = {
                node.output[0]: node.name.rpartition("/")[0] for node in model.graph.node if node.op_type == "Conv"
            }
            reference = _with_inputs(torch_probe(net, normalised(chosen, self.recipe), paths), feeds)
            return self._locate(model, reference, REFERENCE, feeds, rung=rung, tolerance=tolerance, comparable=paths)

        return find

    def where_modules_part(self, reference: nn.Module, candidate: nn.Module, tolerance: float) -> Culprit:
        """Returns what finds the first module at which two nets of the same module paths part."""

        def find(picture: int) -> str:
            # A convolution's own output changes when its BN is folded; that of the BN, then an identity, does not.
            paths = {name: name for name, module in reference.named_modules() if name and not _is_convolution(module)}
            inputs = normalised(self.pictures[picture : picture + 1], self.recipe)
            right, made = (torch_probe(net, inputs, paths)(tuple(paths)) for net in (reference, candidate))
            for name in right:
                if name in made and relative_error(right[name], made[name]) > tolerance:
                    return f"the first diverging module is {name}"
            return "no single module: all agree"

        return find

    def _locate(
        self,
        model: ModelProto,
        reference: Probe,
        config: EngineConfig,
        feeds: Mapping[str, Array],
        *,
        rung: str,
        tolerance: float,
        comparable: Mapping[str, str] | None = None,
    ) -> str:
        values = Values(model, comparable)
        candidate = engine_probe(model, config, feeds)
        output = model.graph.output[0].name
        found: Divergence | None = first_divergence(values, reference, candidate, output=output, tolerance=tolerance)
        if found is None:
            return (
                "no single node: the outputs agree once inner values are handed out, so a fusion of the engine differs"
            )
        folder = _unused(self.failures / rung.replace("/", "-").replace(":", "-").replace(" ", "-"))
        found = save_piece(folder, values, found, reference=reference, config=config, tolerance=tolerance)
        return f"{found}; the smallest failing piece ({len(found.piece)} nodes) is in {folder}"


def golden_pictures(recipe: Recipe, run: Callable[[Pictures], Floats], *, seed: int = SEED) -> tuple[Pictures, Floats]:
    """Returns drawn pictures (n, H, W, 3) and their fp32 outputs: enough for the task's agreement to be judged.

    Segmentation takes 4. Pose takes 16, and further ones, up to 64 (or as many as have 160 joints), until 100 joints
    have a peak of at least 0.2 and are not ambiguous in bf16 or fp16; a net without such a peak in the first 16 gets no
    more.

    Args:
        recipe: What the net sees.
        run: The fp32 reference, for any number of pictures.
        seed: Of the scenes.
    """
    from scalenas_runtime.scenes import pictures

    if not isinstance(recipe, PoseRecipe):
        chosen = pictures(recipe, seed=seed, count=SEGMENTATION_COUNT)
        return chosen, run(chosen)
    drawn = pictures(recipe, seed=seed, count=POSE_COUNT)
    outputs = run(drawn)
    most = max(MOST_PICTURES, -(-MOST_JOINTS // len(recipe.joints)))
    while len(drawn) < most:
        informative = compare(outputs, outputs, recipe, tolerance=TOLERANCES["bf16"])
        if not (informative.joints or informative.ambiguous) or (informative.joints or 0) >= MIN_JOINTS:
            break
        drawn = pictures(recipe, seed=seed, count=len(drawn) + POSE_COUNT)
        outputs = np.concatenate([outputs, run(drawn[len(outputs) :])])
    return drawn, outputs


def torch_outputs(net: Callable[[torch.Tensor], torch.Tensor], pictures: Pictures, recipe: Recipe) -> Floats:
    """Returns what a net over normalised pictures makes of uint8 ones, float32 (n, ...)."""
    import torch

    step = batch_size(recipe)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pictures), step):
            parts.append(net(normalised(pictures[start : start + step], recipe)).numpy())
    return np.concatenate(parts)


def session_outputs(session: Session, pictures: Pictures) -> Array:
    """Returns the one output of a session for all pictures, and for those that fill up the last batch.

    Pictures begin anew until the last batch is full, so that every slot of a batch is seen at work: the n-th output is
    that of picture `n % len(pictures)`.
    """
    return np.stack([output for _, output in slot_outputs(session, pictures)])


def graph_outputs(model: ModelProto, config: EngineConfig, pictures: Pictures) -> Array:
    """Returns what an engine compiled from a graph makes of all pictures."""
    with _compiled(model, config) as session:
        return session_outputs(session, pictures)


def run_graph(model: ModelProto, config: EngineConfig, inputs: Iterable[Array]) -> Array:
    """Returns the one output of a graph for each of its inputs, concatenated."""
    with _compiled(model, config) as session:
        (given,), (made,) = session.inputs, session.outputs
        return np.concatenate([session.run({given.name: value})[made.name] for value in inputs])


@contextmanager
def _compiled(model: ModelProto, config: EngineConfig) -> Iterator[Session]:
    import onnx

    with TemporaryDirectory(prefix="scalenas-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        with get_backend(config.target.backend).compile(path, config) as session:
            yield session


def rung_line(rung: Rung) -> str:
    """Returns a rung as one line of text."""
    figures = rung.comparison
    parts = [f"relative {figures.relative:.2e}"] if figures.stage == "undecoded" else []
    if figures.joint_shift_p99 is not None:
        parts.append(f"joint shift p99 {figures.joint_shift_p99:.3f} px ({joints_text(figures)})")
    if figures.class_agreement is not None:
        parts.append(f"classes agree {figures.class_agreement:.3%}")
    if figures.score_error is not None:
        parts.append(f"scores {figures.score_error:.2e}")
    verdict = "ok" if rung.verdict.passed else "FAILED"
    if rung.verdict.passed and not rung.verdict.informative and figures.joints is not None:
        blind = figures.stage == "decoded" and figures.score_error is None
        verdict = "ok, nothing judged" if blind else "ok, joints not informative"
    return f"{rung.name:<38} {verdict}: {', '.join(parts) or 'nothing to judge'}"


def _unused(folder: Path) -> Path:
    """Returns a folder that is not there: the one asked for, or that with a number. Evidence is never replaced."""
    free, number = folder, 1
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _located(culprit: Culprit, picture: int) -> str:
    """Returns where a failure comes from; what goes wrong in the search must not hide the failure itself."""
    try:
        return f"; {culprit(picture)}"
    except Exception as error:
        return f" (could not be located: {' '.join(str(error).split()) or type(error).__name__})"


def _is_convolution(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Conv2d)


def _with_inputs(probe: Probe, feeds: Mapping[str, Array]) -> Probe:
    """Returns a probe that also gives the graph's inputs."""

    def both(names: list[str] | tuple[str, ...]) -> dict[str, Array]:
        inner = [name for name in names if name not in feeds]
        found = probe(inner) if inner else {}
        return {name: feeds[name] if name in feeds else found[name] for name in names}

    return both  # type: ignore[return-value]
