"""What a finished run leaves: the weights file, the table of accuracies, and the card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from msgspec import structs

from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet
from scalenas.training.card import card
from scalenas.training.config import config_json
from scalenas.training.journal import read_log
from scalenas.training.judge import members
from scalenas.training.run import Run
from scalenas.transferred_statistics import rule_for, statistics_by
from scalenas.weights import Kind, Weights, rounded, save_weights
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

WEIGHTS, REPORT, CARD = "weights.safetensors", "report.json", "card.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One net of the table: cost for one picture, and accuracy on the `search` split with its 95 % interval.

    `figures` holds what else the metric knows: by joint or class, by size of the person; `counts` how many pictures and
    people were judged and left out.
    """

    name: str
    params: int
    gmacs: float
    metric: str
    value: float
    interval: tuple[float, float] | None
    digest: str
    figures: Mapping[str, Json]
    counts: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        """Returns the row as JSON values; None for an accuracy that nothing could be judged for."""
        return {
            "name": self.name,
            "params": self.params,
            "gmacs": self.gmacs,
            "metric": self.metric,
            "value": self.value if self.value == self.value else None,
            "interval": None if self.interval is None else list(self.interval),
            "spec_digest": self.digest,
            "figures": dict(self.figures),
            "counts": dict(self.counts),
        }


@dataclass(frozen=True, slots=True)
class Finished:
    """The results of a run: table, weights file, and the report as it was written."""

    rows: tuple[Row, ...]
    weights: Path
    report: Mapping[str, Json]


def finish(run: Run, *, command: str) -> Finished:
    """Judges what was trained, writes weights, report and card into the run's folder, and returns the results.

    With `output.half` the weights are rounded first, so that every figure is of the weights in the file.

    Raises:
        UserError: the weights do not fit float16.
    """
    config, folder = run.config, run.place.folder
    machine = fingerprint()
    provenance: dict[str, Json] = {
        "source": f"{config.name} (phase {config.phase})",
        "licence": config.output.licence,
        "notice": config.output.notice,
        "data": run.supply.sources,
        "parents": run.parents,
        # Where this machine keeps its data is nobody else's business.
        "config": config_json(structs.replace(config, data=structs.replace(config.data, root=None))),
        "commit": ", ".join(run.commits),
        "steps": run.done,
    }
    kind: Kind = "supernet" if run.spec is None else "static"
    space, settings = run.frame.space.name, run.frame.settings
    weights = Weights(kind, space, settings, run.chosen(), run.spec, run.supply.recipe, provenance)
    if config.output.half:
        weights = rounded(weights)
    save_weights(folder / WEIGHTS, weights, overwrite=True, half=config.output.half)
    statistics = _statistics(run, weights) if run.spec is None else None
    rows = tuple(_row(run, name, spec, weights, statistics) for name, spec in _chosen(run).items())
    report: dict[str, Json] = {
        "schema": "scalenas.training/1",
        "provenance": provenance,
        "digest": weights.digest,
        "rows": [row.to_json() for row in rows],
        "split": "search",
        "pictures": len(run.supply.search),
        "seconds": run.seconds,
        "command": command,
        "machine": machine,
    }
    write_text(folder / REPORT, pretty_json(report))
    write_text(folder / CARD, card(report, read_log(folder), inheritance=run.inheritance))
    return Finished(rows, folder / WEIGHTS, report)


def table(rows: tuple[Row, ...]) -> str:
    """Returns the table for people."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'net':{width}}  {'M params':>8}  {'MACs/2^30':>9}  {rows[0].metric:>6}  95 % interval"]
    for row in rows:
        bounds = "" if row.interval is None else f"{100 * row.interval[0]:.1f} .. {100 * row.interval[1]:.1f}"
        value = f"{100 * row.value:.1f}" if row.value == row.value else "-"
        lines.append(f"{row.name:{width}}  {row.params / 1e6:8.2f}  {row.gmacs:9.3f}  {value:>6}  {bounds}")
    return "\n".join(lines) + "\n"


def _chosen(run: Run) -> dict[str, SubnetSpec]:
    if run.spec is not None:
        return {run.config.spec_text: run.spec}
    every = members(run.frame)
    return every if run.config.evaluation.members else {name: every[name] for name in ("max", "min")}


def _statistics(run: Run, weights: Weights) -> Callable[[StaticNet], int]:
    """Returns what sets the BN statistics of a subnet, on the judge's device."""
    placed = weights.to(run.judge.device)
    return statistics_by(rule_for(weights), placed, run.frame.space, run.judge.recalibrate)


def _row(run: Run, name: str, spec: SubnetSpec, weights: Weights, statistics: Callable[[StaticNet], int] | None) -> Row:
    net = run.subnet(spec, dict(weights.tensors))
    if statistics is not None:
        statistics(net.to(run.judge.device))
    done = run.judge.judge(net, recalibrated=False)
    cost = run.frame.space.cost(spec)
    plain = done.to_json()
    figures, counts = (cast(Mapping[str, Json], plain[key]) for key in ("figures", "counts"))
    return Row(name, cost.params, cost.gmacs, done.metric, done.value, done.interval, spec.digest, figures, counts)
