"""From a raw graph to a bundle: simplify, add forms and batches, build engines, prove every one, write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Literal

import numpy as np

from scalenas_export.graphs import dtype_name, opset_version, static_shape, with_batch
from scalenas_export.io_forms import check_end2end, end2end_form
from scalenas_export.ladder import REFERENCE, Culprit, Floats, Ladder, graph_outputs, session_outputs
from scalenas_export.simplify import TOLERANCE, simplify
from scalenas_runtime.backends import get_backend
from scalenas_runtime.bundle import BundleContents, ModelFile, Provenance, model_api_keys, write_bundle
from scalenas_runtime.bundle.engines import FILES, build_engine, place_of
from scalenas_runtime.bundle.places import check_place
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.golden import Golden, decode_outputs
from scalenas_runtime.parity import Rung, tolerance_of
from scalenas_runtime.session import Array, TensorSpec
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import Recipe

if TYPE_CHECKING:
    from onnx import ModelProto

IoForm = Literal["raw", "end2end"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the bundle shall hold.

    Attributes:
        name: What the net is called.
        targets: Engines to build, on this machine.
        out: A folder, or a file `.zip`.
        batches: Further batch sizes beside 1.
        io: `raw`, which is always there, and perhaps `end2end`.
        overwrite: Replace `out`.
    """

    name: str
    targets: tuple[Target, ...]
    out: Path
    batches: tuple[int, ...] = ()
    io: tuple[IoForm, ...] = ("raw",)
    overwrite: bool = False


@dataclass(slots=True)
class Report:
    """What an export did.

    Attributes:
        out: The bundle.
        rungs: The parity ladder.
        seconds: Wall time of each step.
        sizes: Size in bytes of each graph and engine.
        warnings: What the user should know.
    """

    out: Path
    rungs: tuple[Rung, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the wall time of the block to the step's."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0.0) + time.monotonic() - started, 3)


def check_targets(targets: Sequence[Target]) -> None:
    """Accepts targets that can be built on this machine.

    Raises:
        UserError: none, or one whose backend, package, device or precision is not here.
    """
    if not targets:
        raise UserError("name at least one target, such as --target onnxruntime:cpu/fp32")
    for target in targets:
        place_of(EngineConfig(target), "model.onnx", "0" * 64)
        tolerance_of(target.precision)


def check_wanted(wanted: Wanted, recipe: Recipe) -> None:
    """Accepts what can be built here, before any work is done.

    Raises:
        UserError: no target; a target whose backend, device or precision is not here; a form that cannot carry the
            recipe; a batch size out of range; or `out` is taken.
        OSError: nothing can be written beside `out`.
    """
    check_targets(wanted.targets)
    if wrong := [batch for batch in wanted.batches if not 1 <= batch <= 1024]:
        raise UserError(f"batch {wrong[0]} is outside 1..1024")
    if "end2end" in wanted.io:
        check_end2end(recipe)
    check_place(wanted.out, overwrite=wanted.overwrite)
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    Path(mkdtemp(prefix=f".{wanted.out.name}.", dir=wanted.out.parent)).rmdir()


@dataclass(frozen=True, slots=True)
class Net:
    """A graph in raw form with all that a manifest says of it.

    Attributes:
        raw: The unsimplified graph, batch 1.
        outputs: float32 (n, ...): what the fp32 reference makes of the ladder's pictures.
        reference: What that reference is, in words.
        provenance: Origin of weights and settings.
        spec: The spec as JSON, if there is one.
        digests: SHA-256 of what the graph was made from.
        records: Further records for the bundle.
    """

    raw: ModelProto
    outputs: Floats
    reference: str
    provenance: Provenance
    spec: Mapping[str, Json] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    records: Mapping[str, Json] = field(default_factory=dict)


def pack(net: Net, ladder: Ladder, wanted: Wanted, report: Report) -> Report:
    """Writes the bundle and returns the report; on any error nothing is left behind.

    Raises:
        CheckFailed: a rung of the ladder failed.
        UserError: an engine refuses the graph, no batch of that size or no form is possible, or a graph is not valid.
        OSError: the place is read-only or the disk is full.
    """
    model = _simplified(net.raw, ladder, report)
    recipe = ladder.recipe
    for key, value in {**model_api_keys(recipe), "model_name": wanted.name}.items():
        model.metadata_props.add(key=f"model_info {key}", value=value)
    with TemporaryDirectory(prefix="scalenas-export-") as temporary:
        folder = Path(temporary)
        files = _graphs(model, net, ladder, wanted, report, folder)
        engines = _engines(files, net, ladder, wanted, report, folder)
        golden = Golden(ladder.pictures, net.outputs, decode_outputs(net.outputs, recipe))
        report.rungs = tuple(ladder.rungs)
        with report.timed("write"):
            contents = BundleContents(
                name=wanted.name,
                recipe=recipe,
                models=tuple(files),
                golden=golden,
                golden_reference=net.reference,
                provenance=net.provenance,
                spec=net.spec,
                digests=net.digests,
                engines=tuple(engines),
                parity=ladder.record,
                records={"export.json": _record(net, wanted, report)},
            )
            write_bundle(wanted.out, contents, overwrite=wanted.overwrite)
    return report


def tool_name() -> str:
    """Returns name and version of this package, as manifests state it."""
    from importlib.metadata import version

    return f"scalenas-export {version('scalenas-export')}"


def export_settings(model: ModelProto, wanted: Wanted, packages: tuple[str, ...]) -> dict[str, Json]:
    """Returns what a manifest says of how a graph was made: form, opset and the versions that took part."""
    from importlib.metadata import version

    return {
        "opset": opset_version(model),
        "ir_version": model.ir_version,
        "io": list(wanted.io),
        "batches": sorted({1, *wanted.batches}),
        "versions": {package: version(package) for package in packages},
    }


def _simplified(raw: ModelProto, ladder: Ladder, report: Report) -> ModelProto:
    sides = ("the unsimplified graph", "the simplified graph, ONNX Runtime fp32")
    with report.timed("simplify"):
        before = graph_outputs(raw, REFERENCE, ladder.pictures)
        done = simplify(
            raw,
            lambda model: ladder.compare(before, graph_outputs(model, REFERENCE, ladder.pictures), tolerance=TOLERANCE),
        )
    if done.warning:
        report.warnings.append(done.warning)
        ladder.progress(f"warning: {done.warning}")
    if done.comparison is not None and done.verdict is not None:
        ladder.add(
            "simplified" if not done.warning else "simplified (rolled back)",
            sides,
            done.comparison,
            TOLERANCE,
            done.verdict,
        )
    copy = type(raw)()
    copy.CopyFrom(done.model)
    return copy


def _graphs(
    model: ModelProto, net: Net, ladder: Ladder, wanted: Wanted, report: Report, folder: Path
) -> list[ModelFile]:
    import onnx

    graphs: list[tuple[int, IoForm, ModelProto]] = [(1, "raw", model)]
    graphs += [(batch, "raw", with_batch(model, batch)) for batch in sorted(set(wanted.batches) - {1})]
    if "end2end" in wanted.io:
        forms = [end2end_form(graph, ladder.recipe) for _, _, graph in graphs]
        graphs += [(batch, "end2end", form) for (batch, _, _), form in zip(list(graphs), forms, strict=True)]
    files = []
    for batch, io, graph in graphs:
        config = EngineConfig(REFERENCE.target, batch=batch, io=io)
        inputs = tuple(TensorSpec(item.name, dtype_name(item), static_shape(item)) for item in graph.graph.input)
        outputs = tuple(TensorSpec(item.name, dtype_name(item), static_shape(item)) for item in graph.graph.output)
        path = folder / f"graph-{batch}-{io}.onnx"
        path.write_bytes(graph.SerializeToString(deterministic=True))
        try:
            onnx.checker.check_model(str(path))
        except onnx.checker.ValidationError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"the graph of batch {batch} and io {io} is not valid ONNX: {reason}") from None
        file = ModelFile(path, inputs, outputs, batch, io)
        report.sizes[file.name] = path.stat().st_size
        files.append(file)
        if (batch, io) != (1, "raw"):
            with report.timed("forms"), get_backend("onnxruntime").compile(path, config) as session:
                _climb(
                    net, ladder, f"{file.name}, ONNX Runtime fp32", config, session_outputs(session, ladder.pictures)
                )
    return files


def _engines(
    files: list[ModelFile], net: Net, ladder: Ladder, wanted: Wanted, report: Report, folder: Path
) -> list[Path]:
    import onnx

    store = folder / "engines"
    store.mkdir()
    built = []
    for target in dict.fromkeys(wanted.targets):
        for file in files:
            config = EngineConfig(target, batch=file.batch, io=file.io)
            label = (
                f"{target}{'' if file.batch == 1 else f' batch {file.batch}'}{'' if file.io == 'raw' else ' end2end'}"
            )
            with report.timed(f"engine {target}"):
                ladder.progress(f"building {label}")
                engine = build_engine(file.path, place_of(config, file.name, file_sha256(file.path)), store)
                with get_backend(target.backend).load(engine / FILES, config) as session:
                    outputs = session_outputs(session, ladder.pictures)
            tolerance = tolerance_of(target.precision).relative
            graph = onnx.load(file.path)
            culprit = ladder.where_engines_part(graph, graph, EngineConfig(target), rung=label, tolerance=tolerance)
            _climb(
                net, ladder, label, config, outputs, culprit=culprit if (file.batch, file.io) == (1, "raw") else None
            )
            report.sizes[label] = sum(part.stat().st_size for part in engine.rglob("*") if part.is_file())
            built.append(engine)
    return built


def _climb(
    net: Net, ladder: Ladder, label: str, config: EngineConfig, outputs: Array, *, culprit: Culprit | None = None
) -> None:
    """Compares an engine's outputs, one for each slot of its batches, undecoded where it gives them, then decoded."""
    expected = net.outputs[np.arange(len(outputs)) % len(net.outputs)]
    tolerance = tolerance_of(config.target.precision)
    sides = (net.reference, label)
    results = outputs
    if config.io == "raw":
        ladder.climb(label, sides, (expected, outputs), tolerance=tolerance, culprit=culprit)
        results = decode_outputs(outputs, ladder.recipe)
    right = decode_outputs(expected, ladder.recipe)
    ladder.climb(label, sides, (right, results), tolerance=tolerance, stage="decoded", heatmaps=expected)


def _record(net: Net, wanted: Wanted, report: Report) -> Json:
    return {
        **net.records,
        "seconds": dict(report.seconds),
        "sizes": dict(report.sizes),
        "warnings": list(report.warnings),
        "targets": [str(target) for target in wanted.targets],
        "machine": fingerprint(),
    }
