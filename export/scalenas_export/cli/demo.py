"""`demo`: the whole chain on pictures drawn here."""

from __future__ import annotations

import time
from pathlib import Path

import click

from scalenas_export.cli.common import emit, note, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.canonical import Json


@verb("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Folder to fill.")
def command(*, out: Path, as_json: bool) -> None:
    """Export, verify and run a small pose and a small segmentation net.

    Weights are random and pictures are drawn, so nothing is downloaded and the results mean nothing; every step is
    the one that trained weights and photographs go through.
    """
    from scalenas_export.extras import need_export_extra

    need_export_extra()
    from scalenas_export.demo import show, usable_targets

    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    targets = usable_targets(note)
    shown = [show(task, out, targets, note) for task in ("pose", "segmentation")]
    rows = [row for each in shown for row in each.rows]
    lines = [
        table(("task", "target", "engine MB", "relative error", "golden pictures"), rows),
        "",
        "The weights are random: what the overlays show means nothing yet.",
        *(f"{each.task}: bundle {each.bundle}, picture {each.picture}, overlay {each.overlay}" for each in shown),
        f"{time.monotonic() - started:.0f} seconds",
    ]
    value: dict[str, Json] = {
        "targets": [str(target) for target in targets],
        "rows": [list(row) for row in rows],
        "bundles": [str(each.bundle) for each in shown],
        "overlays": [str(each.overlay) for each in shown],
        "weights": "random",
    }
    emit(value, "\n".join(lines) + "\n", as_json=as_json)
