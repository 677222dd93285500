"""`table`: a closed table of nets is built, asked, and shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scalenas_export.cli.common import emit, note, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.errors import NothingMeetsBudget, UserError

if TYPE_CHECKING:
    from scalenas.table.table import Table
    from scalenas_export.table_accuracies import AccuracyPlan
    from scalenas_export.table_latencies import LatencyPlan
    from scalenas_runtime.canonical import Json


@click.group("table")
def command() -> None:
    """Compare search algorithms in seconds: a small space of which every net was measured."""


@verb("build")
@click.argument("weights")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The table's file, ending in .json.gz.")
@click.option(
    "--target", "targets", multiple=True, default=("openvino:cpu/bf16", "onnxruntime:cpu/fp32"), show_default=True
)
@click.option("--data", help="D.yaml on whose `search` split the nets are judged; latencies alone without it.")
@click.option("--data-root", help="Folder that the paths in the data's description start at.")
@click.option(
    "--calibration", type=click.IntRange(min=1), default=256, show_default=True, help="Pictures for BN statistics."
)
@click.option("--accuracies", type=click.Path(path_type=Path), help="Accuracies that were judged before.")
@click.option(
    "--full",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random nets of the whole space besides, for the surrogate.",
)
@click.option(
    "--repeated", type=click.IntRange(min=0), default=32, show_default=True, help="Nets that are measured again."
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="How often these are measured in all."
)
@click.option("--minutes", type=float, help="Stop measuring after so long; the same command goes on.")
def build_command(*, as_json: bool, weights: str, out: Path, accuracies: Path | None, **options: Any) -> None:
    """Measure every member of the table's space with the supernet WEIGHTS, and write the table.

    Figures go line by line to files beside the table, so that a killed command goes on where it was. A table of 1,024
    nets on two engines takes a few hours. Exit code 3 when --minutes was too short; then no table is written.
    """
    from scalenas.table import accuracies as figures
    from scalenas.table.build import assembled, read_latencies
    from scalenas.table.nets import members, others
    from scalenas.table.record import SUFFIX, write_table
    from scalenas.table.surrogate import LEAST
    from scalenas_export.packing import check_targets
    from scalenas_export.table_accuracies import AccuracyPlan
    from scalenas_export.table_latencies import LatencyPlan
    from scalenas_export.weight_sources import find_weights
    from scalenas_runtime.fingerprint import fingerprint
    from scalenas_runtime.targets import EngineConfig, Target

    if not str(out).endswith(SUFFIX):
        raise UserError(f"--out is {out}; a table's file ends in {SUFFIX}")
    minutes = options["minutes"]
    if minutes is not None and not minutes > 0:
        raise UserError(f"--minutes is {minutes}; needed is a time above 0")
    configs = [EngineConfig(Target.parse(text)) for text in options["targets"]]
    check_targets([config.target for config in configs])
    found = find_weights(weights)
    supernet = found.weights
    if supernet.kind != "supernet" or supernet.recipe is None:
        raise UserError(f"{found.source} holds no supernet with a recipe; a table needs one")
    size = (supernet.recipe.height, supernet.recipe.width)
    if 0 < options["full"] < LEAST:
        raise UserError(f"--full is {options['full']}; a surrogate needs at least {LEAST} nets of the whole space")
    full = others(supernet.settings, size, options["full"])
    nets = [*members(supernet.settings, size), *full]
    if options["data"] is None and options["data_root"]:
        raise UserError("--data-root goes with --data; without it no accuracy is judged")
    known = [] if accuracies is None else figures.read(accuracies)
    if known and options["data"] is None:
        known = [entry for entry in known if entry.run["weights"] == supernet.digest]
        if not known:
            raise UserError(f"{accuracies} has no accuracy of the weights {found.source} ({supernet.digest[:12]})")
    started = time.monotonic()
    if options["data"] is not None:
        judged = accuracies or out.with_name(out.name.removesuffix(SUFFIX) + ".accuracies.jsonl")
        plan_of = AccuracyPlan(
            supernet, nets, judged, options["data"], options["data_root"], options["calibration"], _device()
        )
        _judge(plan_of, minutes)
        known = [entry for entry in figures.read(judged) if plan_of.covers(entry)]
        note(f"accuracies: {judged}")
    if minutes is not None:
        minutes = max(1e-3, minutes - (time.monotonic() - started) / 60)
    file = out.with_name(out.name.removesuffix(SUFFIX) + ".latencies.jsonl")
    plan = LatencyPlan(supernet, nets, configs, options["repeated"], options["repeats"], file)
    _measure(plan, minutes)
    about = {"weights": found.source, "weights_digest": supernet.digest, "device": fingerprint()["device_key"]}
    record = assembled(supernet.settings, size, read_latencies(file), known, full=full, about=about)
    write_table(out, record)
    note(f"latencies: {file}")
    _show(out, as_json=as_json)


@verb("show")
@click.argument("name")
def show_command(*, name: str, as_json: bool) -> None:
    """Show the columns of the table NAME (a shipped one, or a file), its noise, true front and surrogates."""
    _show(name, as_json=as_json)


@verb("query")
@click.argument("name")
@click.argument("spec")
@click.option("--seed", type=click.IntRange(min=0), help="Of the noise of a single measurement; without it the means.")
def query_command(*, name: str, spec: str, seed: int | None, as_json: bool) -> None:
    """Print what the table NAME says of SPEC: a spec's file, or a member's five genes such as 4,4,last,4,last."""
    from scalenas.spec import SubnetSpec
    from scalenas.table.table import load

    opened = load(name)
    if "," in spec:
        genes = opened.space.gene_table(opened.record.settings)
        words = spec.split(",")
        if len(words) != len(genes):
            raise UserError(
                f"{spec!r} has {len(words)} genes; needed are {len(genes)}: {', '.join(g.name for g in genes)}"
            )
        values = [gene.check(int(word) if word.isdecimal() else word) for gene, word in zip(genes, words, strict=True)]
        asked = opened.space.make(values, settings=opened.record.settings, inputs=opened.record.inputs)
    else:
        asked = SubnetSpec.read(Path(spec))
    figures = opened.query(asked, seed)
    rows = [[column, f"{value:.6g}", opened.column(column).unit] for column, value in figures.items()]
    emit(dict(figures), table(("figure", "value", "unit"), rows) + "\n", as_json=as_json)


for _each in (build_command, show_command, query_command):
    command.add_command(_each)


def _show(name: str | Path, *, as_json: bool) -> None:
    import numpy as np

    from scalenas.table.table import load

    opened = load(name)
    fits = {fit.column: fit for fit in opened.record.fits}
    rows: list[list[str]] = []
    columns: dict[str, Json] = {}
    for column in opened.record.columns:
        noise = float(np.std(column.noise)) if column.noise else 0.0
        fit = fits.get(column.name)
        low, high = min(column.values), max(column.values)
        columns[column.name] = {
            "unit": column.unit,
            "min": low,
            "max": high,
            "noise": noise,
            "surrogate": None
            if fit is None
            else {
                "nets": fit.count,
                "held_out": fit.held_out,
                "mape": fit.mape,
                "rmse": fit.rmse,
                "tau": fit.tau,
            },
        }
        surrogate = "-" if fit is None else f"{100 * fit.mape:.2f} %, tau {fit.tau:.3f}, {fit.held_out} nets"
        rows.append([column.name, column.unit, f"{low:.4g} .. {high:.4g}", f"{100 * noise:.2f} %", surrogate])
    size = opened.space.size(opened.record.settings)
    front = _front(opened)
    text = table(("figure", "unit", "range", "noise", "surrogate, on held-out nets of the whole space"), rows)
    shown = f"{size} nets" if front is None else f"{size} nets, {front} on the true front of the first latency"
    emit(
        {"table": opened.name, "nets": size, "front": front, "columns": columns, "about": opened.record.about},
        f"{text}\n\n{shown}\n",
        as_json=as_json,
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _judge(plan: AccuracyPlan, minutes: float | None) -> None:
    from tqdm import tqdm

    from scalenas_export.table_accuracies import judge_accuracies

    with tqdm(total=len(plan.nets), unit="net", desc="accuracy", disable=None) as bar:
        left = judge_accuracies(plan, seconds=None if minutes is None else 60 * minutes, progress=bar.update)
    if left:
        raise NothingMeetsBudget(f"{left} accuracies are missing after {minutes:g} minutes; the same command goes on")


def _measure(plan: LatencyPlan, minutes: float | None) -> None:
    from tqdm import tqdm

    from scalenas.search.objectives import MeasureFailed
    from scalenas_export.table_latencies import measure_latencies

    try:
        with tqdm(total=len(plan.missing()), unit="net", disable=None) as bar:
            left = measure_latencies(
                plan, seconds=None if minutes is None else 60 * minutes, progress=lambda _: bar.update()
            )
    except MeasureFailed as error:
        raise UserError(f"{error}; the same command goes on") from None
    if left:
        raise NothingMeetsBudget(f"{left} measurements are missing after {minutes:g} minutes; the same command goes on")


def _front(opened: Table) -> int | None:
    kinds = {column.kind for column in opened.record.columns}
    return len(opened.front(opened.goals())) if kinds == {"latency", "accuracy"} else None
