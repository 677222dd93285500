"""`export`: a spec and weights become a verified bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from scalenas_export.cli.common import STATISTICS, emit, note, parse_size, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas.spec import SubnetSpec
    from scalenas.transferred_statistics import Rule
    from scalenas_export.calibration import Calibration
    from scalenas_export.export_bundle import ExportRequest
    from scalenas_export.packing import IoForm, Report
    from scalenas_export.weight_sources import FoundWeights
    from scalenas_runtime.tasks import Recipe

FAILURES = Path("runs") / "export" / "failures"
# The largest that generators of random numbers take.
MAX_SEED = 2**63 - 1
# Of described data; more change nothing (`benchmarks/bench_recalibration.py`).
DATA_PICTURES = 64


@verb("export")
@click.argument("spec", metavar="SPEC")
@click.option(
    "--weights", help="W.safetensors, a public checkpoint X.pth (with --recipe), or the name of shipped ones."
)
@click.option("--target", multiple=True, required=True, help="backend:device/precision; may be given several times.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle to write: a folder, or FILE.zip.")
@click.option("--size", metavar="HxW", help="Input height x width.")
@click.option("--batch", multiple=True, type=click.IntRange(1, 1024), help="A further graph of this batch size.")
@click.option("--io", multiple=True, type=click.Choice(["raw", "end2end"]), help="end2end adds a graph that decodes.")
@click.option(
    "--calibration",
    metavar="DIR|D.yaml|synthetic|none",
    help="Pictures for BN statistics: of a folder, of the `calibrate` part of described data, or drawn (the default).",
)
@click.option("--data-root", help="Folder that the paths in a D.yaml start at.")
@click.option("--statistics", type=click.Choice(["transferred", "measured"]), help=STATISTICS)
@click.option("--recipe", help="Task recipe: a JSON file, or the name that a .pth is imported by (hrnet-pose, ...).")
@click.option("--joints", help="Joint set of a pose net, such as coco-17.")
@click.option("--classes", help="Class set of a segmentation net, such as camvid-11.")
@click.option("--task", type=click.Choice(["pose", "segmentation"]), help="Task of `max`, `min` or a family's net.")
@click.option("--width", type=int, help="Channels of the first branch.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Seed of random weights.")
@click.option("--name", help="What the net is called; SPEC by default.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle if it exists.")
def command(*, as_json: bool, **options: object) -> None:
    """Turn SPEC and weights into a verified bundle.

    SPEC is a name (`scalenas-export spaces` lists them) or a spec file. Every step from the net to each engine is
    compared with the one before; exit code 4 where two disagree. Without --weights the weights are random.
    """
    from scalenas_export.extras import need_export_extra

    need_export_extra()
    from scalenas_export.export_bundle import export_bundle

    request = _request(options)
    report = export_bundle(request, progress=note)
    emit(report_json(report), report_text(report), as_json=as_json)


def report_json(report: Report) -> Json:
    """Returns an export's report as JSON values."""
    from scalenas_runtime.records import to_plain

    return {
        "out": str(report.out),
        "rungs": [cast(Json, to_plain(rung)) for rung in report.rungs],
        "seconds": dict(report.seconds),
        "sizes": dict(report.sizes),
        "warnings": list(report.warnings),
    }


def report_text(report: Report) -> str:
    """Returns an export's report as tables of rungs, sizes and times."""
    from scalenas_runtime.bundle.readme import parity_rows
    from scalenas_runtime.parity import ParityRecord

    rungs = table(
        ("step", "max abs", "relative", "agreement", "verdict"), parity_rows(ParityRecord(rungs=report.rungs))
    )
    sizes = table(("file or engine", "MB"), [[name, f"{size / 1e6:.1f}"] for name, size in report.sizes.items()])
    seconds = {**report.seconds, "total": sum(report.seconds.values())}
    times = table(("step", "seconds"), [[name, f"{value:.1f}"] for name, value in seconds.items()])
    warnings = "".join(f"warning: {text}\n" for text in report.warnings)
    return f"{rungs}\n\n{sizes}\n\n{times}\n\n{warnings}wrote {report.out}\n"


def _request(options: dict[str, object]) -> ExportRequest:
    from scalenas_export.export_bundle import ExportRequest
    from scalenas_export.packing import Wanted, check_targets
    from scalenas_export.recipes import check_file, read_recipe_file, spec_recipe
    from scalenas_export.weight_sources import find_weights
    from scalenas_runtime.targets import Target

    def text(name: str) -> str | None:
        return cast("str | None", options[name])

    targets = tuple(Target.parse(each) for each in cast("tuple[str, ...]", options["target"]))
    check_targets(targets)
    joints, classes, recipe, weights = (text(name) for name in ("joints", "classes", "recipe", "weights"))
    if joints and classes:
        raise UserError("--joints is for pose, --classes for segmentation: give one")
    of_file = read_recipe_file(Path(recipe)) if recipe and recipe.endswith(".json") else None
    size = _size(cast("str | None", options["size"]), cast(str, options["spec"]), of_file)
    if recipe and of_file is None and not weights:
        raise UserError(f"--recipe {recipe} says how a checkpoint is imported: give it with --weights, or name R.json")
    found = find_weights(weights, importer=None if of_file else recipe, size=size) if weights else None
    spec = _spec(cast(str, options["spec"]), found, size, options)
    if of_file is None:
        chosen = spec_recipe(spec, given=found.weights.recipe if found else None, names=joints or classes)
    else:
        chosen = spec_recipe(spec, given=of_file)
        check_file(of_file, Path(cast(str, recipe)), size=(chosen.height, chosen.width), names=joints or classes)
    wanted = Wanted(
        name=text("name") or Path(cast(str, options["spec"])).stem,
        targets=targets,
        out=cast(Path, options["out"]),
        batches=cast("tuple[int, ...]", options["batch"]),
        io=cast("tuple[IoForm, ...]", tuple(dict.fromkeys(("raw", *cast("tuple[str, ...]", options["io"]))))),
        overwrite=cast(bool, options["overwrite"]),
    )
    return ExportRequest(
        spec=spec,
        recipe=chosen,
        wanted=wanted,
        weights=found,
        calibration=_calibration(text("calibration"), text("data_root"), chosen),
        statistics=cast("Rule | None", options["statistics"]),
        seed=cast(int, options["seed"]),
        failures=FAILURES,
    )


def _calibration(text: str | None, root: str | None, recipe: Recipe) -> str | Calibration | None:
    from scalenas_export.search.data import DataSource
    from scalenas_export.search.evaluator import CalibrationPictures

    if text is None or Path(text).suffix not in (".yaml", ".yml"):
        if root is not None:
            raise UserError("--data-root is for --calibration D.yaml")
        return text
    return CalibrationPictures(DataSource(text, root), DATA_PICTURES)(recipe)


def _size(text: str | None, spec: str, of_file: Recipe | None) -> tuple[int, int] | None:
    """Returns the input size (height, width) that was asked for, None to leave it to the spec or the weights.

    Without --size it is the recipe file's, but where a spec file says one itself.
    """
    if text:
        return parse_size(text)
    if of_file is None or (spec.endswith(".json") and not _is_symbolic(Path(spec))):
        return None
    return of_file.height, of_file.width


def _is_symbolic(path: Path) -> bool:
    from scalenas.spec import SubnetSpec

    if not path.is_file():
        return False
    sizes = [size for shape in SubnetSpec.read(path).inputs.values() for size in shape]
    return any(isinstance(size, str) for size in sizes)


def _spec(
    text: str, found: FoundWeights | None, size: tuple[int, int] | None, options: Mapping[str, object]
) -> SubnetSpec:
    from scalenas import resolve_spec
    from scalenas_export.weight_sources import weights_spec
    from scalenas_runtime.tasks.sets import class_set, joint_set

    joints, classes = (cast("str | None", options[name]) for name in ("joints", "classes"))
    given = {
        "task": cast("str | None", options["task"]),
        "width": cast("int | None", options["width"]),
        "joints": len(joint_set(joints).joints) if joints else None,
        "classes": len(class_set(classes).classes) if classes else None,
    }
    if found is None:
        return resolve_spec(text, size=size, **given)  # type: ignore[arg-type]
    settings = {key: value for key, value in given.items() if value is not None}
    return weights_spec(text, found.weights, size=size, settings=settings)
