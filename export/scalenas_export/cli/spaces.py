"""`spaces`: families and named nets with their cost, or one net in detail."""

from __future__ import annotations

from pathlib import Path

import click

from scalenas_export.cli.common import SIZE, emit, note, verb
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError


@verb("spaces")
@click.argument("spec", required=False)
@click.option("--size", type=SIZE, help="Input height x width, multiples of 32.")
@click.option("--task", help="pose or segmentation.")
@click.option("--width", type=int, help="Channels of the first branch, even.")
@click.option("--joints", type=int, help="Joints of a pose net.")
@click.option("--classes", type=int, help="Classes of a segmentation net.")
@click.option(
    "--counting",
    type=click.Choice(["published", "live"]),
    default="published",
    show_default=True,
    help="Count dead blocks as the papers do, or only what is built.",
)
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), help="Write the spec to a JSON file.")
def command(  # noqa: PLR0913
    *,
    spec: str | None,
    size: tuple[int, int] | None,
    task: str | None,
    width: int | None,
    joints: int | None,
    classes: int | None,
    counting: str,
    write: Path | None,
    as_json: bool,
) -> None:
    """List families and named nets with parameters and MACs, or show SPEC, a net's name or a spec file.

    Without SPEC every net is counted at its published input size unless --size is given.
    """
    from scalenas import names, overview
    from scalenas.cost import LIVE, PUBLISHED
    from scalenas.registry import usable_spaces

    chosen = LIVE if counting == "live" else PUBLISHED
    overrides: dict[str, int | None] = {"width": width, "joints": joints, "classes": classes}
    if spec is None:
        if write is not None or task is not None or any(value is not None for value in overrides.values()):
            raise UserError(
                "--write, --task, --width, --joints and --classes need a SPEC: scalenas-export spaces SPEC ..."
            )
        broken = usable_spaces()[1]
        for line in broken:
            note(f"left out: {line}")
        families = overview.families()
        nets = overview.named_nets(size=size, counting=chosen)
        value: dict[str, Json] = {"counting": counting, "families": [*families], "nets": [*nets], "broken": [*broken]}
        emit(value, overview.list_text(families, nets, counting), as_json=as_json)
        return
    found = names.resolve_spec(spec, task=task, size=size, width=width, joints=joints, classes=classes)
    detail = overview.net_detail(found, counting=chosen)
    if write is not None:
        found.write(write)
        note(f"wrote {write}")
    emit(detail, overview.detail_text(spec, detail, counting), as_json=as_json)
