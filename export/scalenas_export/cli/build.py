"""`build`: compile a bundle's engine on the machine that will run it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalenas_export.cli.common import emit, note, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.canonical import Json

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.targets import EngineConfig


@verb("build")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", multiple=True, required=True, help="backend:device/precision; may be given again.")
@click.option("--batch", default=1, show_default=True, help="Pictures in one inference.")
@click.option("--threads", type=int, help="CPU threads of one inference.")
@click.option("--streams", type=int, help="Parallel inferences, with --hint throughput.")
@click.option("--hint", type=click.Choice(["latency", "throughput"]), default="latency", show_default=True)
@click.option(
    "--io", type=click.Choice(["raw", "end2end"]), default="raw", show_default=True, help="Form of the graph."
)
@click.option("--cache", is_flag=True, help="Build into the user's cache instead of the bundle.")
def command(  # noqa: PLR0913 - one parameter per option
    *,
    bundle: Path,
    target: tuple[str, ...],
    batch: int,
    threads: int | None,
    streams: int | None,
    hint: str,
    io: str,
    cache: bool,
    as_json: bool,
) -> None:
    """Build engines for this machine into BUNDLE, or into the cache with --cache.

    An engine that is there already and unchanged is kept. A zip takes no engines: use --cache. Threads, streams and
    hint are chosen when an engine is loaded, so they change nothing in one that is kept.
    """
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.targets import EngineConfig, Target

    opened = Bundle.open(bundle)
    configs = [
        EngineConfig(
            Target.parse(text),
            threads=threads,
            hint="throughput" if hint == "throughput" else "latency",
            streams=streams,
            batch=batch,
            io="end2end" if io == "end2end" else "raw",
        )
        for text in target
    ]
    for config in configs:  # a target that is not possible ends the command before anything is compiled
        opened.place(config)
    built: list[dict[str, Json]] = []
    for config in configs:
        note(f"building {config.target}")
        started = time.monotonic()
        there = _identity(opened, config, cache=cache)
        folder = opened.build(config, cache=cache)
        kept = there is not None and there == _identity(opened, config, cache=cache)
        if kept and (threads is not None or streams is not None or hint != "latency"):
            note(
                f"note: {folder} was there already and is kept; --threads, --streams and --hint change nothing in it, "
                "since they are chosen when it is loaded"
            )
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        seconds = round(time.monotonic() - started, 3)
        built.append(
            {"target": str(config.target), "folder": str(folder), "bytes": size, "seconds": seconds, "kept": kept}
        )
    rows = [
        [str(item["target"]), f"{item['seconds']} s", f"{item['bytes']} bytes", str(item["folder"])] for item in built
    ]
    emit({"engines": built}, table(("target", "took", "size", "folder"), rows), as_json=as_json)


def _identity(bundle: Bundle, config: EngineConfig, *, cache: bool) -> tuple[int, int] | None:
    """Returns what changes when the engine for a config is built again, None where there is no such engine."""
    from scalenas_runtime.bundle.engines import BUILD
    from scalenas_runtime.bundle.reader import ENGINES
    from scalenas_runtime.cache import cache_folder

    store = cache_folder(ENGINES) if cache else bundle.path / ENGINES
    record = store / bundle.place(config).name / BUILD
    if not record.is_file():
        return None
    status = record.stat()
    return status.st_ino, status.st_mtime_ns
