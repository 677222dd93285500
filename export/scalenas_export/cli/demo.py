"""`demo`: the whole chain, from a shipped supernet to a picture."""

from __future__ import annotations

import time
from pathlib import Path

import click

from scalenas_export.cli.common import emit, note, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.errors import CheckFailed, NothingMeetsBudget


@verb("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder to fill: new, or an earlier demo's.",
)
@click.option("--weights", help="Supernet that is searched; the best shipped one.")
@click.option("--street-weights", help="A street supernet whose HRNet is exported too; seg-w16 where it is shipped.")
@click.option("--target", help="backend:device/precision; the fastest that works here.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=2.5, show_default=True)
@click.option("--n-trials", type=click.IntRange(min=1), help="Candidates; as many as there is time for.")
@click.option(
    "--latency-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="Budget; what the HRNet in the supernet takes, over 1.3.",
)
@click.option("--data", help="D.yaml whose calibrate and search splits candidates are judged on; drawn ones without.")
@click.option("--data-root", help="Folder that the paths in the data's description start at.")
@click.option("--limit", type=click.IntRange(min=1), help="Judge candidates on the first so many pictures.")
@click.option("--picture", "pictures", multiple=True, type=click.Path(path_type=Path), help="Run on this one too.")
def command(  # noqa: PLR0913 - one parameter per option
    *,
    out: Path,
    weights: str | None,
    street_weights: str | None,
    target: str | None,
    minutes: float,
    n_trials: int | None,
    latency_ms: float | None,
    data: str | None,
    data_root: str | None,
    limit: int | None,
    pictures: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Search a shipped supernet under a latency budget, export and verify the winner, and run it on a picture.

    Nothing is downloaded: without --data candidates are judged on pictures drawn here, so the accuracies say little
    about photographs. The HRNet inside the supernet is exported and measured beside the winner, and a street net beside
    both where there is one.
    """
    from scalenas_export.extras import need_search_extras

    need_search_extras()
    from scalenas.shipped import shipped_weights
    from scalenas_export.demo import HEADS, STREET_WEIGHTS, DemoRequest, demo
    from scalenas_export.interrupts import AFTER_CANDIDATE, INTERRUPTED, Interrupts
    from scalenas_export.search.view import open_view
    from scalenas_runtime.targets import Target

    started = time.monotonic()
    request = DemoRequest(
        folder=out,
        pose=weights,
        street=street_weights or (STREET_WEIGHTS if STREET_WEIGHTS in shipped_weights() else None),
        target=Target.parse(target) if target else None,
        seconds=60 * minutes,
        n_trials=n_trials,
        latency_ms=latency_ms,
        data=data,
        data_root=data_root,
        limit=limit,
        pictures=pictures,
    )
    view = open_view(note)
    try:
        with Interrupts(view.note, AFTER_CANDIDATE) as stop:
            done = demo(request, view=view, stop=stop)
    finally:
        view.end()
    lines = [table(HEADS, done.rows), "", done.sentences, ""]
    lines += [f"{name}: {path}" for name, path in done.files.items()]
    lines.append(f"{time.monotonic() - started:.0f} seconds")
    emit(done.to_json(), "\n".join(lines) + "\n", as_json=as_json)
    if done.differing:
        raise CheckFailed(f"the engine does not agree with the golden pictures: {', '.join(done.differing)}")
    if done.missed:
        raise NothingMeetsBudget(done.missed)
    return INTERRUPTED if done.stopped else 0
