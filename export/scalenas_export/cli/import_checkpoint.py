"""`import-checkpoint`: a public checkpoint becomes a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from scalenas_export.cli.common import emit, parse_size, verb
from scalenas_export.cli.export import MAX_SEED
from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import to_plain

if TYPE_CHECKING:
    from scalenas.importing import Imported, ImportOptions


@verb("import-checkpoint")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--family", default="scalenas", show_default=True, help="Family that the net becomes a member of.")
@click.option("--recipe", required=True, help="Whose checkpoint it is: hrnet-pose, hrnet-seg, mmpose, dark, udp, ...")
@click.option(
    "--as", "as", type=click.Choice(["static", "supernet"]), default="static", show_default=True,
    help="One net, or a supernet that has it as a member.",
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Weights file to write (.safetensors).")
@click.option("--size", metavar="HxW", help="Input height x width, the recipe's own unless given.")
@click.option("--width", type=int, help="Refuse a checkpoint of any other base width.")
@click.option("--names", help="Joint or class set, such as coco-17 or cityscapes-19.")
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Seed of tensors that the checkpoint lacks.",
)
@click.option("--overwrite", is_flag=True, help="Replace the weights file if it exists.")
def command(*, file: Path, out: Path, overwrite: bool, as_json: bool, **options: object) -> None:
    """Turn a public HRNet checkpoint into a weights file.

    FILE is a .pth or .safetensors file. Only its tensors are read: classes of training frameworks are neither
    imported nor called. Tensors that are missing, surplus or of another shape are listed, and nothing is written.
    """
    from scalenas.importing import import_checkpoint
    from scalenas.weights import save_weights

    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already; name another file or pass --overwrite")
    imported = import_checkpoint(file, _chosen(options))
    save_weights(out, imported.weights, overwrite=overwrite)
    report = _report(out, imported)
    emit(report, _text(report), as_json=as_json)


def _chosen(options: dict[str, object]) -> ImportOptions:
    from scalenas.importing import ImportOptions

    size = cast("str | None", options["size"])
    return ImportOptions(
        family=cast(str, options["family"]),
        recipe=cast(str, options["recipe"]),
        kind=cast(Literal["static", "supernet"], options["as"]),
        size=None if size is None else parse_size(size),
        width=cast("int | None", options["width"]),
        names=cast("str | None", options["names"]),
        seed=cast(int, options["seed"]),
    )


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
    spec, recipe, provenance = (cast(dict[str, Json], report[key]) for key in ("spec", "recipe", "provenance"))
    settings = cast(dict[str, Json], spec["settings"])
    lines = [
        f"{report['out']}: {report['kind']}, {report['tensors']} tensors, weights {str(report['digest'])[:12]}",
        "net:",
        *_lines({**settings, "input": cast(dict[str, Json], spec["inputs"])["image"]}),
        "recipe:",
        *_lines(recipe),
        f"skipped: {len(cast(list[Json], report['skipped']))} tensors of training (counters, losses)",
    ]
    if report["kind"] == "supernet":
        seed = provenance["seed"]
        lines.append(f"initialised: {report['initialised']} tensors that the checkpoint does not have (seed {seed})")
    return "\n".join(lines) + "\n"


def _lines(values: dict[str, Json]) -> list[str]:
    return [f"  {key}: {canonical_json(value)}" for key, value in values.items()]
