"""Any ONNX file with a recipe: the same input form, ladder, engines and bundle as our own nets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalenas_export.calibration import normalised_array
from scalenas_export.graph_names import free_reserved_names, rename
from scalenas_export.graphs import drop_unused, dtype_name, static_shape
from scalenas_export.io_forms import INPUT, check_forms, output_name, raw_form
from scalenas_export.ladder import (
    REFERENCE,
    Floats,
    Ladder,
    Pictures,
    golden_pictures,
    graph_outputs,
    run_graph,
)
from scalenas_export.model_files import model_digest
from scalenas_export.packing import Net, Report, Wanted, check_wanted, export_settings, pack, tool_name
from scalenas_runtime.bundle import Provenance, WeightsEntry
from scalenas_runtime.errors import UserError
from scalenas_runtime.parity import tolerance_of
from scalenas_runtime.tasks import Recipe

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """A third party's net to bundle.

    Attributes:
        model: The ONNX file: one picture in, as float NCHW that is normalised, or as uint8 NHWC BGR.
        recipe: The task.
        wanted: What the bundle shall hold.
        output: Name of the output to keep, where the graph has several.
        licence: Licence of the weights.
        failures: Where pieces of a failed rung are saved.
    """

    model: Path
    recipe: Recipe
    wanted: Wanted
    output: str | None = None
    licence: str = "unknown"
    failures: Path = Path("runs/bundle/failures")


def bundle_model(request: BundleRequest, *, progress: Callable[[str], None]) -> Report:
    """Writes a verified bundle of a third party's net and returns what was done.

    Raises:
        UserError: the file is no ONNX graph that fits the recipe; the text gives the shapes.
        CheckFailed: a rung of the parity ladder failed.
        OSError: the place is read-only or the disk is full.
    """
    recipe, wanted = request.recipe, request.wanted
    check_wanted(wanted, recipe)
    report = Report(wanted.out)
    with report.timed("read"):
        given = read_model(request.model, recipe, output=request.output)
        is_float = dtype_name(given.graph.input[0]) != "uint8"
        raw = raw_form(given, recipe) if is_float else given
        _name_values(raw, recipe)
        check_forms(raw, recipe)

    def run(pictures: Pictures) -> Floats:
        if not is_float:
            return np.asarray(graph_outputs(raw, REFERENCE, pictures), np.float32)
        feeds = [normalised_array(pictures[index : index + 1], recipe) for index in range(len(pictures))]
        return np.asarray(run_graph(given, REFERENCE, feeds), np.float32)

    with report.timed("golden"):
        pictures, outputs = golden_pictures(recipe, run)
    ladder = Ladder(recipe, pictures, progress, request.failures)
    reference = f"{request.model.name} in ONNX Runtime fp32"
    if is_float:
        with report.timed("input form"):
            made = graph_outputs(raw, REFERENCE, pictures)
        ladder.climb(
            "input form", (reference, "the graph over pictures"), (outputs, made), tolerance=tolerance_of("fp32")
        )
    sha256 = model_digest(request.model)
    provenance = Provenance(
        tool=tool_name(),
        weights=WeightsEntry(source=request.model.name, licence=request.licence, digest=sha256),
        export=export_settings(raw, wanted, ("onnx", "onnxsim")),
    )
    net = Net(raw, outputs, reference, provenance, None, {"model": sha256})
    return pack(net, ladder, wanted, report)


def read_model(path: Path, recipe: Recipe, *, output: str | None = None) -> ModelProto:
    """Returns an ONNX file as a graph of one picture, with every size fixed to the recipe's.

    None of its values has a name that our input and output forms use.

    Raises:
        UserError: the file is no ONNX graph, or its input or output is not what the recipe needs.
    """
    import onnx

    if not path.is_file():
        raise UserError(f"there is no ONNX file {path}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's own errors have no home that every version shares
        raise UserError(f"{path} is not a usable ONNX file: {' '.join(str(error).split())[:300]}") from None
    graph = model.graph
    initialisers = {item.name for item in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initialisers]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UserError(f"{path} must have one input, a picture; it has {len(inputs)}: {names}")
    kept = [type(value).FromString(value.SerializeToString()) for value in inputs]
    del graph.input[:]
    graph.input.extend(kept)
    _choose_output(model, path, output)
    _fix_sizes(graph.input[0], path, recipe)
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise UserError(
            f"{path} does not take pictures of the recipe's size: {' '.join(str(error).split())[:300]}"
        ) from None
    static_shape(inferred.graph.output[0])
    del inferred.graph.value_info[:]
    free_reserved_names(inferred)
    return inferred


def _choose_output(model: ModelProto, path: Path, wanted: str | None) -> None:
    graph = model.graph
    names = [value.name for value in graph.output]
    if wanted is None and len(names) == 1:
        return
    if wanted not in names:
        asked = "several outputs; choose one with --output" if wanted is None else f"no output {wanted!r}"
        raise UserError(f"{path} has {asked}: {', '.join(names)}")
    chosen = next(value for value in graph.output if value.name == wanted)
    copy = type(chosen).FromString(chosen.SerializeToString())
    del graph.output[:]
    graph.output.append(copy)
    drop_unused(graph)


def _fix_sizes(value: ValueInfoProto, path: Path, recipe: Recipe) -> None:
    shape = value.type.tensor_type.shape
    kind = dtype_name(value)
    layouts = {
        "float32": (1, 3, recipe.height, recipe.width),
        "uint8": (1, recipe.height, recipe.width, 3),
    }
    wanted = layouts.get(kind)
    if wanted is None or len(shape.dim) != 4:
        raise UserError(
            f"{path}: the input {value.name!r} is {kind} with {len(shape.dim)} axes; normalised float32 "
            "(B, 3, H, W) or uint8 (B, H, W, 3) is needed"
        )
    for axis, (dimension, size) in enumerate(zip(shape.dim, wanted, strict=True)):
        free = not dimension.HasField("dim_value") or dimension.dim_value <= 0
        if not free and dimension.dim_value != size:
            found = [item.dim_value or item.dim_param for item in shape.dim]
            what = "batch 1 is needed" if axis == 0 else f"the recipe's pictures are {kind} {wanted}"
            raise UserError(f"{path}: the input {value.name!r} has the shape {found}; {what}")
        dimension.dim_value = size


def _name_values(model: ModelProto, recipe: Recipe) -> None:
    """Gives input and output the names that our clients look for, in place."""
    graph = model.graph
    wanted = {graph.input[0].name: INPUT, graph.output[0].name: output_name(recipe)}
    rename(model, {old: new for old, new in wanted.items() if old != new})
