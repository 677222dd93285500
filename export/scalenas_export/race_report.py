"""What a race leaves: the curves as CSV, the standings as JSON, and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalenas.table.race import Raced
from scalenas.table.standings import MEASURES, Standings, mean_interval
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import MissingExtra, missing_extra
from scalenas_runtime.files import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STANDING_HEADS = ("sampler", "final", "95 % interval", "rank", "anytime", "95 % interval", "rank")
DUEL_HEADS = ("against each other", "final", "won", "p", "anytime", "won", "p")
_COLOURS = ("#1f6fb4", "#d1495b", "#2b8a3e", "#e07a1f", "#7048a8", "#5c6770", "#b07d2b", "#17a2a2")


def write_files(raced: Raced, found: Standings, folder: Path, *, note: Callable[[str], None]) -> list[Path]:
    """Writes race.csv, race.json, race.png and race.pdf; returns the files.

    Without matplotlib the pictures are left out, and `note` gets the line that adds it.
    """
    files = [folder / "race.csv", folder / "race.json"]
    write_text(files[0], csv_text(raced))
    write_text(files[1], pretty_json(race_json(raced, found)))
    try:
        for kind in ("png", "pdf"):
            draw(raced, folder / f"race.{kind}", kind)
            files.append(folder / f"race.{kind}")
    except MissingExtra as error:
        note(f"pictures are left out: {error}")
    return files


def race_json(raced: Raced, found: Standings) -> dict[str, Json]:
    """Returns conditions and standings as JSON values; the curves are in the CSV."""
    race = raced.race
    return {
        "schema": "scalenas.race/1",
        "table": race.table,
        "samplers": {label: dict(options) for label, options in race.samplers.items()},
        "seeds": list(race.seeds),
        "n_trials": race.n_trials,
        "noise": race.noise,
        "columns": list(raced.columns),
        "reference": list(raced.reference),
        "front": raced.front,
        **found.to_json(),
    }


def csv_text(raced: Raced) -> str:
    """Returns one line per sampler, seed and candidate, numbers from 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sampler", "seed", "candidates", "hypervolume"])
    for label, curves in raced.curves.items():
        for seed, curve in zip(raced.race.seeds, curves, strict=True):
            for number, value in enumerate(curve.tolist(), start=1):
                writer.writerow([label, seed, number, f"{value:.6f}"])
    return text.getvalue()


def standing_rows(found: Standings) -> list[list[str]]:
    """Returns the samplers for a table, the best final mean first."""
    by_label: dict[str, list[str]] = {}
    order: dict[str, float] = {}
    for measure in MEASURES:
        for each in found.samplers:
            if each.measure == measure:
                low, high = each.interval
                cells = [f"{each.mean:.4f}", f"{low:.4f} .. {high:.4f}", f"{each.rank:.2f}"]
                by_label.setdefault(each.sampler, [each.sampler]).extend(cells)
                order.setdefault(each.sampler, -each.mean)
    return [by_label[label] for label in sorted(by_label, key=lambda label: order[label])]


def duel_rows(found: Standings) -> list[list[str]]:
    """Returns every pair of samplers for a table: median difference, seeds won and lost, and p, by both measures."""
    rows: dict[str, list[str]] = {}
    for each in found.duels:
        name = f"{each.first} - {each.second}"
        cells = [f"{each.difference:+.4f}", f"{each.won}:{each.lost}", f"{each.p:.2g}"]
        rows.setdefault(name, [name]).extend(cells)
    return list(rows.values())


def conditions(raced: Raced) -> str:
    """Returns in words what the figures are."""
    race = raced.race
    milliseconds, accuracy = raced.reference
    noise = "with the noise of single measurements" if race.noise else "without noise"
    return (
        f"Hypervolume as a share of the true front's ({raced.front} nets), {raced.columns[0]} and {raced.columns[1]}, "
        f"reference point {milliseconds:.4g} ms and {accuracy:.4g}; {race.n_trials} candidates, {len(race.seeds)} "
        f"seeds, {noise}. final: after the last candidate; anytime: mean over all candidates; p: two-sided Wilcoxon "
        "signed-rank test over seeds, each comparison by itself."
    )


def draw(raced: Raced, path: Path, kind: str) -> None:
    """Writes the mean curves with their 95 % bands beside the final values of all seeds, as `png` or `pdf`.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("matplotlib", "report") from None
    figure = Figure(figsize=(10.4, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    colours = dict(zip(raced.curves, _COLOURS * (1 + len(raced.curves) // len(_COLOURS)), strict=False))
    _curves(left, raced, colours)
    _finals(right, raced, colours)
    data = io.BytesIO()
    # No date and version in the file: equal results give equal bytes.
    unnamed: Mapping[str, None] = {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None}
    figure.savefig(data, format=kind, metadata=dict(unnamed))
    write_bytes(path, data.getvalue())


def _curves(axes: Axes, raced: Raced, colours: Mapping[str, str]) -> None:
    numbers = np.arange(1, raced.race.n_trials + 1)
    for label, curves in raced.curves.items():
        low, high = mean_interval(curves)
        axes.plot(numbers, curves.mean(axis=0), color=colours[label], linewidth=1.6, label=label)
        axes.fill_between(numbers, low, high, color=colours[label], alpha=0.18, linewidth=0)
    shown = [float(curves.mean(axis=0)[min(9, len(numbers) - 1)]) for curves in raced.curves.values()]
    axes.set_ylim(min(shown) - 0.02, 1.005)
    axes.set_xlim(1, len(numbers))
    axes.set_xlabel("candidates")
    axes.set_ylabel("hypervolume / that of the true front")
    axes.set_title(f"mean of {len(raced.race.seeds)} seeds, 95 % interval", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)


def _finals(axes: Axes, raced: Raced, colours: Mapping[str, str]) -> None:
    rng = np.random.default_rng(0)
    for place, (label, curves) in enumerate(raced.curves.items()):
        finals = curves[:, -1]
        spread = place + rng.uniform(-0.14, 0.14, len(finals))
        axes.plot(spread, finals, "o", color=colours[label], markersize=3.5, alpha=0.5, markeredgewidth=0)
        low, high = mean_interval(finals[:, np.newaxis])
        middle = float(finals.mean())
        errors = [[middle - float(low[0])], [float(high[0]) - middle]]
        axes.errorbar(place, middle, yerr=errors, fmt="D", color="black", markersize=4, capsize=4)
    axes.set_xticks(range(len(raced.curves)), list(raced.curves), rotation=30, ha="right")
    axes.set_xlim(-0.5, len(raced.curves) - 0.5)
    axes.set_title(f"after {raced.race.n_trials} candidates: seeds, mean, interval", fontsize=10)
    axes.grid(axis="y", alpha=0.25)
