"""A front as a PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas_export.search.chart import Chart, Kind, Point, errors, stairs
from scalenas_runtime.errors import missing_extra
from scalenas_runtime.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHARTS_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """How points of one kind look: name in the legend, colour, matplotlib's and plotly's symbol, size, opacity."""

    name: str
    colour: str
    symbol: str
    page_symbol: str
    size: float
    alpha: float = 1.0


CONFIRMED = "#2b8a3e"
MARKS: dict[Kind, Mark] = {
    "tried": Mark("tried", "#8894a0", "o", "circle", 4, 0.45),
    "front": Mark("front", "#1f6fb4", "o", "circle", 7),
    "member": Mark("named member", "#d1495b", "D", "diamond", 7),
}


def draw_fronts(charts: Sequence[Chart], path: Path) -> None:
    """Writes one picture with a chart per device: points with 95 % error bars, the front's stairs, the budget.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("matplotlib", "report") from None
    columns = min(len(charts), _CHARTS_A_ROW)
    rows = -(-len(charts) // columns)
    figure = Figure(figsize=(7.2 * columns, 5.6 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for chart, axes in zip(charts, figure.subplots(rows, columns, squeeze=False).flat, strict=False):
        _draw(axes, chart)
    for axes in list(figure.axes)[len(charts) :]:
        axes.set_axis_off()
    data = io.BytesIO()
    # No version and date in the file: equal results give equal bytes.
    figure.savefig(data, format="png", metadata={"Software": None})
    write_bytes(path, data.getvalue())


def _draw(axes: Axes, chart: Chart) -> None:
    axes.plot(*stairs(chart.points), color=MARKS["front"].colour, linewidth=1.2, alpha=0.6, zorder=2)
    for kind, mark in MARKS.items():
        points = [point for point in chart.points if point.kind == kind]
        if points:
            _scatter(axes, points, mark)
    rings = [point for point in chart.points if point.confirmed]
    if rings:
        axes.plot(
            [point.cost for point in rings],
            [point.gain for point in rings],
            "o",
            markersize=13,
            markerfacecolor="none",
            markeredgecolor=CONFIRMED,
            label="measured again in fresh processes",
            zorder=4,
        )
    for point in chart.points:
        if point.kind == "member":
            axes.annotate(
                point.label,
                (point.cost, point.gain),
                xytext=(6, -11),
                textcoords="offset points",
                fontsize=8,
                color=MARKS["member"].colour,
            )
    if chart.limit is not None:
        axes.axvline(chart.limit, color="#444444", linestyle="--", linewidth=1, label=f"budget {chart.limit:g}")
    axes.set_xlabel("\n".join([chart.cost_label, "", *textwrap.wrap(chart.footnote, 105)]), fontsize=8)
    axes.set_ylabel(chart.gain_label, fontsize=9)
    axes.set_title(chart.title, fontsize=10)
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
    axes.legend(fontsize=8, loc="lower right")


def _scatter(axes: Axes, points: Sequence[Point], mark: Mark) -> None:
    costs, gains = [point.cost for point in points], [point.gain for point in points]
    axes.errorbar(
        costs,
        gains,
        xerr=errors(points, "cost"),
        yerr=errors(points, "gain"),
        fmt=mark.symbol,
        color=mark.colour,
        ecolor=mark.colour,
        markersize=mark.size,
        elinewidth=0.7,
        capsize=1.5,
        alpha=mark.alpha,
        label=mark.name,
        zorder=3,
    )
