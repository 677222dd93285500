"""`bundle`: any ONNX file and a recipe become a verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from scalenas_export.cli.common import emit, note, verb
from scalenas_export.cli.export import report_json, report_text

if TYPE_CHECKING:
    from scalenas_export.packing import IoForm

FAILURES = Path("runs") / "bundle" / "failures"


@verb("bundle")
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="Task recipe: a JSON file.")
@click.option("--target", multiple=True, required=True, help="backend:device/precision; may be given several times.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle to write: a folder, or FILE.zip.")
@click.option("--batch", multiple=True, type=click.IntRange(1, 1024), help="A further graph of this batch size.")
@click.option("--io", multiple=True, type=click.Choice(["raw", "end2end"]), help="end2end adds a graph that decodes.")
@click.option("--output", help="The output to keep, where the graph has several.")
@click.option("--name", help="What the net is called; the file's name by default.")
@click.option("--licence", default="unknown", show_default=True, help="Licence of the weights: SPDX or a short text.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle if it exists.")
def command(  # noqa: PLR0913 - one parameter per option
    *,
    model: Path,
    recipe: Path,
    target: tuple[str, ...],
    out: Path,
    batch: tuple[int, ...],
    io: tuple[str, ...],
    output: str | None,
    name: str | None,
    licence: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn MODEL.onnx and a recipe into a verified bundle.

    The graph takes one picture: normalised float32 (B, 3, H, W), or uint8 (B, H, W, 3) BGR. It gives heatmaps or
    logits; the recipe says of which size. Exit code 4 where two steps disagree.
    """
    from scalenas_export.extras import need_export_extra

    need_export_extra()
    from scalenas_export.packing import Wanted, check_targets
    from scalenas_export.recipes import read_recipe_file
    from scalenas_export.third_party import BundleRequest, bundle_model
    from scalenas_runtime.targets import Target

    targets = tuple(Target.parse(each) for each in target)
    check_targets(targets)
    forms = cast("tuple[IoForm, ...]", tuple(dict.fromkeys(("raw", *io))))
    wanted = Wanted(name or model.stem, targets, out, batch, forms, overwrite)
    request = BundleRequest(model, read_recipe_file(recipe), wanted, output, licence, FAILURES)
    report = bundle_model(request, progress=note)
    emit(report_json(report), report_text(report), as_json=as_json)
