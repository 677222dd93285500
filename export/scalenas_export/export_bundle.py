"""From a spec and weights to a verified bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scalenas_export.calibration import NONE, SYNTHETIC, Calibration, batch_size, calibration_pictures
from scalenas_export.folding import fold
from scalenas_export.io_forms import output_name, raw_form
from scalenas_export.ladder import REFERENCE, Floats, Ladder, Pictures, golden_pictures, graph_outputs, torch_outputs
from scalenas_export.onnx_export import to_onnx
from scalenas_export.packing import Net, Report, Wanted, check_wanted, export_settings, pack, tool_name
from scalenas_export.recipes import check_output
from scalenas_export.weight_sources import RANDOM, FoundWeights
from scalenas_runtime.bundle import Provenance, WeightsEntry
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.parity import EXACT, compare, tolerance_of
from scalenas_runtime.records import to_plain
from scalenas_runtime.tasks import Recipe

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

    from scalenas.spec import SubnetSpec
    from scalenas.static import StaticNet
    from scalenas.supernet import Supernet
    from scalenas.transferred_statistics import Rule

FP32 = tolerance_of("fp32")
# Nothing is gained by measuring random weights as carefully as trained ones.
RANDOM_PICTURES = 16
PACKAGES = ("torch", "onnx", "onnxscript", "onnxsim")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export.

    Attributes:
        spec: The net, of a fixed size.
        recipe: The task, at the spec's size.
        wanted: What the bundle shall hold.
        weights: Weights of the net or of a supernet that has it; None for random ones.
        calibration: Pictures for BN statistics of random weights and of those from a supernet: `synthetic`, a
            directory, `none`, or the pictures themselves; None for `synthetic` where they are needed.
        statistics: How BN statistics of a net out of a supernet come from these pictures; None for `transferred`
            where `train` made the supernet, else `measured`.
        seed: Seed of random weights.
        failures: Where pieces of a failed rung are saved.
    """

    spec: SubnetSpec
    recipe: Recipe
    wanted: Wanted
    weights: FoundWeights | None = None
    calibration: str | Calibration | None = None
    statistics: Rule | None = None
    seed: int = 0
    failures: Path = Path("runs/export/failures")


@dataclass(frozen=True, slots=True)
class _Source:
    """A static net ready for export, and how it came to be."""

    net: StaticNet
    supernet: Supernet | None
    entry: WeightsEntry
    calibration: Calibration | None
    records: dict[str, Json]


def export_bundle(request: ExportRequest, *, progress: Callable[[str], None]) -> Report:
    """Writes a verified bundle and returns what was done; on any error nothing is left behind.

    Args:
        request: What to export.
        progress: Takes lines about what is going on.

    Raises:
        UserError: a target that is not possible here, weights or a recipe that do not fit, or a place that is taken.
        CheckFailed: a rung of the parity ladder failed.
        OSError: the place is read-only or the disk is full.
    """
    from scalenas.registry import get_space

    recipe, wanted = request.recipe, request.wanted
    check_wanted(wanted, recipe)
    check_output(request.spec, recipe)
    report = Report(wanted.out)
    with report.timed("net"):
        source = _prepare(request, progress)
    if request.weights is None:
        report.warnings.append("the weights are random: results mean nothing")

    def reference(batch: Pictures) -> Floats:
        return torch_outputs(source.net, batch, recipe)

    with report.timed("golden"):
        pictures, outputs = golden_pictures(recipe, reference)
    ladder = Ladder(recipe, pictures, progress, request.failures)
    if source.supernet is not None:
        with report.timed("supernet"):
            records = _against_supernet(source, source.supernet, ladder, request, outputs)
            # Statistics decide how many pictures it takes until enough joints are clear.
            ladder.pictures, outputs = golden_pictures(recipe, reference)
        source.records.update(records)
    raw = _graph(source.net, ladder, outputs, report)
    spec, calibration = request.spec, source.calibration
    digests = {"spec": spec.digest, "live_spec": get_space(spec.space).live(spec).digest}
    if source.entry.digest:
        digests["weights"] = source.entry.digest
    if calibration:
        digests["calibration"] = calibration.entry.digest
    provenance = Provenance(
        tool=tool_name(),
        weights=source.entry,
        calibration=calibration.entry if calibration else None,
        export=export_settings(raw, wanted, PACKAGES),
    )
    net = Net(raw, outputs, "the fp32 static net (torch)", provenance, spec.to_json(), digests, source.records)
    return pack(net, ladder, wanted, report)


def _prepare(request: ExportRequest, progress: Callable[[str], None]) -> _Source:
    from scalenas import Supernet, Weights, extract, get_space, load_into, static_net
    from scalenas_export.random_nets import settle

    spec, found = request.spec, request.weights
    if request.statistics is not None and (found is None or found.weights.kind == "static"):
        raise UserError(f"--statistics {request.statistics} is for a net out of a supernet; these weights are of none")
    if request.statistics is not None and request.calibration == NONE:
        raise UserError(f"--statistics {request.statistics} needs pictures, and --calibration is {NONE}")
    if found is None:
        net = static_net(spec, seed=request.seed).eval()
        progress(f"weights: random (seed {request.seed})")
        count = min(RANDOM_PICTURES, 4 * batch_size(request.recipe))
        pictures = _pictures(request, count)
        if pictures is not None:
            settle(net, request.recipe, pictures, seed=request.seed)
        entry = WeightsEntry(
            source=RANDOM.source, licence=RANDOM.licence, notice=RANDOM.notice, digest=Weights.of(net).digest
        )
        return _Source(net, None, entry, pictures, {"seed": request.seed})
    progress(f"weights: {found.source} ({found.weights.kind}, {found.weights.digest[:12]})")
    if found.weights.kind == "static":
        if request.calibration not in (None, NONE):
            raise UserError(
                f"{found.source} holds the weights of one static net, which bring their BN statistics along; "
                "--calibration is for supernets and random weights"
            )
        net = static_net(spec)
        load_into(net, found.weights)
        return _Source(net.eval(), None, found.entry, None, {})
    supernet = Supernet(get_space(spec.space), found.weights.settings)
    load_into(supernet, found.weights)
    supernet.eval()
    pictures = _pictures(request, None)
    return _Source(extract(supernet, spec), supernet, found.entry, pictures, {})


def _pictures(request: ExportRequest, count: int | None) -> Calibration | None:
    if isinstance(request.calibration, Calibration):
        return request.calibration
    return calibration_pictures(request.calibration or SYNTHETIC, request.recipe, count=count)


def _against_supernet(
    source: _Source, supernet: Supernet, ladder: Ladder, request: ExportRequest, outputs: Floats
) -> dict[str, Json]:
    """Adds the rung that holds the static net against the supernet, then recalibrates the static net, in place."""
    from scalenas import get_space
    from scalenas.shared_recalibration import SharedRecalibration
    from scalenas.transferred_statistics import rule_for, statistics_by

    def member(batch: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", supernet(batch, request.spec))

    right = torch_outputs(member, ladder.pictures, ladder.recipe)
    ladder.climb("supernet vs static", ("the supernet", "the static net"), (right, outputs), tolerance=EXACT)
    if source.calibration is None:
        return {"recalibration": None}
    assert request.weights is not None
    weights, calibration, space = request.weights.weights, source.calibration, get_space(request.spec.space)
    rule = rule_for(weights, request.statistics)
    measure = SharedRecalibration(space, weights.settings, calibration.batches(ladder.recipe))
    count = statistics_by(rule, weights, space, measure)(source.net)
    after = torch_outputs(source.net, ladder.pictures, ladder.recipe)
    change = compare(outputs, after, ladder.recipe)
    ladder.progress(f"BN statistics {rule} with {count} pictures ({calibration.kind})")
    entry, moved = (cast(Json, to_plain(record)) for record in (calibration.entry, change))
    return {"recalibration": {"calibration": entry, "change": moved, "statistics": rule}}


def _graph(net: StaticNet, ladder: Ladder, outputs: Floats, report: Report) -> ModelProto:
    recipe = ladder.recipe
    with report.timed("fold"):
        folded = fold(net)
        made = torch_outputs(folded, ladder.pictures, recipe)
    sides = ("the static net", "the net with BN folded")
    ladder.climb(
        "BN folded",
        sides,
        (outputs, made),
        tolerance=FP32,
        culprit=ladder.where_modules_part(net, folded, FP32.relative),
    )
    with report.timed("onnx"):
        core = to_onnx(folded, (3, recipe.height, recipe.width), output=output_name(recipe))
        raw = raw_form(core, recipe)
        exported = graph_outputs(raw, REFERENCE, ladder.pictures)
    sides = ("the net with BN folded", "the ONNX graph, ONNX Runtime fp32")
    culprit = ladder.where_export_parts(folded, raw, rung="onnx", tolerance=FP32.relative)
    ladder.climb("ONNX unsimplified", sides, (made, exported), tolerance=FP32, culprit=culprit)
    return raw
