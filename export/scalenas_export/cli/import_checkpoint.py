"""`import-checkpoint`: a public checkpoint becomes a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from scalenas_export.cli.common import emit, parse_size, verb
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import to_plain

if TYPE_CHECKING:
    from scalenas.importing import Imported


@verb("import-checkpoint")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--family", default="scalenas", show_default=True, help="Family that the net becomes a member of.")
@click.option("--recipe", required=True, help="Whose checkpoint it is: hrnet-pose, hrnet-seg, mmpose, dark, udp, ...")
@click.option(
    "--as", "kind", type=click.Choice(["static", "supernet"]), default="static", show_default=True,
    help="One net, or a supernet that has it as a member.",
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Weights file to write (.safetensors).")
@click.option("--size", metavar="HxW", help="Input height x width, the recipe's own unless given.")
@click.option("--width", type=int, help="Refuse a checkpoint of any other base width.")
@click.option("--names", help="Joint or class set, such as coco-17 or cityscapes-19.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of tensors that the checkpoint lacks.")
@click.option("--overwrite", is_flag=True, help="Replace the weights file if it exists.")
def command(  # noqa: PLR0913 - one parameter per option
    *,
    file: Path,
    family: str,
    recipe: str,
    kind: str,
    out: Path,
    size: str | None,
    width: int | None,
    names: str | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn a public HRNet checkpoint into a weights file.

    FILE is a .pth or .safetensors file. Only its tensors are read: classes of training frameworks are neither
    imported nor called. Tensors that are missing, surplus or of another shape are listed, and nothing is written.
    """
    from scalenas.importing import ImportOptions, import_checkpoint
    from scalenas.weights import save_weights

    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already; name another file or pass --overwrite")
    pixels = None if size is None else parse_size(size)
    choice = cast(Literal["static", "supernet"], kind)
    options = ImportOptions(family, recipe, choice, size=pixels, width=width, names=names, seed=seed)
    imported = import_checkpoint(file, options)
    save_weights(out, imported.weights, overwrite=overwrite)
    report = _report(out, imported)
    emit(report, _text(report), as_json=as_json)


def _report(out: Path, imported: Imported) -> dict[str, Json]:
    weights = imported.weights
    assert weights.recipe is not None
    return {
        "out": str(out),
        "kind": weights.kind,
        "spec": imported.spec.to_json(),
        "digest": weights.digest,
        "tensors": len(weights.tensors),
        "skipped": list(imported.skipped),
        "initialised": len(imported.initialised),
        "recipe": cast(Json, to_plain(weights.recipe)),
        "provenance": weights.provenance,
    }


def _text(report: dict[str, Json]) -> str:
    spec = cast(dict[str, dict[str, Json]], report["spec"])
    shown = ("width", "modules", "joints", "classes", "fuse_upsample")
    settings = ", ".join(f"{key} {spec['settings'][key]}" for key in shown if key in spec["settings"])
    lines = [
        f"{report['out']}: {report['kind']}, {report['tensors']} tensors, weights {str(report['digest'])[:12]}",
        f"net: {spec['settings']['task']}, {settings}, input {spec['inputs']['image']}",
        f"skipped: {len(cast(list[Json], report['skipped']))} tensors of training (counters, losses)",
    ]
    if report["kind"] == "supernet":
        lines.append(
            f"initialised: {report['initialised']} tensors that the checkpoint does not have "
            f"(seed {cast(dict[str, Json], report['provenance'])['seed']})"
        )
    return "\n".join([*lines, "recipe:", pretty_json(report["recipe"]).rstrip()]) + "\n"
