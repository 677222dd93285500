"""`race`: search algorithms against each other on a closed table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scalenas_export.cli.common import emit, new_run_folder, note, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas.table.race import Race
    from scalenas_runtime.canonical import Json


@verb("race")
@click.option(
    "--samplers", default="random,nsga2,aging,topology", show_default=True, help="Names, with commas between."
)
@click.option(
    "--sampler-option",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="An option of a sampler; `topology#2.mutation=0.1` races it a second time under that label.",
)
@click.option(
    "--table", "table_name", default="pose-w16", show_default=True, help="Name of a shipped table, or a file."
)
@click.option("--seeds", type=int, default=30, show_default=True, help="Runs of each sampler: seeds 0, 1, 2, ...")
@click.option("--n-trials", type=int, default=200, show_default=True, help="Candidates of a run.")
@click.option("--latency", metavar="TARGET", help="Which of the table's latencies; its first one where left out.")
@click.option("--noise/--no-noise", default=True, show_default=True, help="Give samplers figures as noisy as measured.")
@click.option("--reference", metavar="MS,ACCURACY", help="Reference point of hypervolumes; the table's own otherwise.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; as many as CPUs where left out.")
@click.option("--runs", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
def command(*, as_json: bool, **options: Any) -> None:
    """Race samplers over a closed table, the same seeds for all, and compare the hypervolume of what they find.

    Nothing is measured: a run of 200 candidates takes half a second. The run's folder gets race.csv with every curve,
    race.json, race.png and race.pdf.
    """
    from tqdm import tqdm

    from scalenas.table.race import run_race
    from scalenas.table.standings import standings
    from scalenas_export import race_report as report

    race = _race(options)
    jobs = options["jobs"] or os.cpu_count() or 1
    with new_run_folder("race", options["runs"]) as folder:
        with tqdm(total=len(race.samplers) * len(race.seeds), unit="run", leave=False) as bar:
            raced = run_race(race, jobs=jobs, progress=lambda label, _: bar.update())
        found = standings(raced)
        files = report.write_files(raced, found, folder, note=note)
    lines = [table(report.STANDING_HEADS, report.standing_rows(found))]
    if found.duels:
        lines += ["", table(report.DUEL_HEADS, report.duel_rows(found))]
    lines += ["", report.conditions(raced), f"wrote {', '.join(map(str, files))}"]
    result: dict[str, Json] = {**report.race_json(raced, found), "folder": str(folder)}
    emit(result, "\n".join(lines) + "\n", as_json=as_json)


def _race(options: dict[str, Any]) -> Race:
    from scalenas.table.race import Race

    if options["seeds"] < 1:
        raise UserError(f"--seeds is {options['seeds']}; needed is a whole number from 1")
    return Race(
        options["table_name"],
        _samplers(options["samplers"], options["sampler_option"]),
        seeds=tuple(range(options["seeds"])),
        n_trials=options["n_trials"],
        latency=options["latency"],
        noise=options["noise"],
        reference=_reference(options["reference"]),
    )


def _samplers(names: str, changes: Sequence[str]) -> dict[str, dict[str, Json]]:
    """Returns the options of each sampler by label; values are read as YAML."""
    from scalenas_runtime.yaml_files import parse_yaml

    known: dict[str, dict[str, Json]] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name in known:
            raise UserError(f"--samplers names {name} twice; give a second set of options to {name}#2")
        known[name] = {}
    for change in changes:
        place, equals, value = change.partition("=")
        label, dot, key = place.partition(".")
        if not equals or not dot or not key:
            raise UserError(f"--sampler-option takes NAME.KEY=VALUE such as topology.mutation=0.1, got {change!r}")
        if label not in known and "#" not in label:
            raise UserError(f"--sampler-option {change}: {label!r} does not race; there are {', '.join(known)}")
        known.setdefault(label, {})[key] = parse_yaml(value, what=f"--sampler-option {place}")
    return known


def _reference(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    milliseconds, comma, accuracy = text.partition(",")
    try:
        return float(milliseconds), float(accuracy if comma else "")
    except ValueError:
        raise UserError(f"--reference takes MS,ACCURACY such as 12.5,0.4, got {text!r}") from None
