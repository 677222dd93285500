"""A front as one HTML file that needs no network: zoom, and every figure of a net under the pointer."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenas_export.search.chart import Chart, Point, errors, stairs
from scalenas_export.search.picture import CONFIRMED, MARKS, Mark
from scalenas_runtime.errors import missing_extra
from scalenas_runtime.files import write_text

if TYPE_CHECKING:
    from types import ModuleType

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font-family:sans-serif;max-width:1100px;margin:1.5em auto;color:#222}}
p{{font-size:0.9em;color:#444}} pre{{font-size:0.85em;overflow-x:auto}}</style></head>
<body><h1>{title}</h1>
{charts}
<pre>{table}</pre>
</body></html>
"""


def write_page(charts: Sequence[Chart], path: Path, *, title: str, table: str = "") -> None:
    """Writes one HTML file with a chart per device and a plain table; the plotting library is inside the file.

    Raises:
        MissingExtra: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise missing_extra("plotly", "report") from None
    parts = []
    for number, chart in enumerate(charts):
        figure = _figure(go, chart)
        # A fixed id, because plotly draws a random one: equal results give equal bytes.
        drawn = figure.to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"chart{number}")
        parts.append(f"{drawn}\n<p>{html.escape(chart.footnote)}</p>")
    page = _PAGE.format(title=html.escape(title), charts="\n".join(parts), table=html.escape(table))
    write_text(path, page)


def _figure(go: ModuleType, chart: Chart) -> Any:
    figure = go.Figure()
    costs, gains = stairs(chart.points)
    line = {"color": MARKS["front"].colour, "width": 1.2}
    figure.add_trace(go.Scatter(x=costs, y=gains, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    for kind, mark in MARKS.items():
        points = [point for point in chart.points if point.kind == kind]
        if points:
            figure.add_trace(_scatter(go, points, mark))
    if chart.limit is not None:
        figure.add_vline(x=chart.limit, line_dash="dash", annotation_text=f"budget {chart.limit:g}")
    figure.update_layout(
        title=html.escape(chart.title),
        xaxis_title=html.escape(chart.cost_label),
        yaxis_title=html.escape(chart.gain_label),
        template="plotly_white",
        height=620,
    )
    return figure


def _scatter(go: ModuleType, points: Sequence[Point], mark: Mark) -> Any:
    def bars(axis: Any) -> dict[str, Any]:
        below, above = errors(points, axis)
        return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 2}

    rings = [CONFIRMED if point.confirmed else mark.colour for point in points]
    return go.Scatter(
        x=[point.cost for point in points],
        y=[point.gain for point in points],
        error_x=bars("cost"),
        error_y=bars("gain"),
        mode="markers+text" if mark.name == MARKS["member"].name else "markers",
        text=[html.escape(point.label) for point in points],
        textposition="bottom right",
        name=mark.name,
        marker={
            "color": mark.colour,
            "symbol": mark.page_symbol,
            "size": 1.4 * mark.size,
            "opacity": mark.alpha,
            "line": {"color": rings, "width": [3 if point.confirmed else 0 for point in points]},
        },
        hovertext=["<br>".join(map(html.escape, (point.label, *point.lines))) for point in points],
        hoverinfo="text",
    )
