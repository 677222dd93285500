"""Files that a search leaves: rows, pictures and pages."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import pytest

from scalenas.cost import LIVE
from scalenas.search.candidates import Trial, make_candidate
from scalenas.spec import SubnetSpec
from scalenas_export.search.chart import Chart, errors, stairs
from scalenas_export.search.data import DataSource
from scalenas_export.search.deployment import SIZE
from scalenas_export.search.page import write_page
from scalenas_export.search.picture import CONFIRMED, draw_fronts
from scalenas_export.search.progress import Front
from scalenas_export.search.report import fronts, heads, table_rows, write_reports
from scalenas_export.search.request import Finalist, SearchRequest, SearchResult
from scalenas_export.search.rows import csv_text, points, trial_rows
from scalenas_export.search.setup import measures
from scalenas_runtime.errors import MissingExtra
from scalenas_runtime.targets import EngineConfig, Target
from tests.export.search.made_trials import FRONT, SPACE, five, made, plan


def chart(*, confirmed: bool = True) -> Chart:
    trials = five()
    again = {2: (9.2, (9.1, 9.4))} if confirmed else {}
    found = points(trials, plan(trials), FRONT, confirmed=again)
    return Chart("on <openvino>", "latency, ms", "accuracy, %", found, 12.0, "median of engine_wall")


def test_rows_hold_every_trial_with_cost_and_intervals() -> None:
    trials = [*five(), made(5, 9.0, None, state="failed", failure="it hung")]
    rows = trial_rows(trials, plan(trials), SPACE)
    assert [row["front"] for row in rows] == [False, True, True, False, False, False]
    assert [row["name"] for row in rows] == ["hrnet-w4", None, None, None, None, None]
    cost = SPACE.cost(trials[2].spec, counting=LIVE)
    assert (rows[2]["params"], rows[2]["macs"]) == (cost.params, cost.macs)
    assert (rows[2]["latency"], rows[2]["latency.low"], rows[2]["latency.high"]) == pytest.approx((9.0, 8.82, 9.18))
    assert rows[2]["latency.ratio"] == pytest.approx(0.9)
    assert (rows[4]["state"], rows[4]["accuracy"], rows[4]["accuracy.low"]) == ("infeasible", None, None)
    assert rows[5]["failure"] == "it hung"
    json.dumps(rows)


def test_csv_reads_back() -> None:
    trials = [*five(), made(5, 9.0, None, state="failed", failure='a "comma", and\na line')]
    rows = trial_rows(trials, plan(trials), SPACE)
    back = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [int(row["number"]) for row in back] == list(range(6))
    assert float(back[1]["latency.high"]) == rows[1]["latency.high"]
    assert (back[0]["failure"], back[5]["failure"]) == ("", 'a "comma", and\na line')


def test_points_are_members_front_or_tried() -> None:
    found = chart().points
    assert [point.label for point in found] == ["hrnet-w4", "trial 1", "trial 2", "trial 3"]
    assert [point.kind for point in found] == ["member", "front", "front", "tried"]
    assert (found[2].cost, found[2].cost_interval, found[2].confirmed) == (9.2, (9.1, 9.4), True)
    assert found[2].gain == pytest.approx(52)
    assert found[2].gain_interval == pytest.approx((49, 55))
    assert "latency: 9.000 ms (8.820 to 9.180)" in found[2].lines


def test_stairs_bound_what_was_reached() -> None:
    assert stairs(chart(confirmed=False).points) == ([8.0, 9.0, 9.0], [45.0, 45.0, 52.0])
    below, above = errors(chart().points, "cost")
    assert below == pytest.approx([0.2, 0.16, 0.1, 0.19])
    assert above == pytest.approx([0.2, 0.16, 0.2, 0.19])


@pytest.mark.parametrize("count", [1, 3])
def test_the_picture_shows_members_front_and_confirmed(count: int, tmp_path: Path) -> None:
    draw_fronts([chart()] * count, tmp_path / "one.png")
    draw_fronts([chart()] * count, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "one.png"))
    assert picture is not None
    for colour in ("#1f6fb4", "#d1495b", CONFIRMED):
        blue, green, red = (int(colour[start : start + 2], 16) for start in (5, 3, 1))
        assert (picture == (blue, green, red)).all(axis=2).any(), colour


def test_the_page_stands_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_page([chart(), chart()], tmp_path / f"{name}.html", title="a <search>", table="net  <ms>")
    text = (tmp_path / "one.html").read_text()
    assert text == (tmp_path / "two.html").read_text()
    assert text.count("Plotly.newPlot(") >= 2
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=", text)
    assert "<h1>a &lt;search&gt;</h1>" in text
    assert "net  &lt;ms&gt;" in text
    assert "hrnet-w4" in text


@pytest.mark.parametrize("package", ["matplotlib", "plotly"])
def test_a_missing_package_names_its_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for name in list(sys.modules):
        if name.startswith(f"{package}."):
            monkeypatch.setitem(sys.modules, name, None)

    def write() -> None:
        if package == "matplotlib":
            draw_fronts([chart()], tmp_path / "x.png")
        else:
            write_page([chart()], tmp_path / "x.html", title="x")

    with pytest.raises(MissingExtra, match=rf"{package} is not installed; .*scalenas-export\[report\]"):
        write()
    assert not list(tmp_path.iterdir())


def test_a_front_over_parameters_shows_no_milliseconds(tmp_path: Path) -> None:
    front = Front("openvino:cpu/fp32", "params", "accuracy")
    trials = [replace(each, values={"params": 1e6 + each.number, **each.values}) for each in five()[:4]]
    shown = plan(trials, fronts=(front,), columns=("params", "accuracy"), limits={}, units={"accuracy": "%"})
    config = EngineConfig(Target.parse("openvino:cpu/fp32"))
    asked = SearchRequest(
        weights="w",
        configs=(config,),
        folder=tmp_path,
        n_trials=4,
        objectives=("accuracy", "params"),
        data=DataSource(),
    )
    measured = Finalist("trial 2", trials[2], config, cast(Any, None), 9.0, (8.9, 9.1), None, None, front.title)
    study = cast(Any, SimpleNamespace(trials=trials))
    result = SearchResult(study, shown, "finished", (measured,), {}, None, "hrnet-w4")
    (chart,) = fronts(asked, result)
    assert (chart.cost_label, chart.limit) == ("params", None)
    assert [point.cost for point in chart.points] == [1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3]
    assert not any(point.confirmed for point in chart.points)
    row = dict(zip(heads(asked), table_rows(asked, replace(result, finalists=()))[0], strict=True))
    assert (row["median ms"], row["p90"], row["budget"]) == ("-", "-", "-")
    # A specs folder has what people may want to export.
    write_reports(asked, replace(result, finalists=(), study=_written(trials)), "", note=lambda _: None)
    names = {path.stem for path in (tmp_path / "specs").iterdir()}
    assert names == {"hrnet-w4", "trial-2"}
    assert SubnetSpec.read(tmp_path / "specs" / "trial-2.json") == trials[2].spec


def test_a_member_over_the_budget_is_drawn_with_the_accuracy_of_the_end(tmp_path: Path) -> None:
    member = replace(made(0, 14.0, None, state="infeasible"), details={})
    trials = [member, *five()[1:]]
    config = EngineConfig(Target.parse("openvino:cpu/fp32"))
    asked = SearchRequest(
        weights="w", configs=(config,), folder=tmp_path, n_trials=4, latency_ms=12.0, data=DataSource()
    )
    judged = replace(member, values={"latency": 14.0, "accuracy": 0.6})
    again = Finalist("hrnet-w4", judged, config, cast(Any, None), 13.9, (13.8, 14.0), 1.0, False, FRONT.title, True)
    study = cast(Any, SimpleNamespace(trials=trials))
    (drawn,) = fronts(asked, SearchResult(study, plan(trials), "finished", (again,), {}, None, "hrnet-w4"))
    first = drawn.points[0]
    assert (first.label, first.kind, first.confirmed) == ("hrnet-w4", "member", True)
    assert (first.cost, first.gain) == pytest.approx((13.9, 60))


def test_cost_and_spec_are_those_of_the_chosen_size(tmp_path: Path) -> None:
    trials = five()
    size = {SIZE: "128x96"}
    candidate = make_candidate(SPACE, 1, trials[1].spec, size, identity="made")
    trials[1] = replace(trials[1], candidate=candidate)
    adapted = SPACE.adapt(trials[1].spec, settings={}, size=(128, 96))
    macs = SPACE.cost(adapted, counting=LIVE).macs
    assert macs != SPACE.cost(trials[1].spec, counting=LIVE).macs
    assert trial_rows(trials, plan(trials), SPACE)[1]["macs"] == macs
    config = EngineConfig(Target.parse("openvino:cpu/fp32"))
    asked = SearchRequest(weights="w", configs=(config,), folder=tmp_path, n_trials=4, data=DataSource())
    (goal,), _ = measures(
        replace(asked, objectives=("macs",)), cast(Any, SimpleNamespace(space=SPACE)), cast(Any, None)
    )
    assert goal.measure(candidate) == macs
    result = SearchResult(_written(trials), plan(trials), "finished", (), {}, None, "hrnet-w4")
    write_reports(asked, result, "", note=lambda _: None)
    assert SubnetSpec.read(tmp_path / "specs" / "trial-1.json") == adapted
    row = dict(zip(heads(asked), table_rows(asked, result)[0], strict=True))
    assert (row["net"], row["MACs"]) == ("trial 1 size=128x96", f"{macs / 1e9:.3f} G")


def test_a_member_at_two_sizes_has_two_spec_files(tmp_path: Path) -> None:
    trials = five()
    for number, size in ((0, "64x64"), (1, "128x96")):
        candidate = make_candidate(SPACE, number, trials[0].spec, {SIZE: size}, identity="made")
        trials[number] = replace(trials[number], candidate=candidate)
    config = EngineConfig(Target.parse("openvino:cpu/fp32"))
    asked = SearchRequest(weights="w", configs=(config,), folder=tmp_path, n_trials=4, data=DataSource())
    result = SearchResult(_written(trials), plan(trials), "finished", (), {}, None, "hrnet-w4")
    write_reports(asked, result, "", note=lambda _: None)
    sizes = {path.stem: SubnetSpec.read(path).inputs["image"][1:] for path in (tmp_path / "specs").glob("hrnet*.json")}
    assert sizes == {"hrnet-w4": (64, 64), "hrnet-w4-128x96": (128, 96)}


def _written(trials: list[Trial]) -> Any:
    head = SimpleNamespace(space="scalenas")
    return SimpleNamespace(trials=trials, head=head, name="search", write_records=lambda _: None)
