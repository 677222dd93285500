"""Races on a table of made-up figures."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from threadpoolctl import threadpool_info

from scalenas.search.pareto import hypervolume
from scalenas.table.race import Race, anytime, keep_to_one_thread, run_race
from scalenas.table.standings import standings
from scalenas_export.cli import app as application
from scalenas_runtime.errors import UserError
from tests.nets.search.drawn_table import drawn_table


def test_anytime_volume_is_that_of_all_points_so_far() -> None:
    points = np.random.default_rng(0).random((30, 2))
    reference = np.array([1.1, 1.1])
    curve = anytime(points, reference, count=33)
    assert curve[:30] == pytest.approx([hypervolume(points[: n + 1], reference) for n in range(30)])
    assert curve[30:].tolist() == [curve[29]] * 3


def test_processes_share_a_race_without_changing_it(tmp_path: Path) -> None:
    race = Race(str(drawn_table(tmp_path)), {"aging": {}, "topology": {}}, seeds=(0, 1), n_trials=30)
    alone, shared = run_race(race), run_race(race, jobs=2)
    for label, curves in alone.curves.items():
        np.testing.assert_array_equal(shared.curves[label], curves)


def test_a_process_of_a_race_has_one_thread() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=keep_to_one_thread) as pool:
        found = [each for each in pool.submit(threadpool_info).result() if each["user_api"] == "blas"]
    assert found
    assert {each["num_threads"] for each in found} == {1}


@pytest.mark.slow
def test_topology_evolution_is_ahead_of_random_and_nsga2(tmp_path: Path) -> None:
    race = Race(str(drawn_table(tmp_path)), {"random": {}, "nsga2": {}, "topology": {}}, seeds=(0, 1), n_trials=50)
    raced = run_race(race)
    finals = {label: curves[:, -1] for label, curves in raced.curves.items()}
    assert all((np.diff(curves, axis=1) >= 0).all() and curves.max() <= 1 for curves in raced.curves.values())
    assert (finals["topology"] > finals["random"]).all()
    assert (finals["topology"] > finals["nsga2"]).all()
    assert [each.sampler for each in standings(raced).samplers][:3] == ["random", "nsga2", "topology"]


def test_the_verb_writes_curves_and_pictures(tmp_path: Path) -> None:
    arguments = ["race", "--table", str(drawn_table(tmp_path)), "--samplers", "random,aging", "--seeds", "2"]
    more = ["--n-trials", "12", "--jobs", "1", "--runs", str(tmp_path / "runs"), "--json"]
    result = CliRunner().invoke(application.app, [*arguments, *more])
    assert result.exit_code == 0, result.output
    folder = Path(json.loads(result.stdout)["folder"])
    assert {"race.csv", "race.json", "race.png", "race.pdf"} <= {path.name for path in folder.iterdir()}
    assert len((folder / "race.csv").read_text().splitlines()) == 1 + 2 * 2 * 12


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--samplers", "nosuch"], "nosuch"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--samplers", "random,random"], "names random twice"),
        (["--sampler-option", "aging.sample"], "NAME.KEY=VALUE"),
        (["--reference", "3"], "MS,ACCURACY"),
        (["--reference", "0.001,0.9"], "no member of .* is better than the reference point"),
    ],
)
def test_bad_races_are_one_line(tmp_path: Path, arguments: list[str], text: str) -> None:
    given = ["race", "--table", str(drawn_table(tmp_path)), "--runs", str(tmp_path / "runs"), *arguments]
    with pytest.raises(UserError, match=text):
        application.app.main(given, standalone_mode=False)
    assert not list((tmp_path / "runs").glob("race/*"))


def test_the_table_is_shown_and_asked(tmp_path: Path) -> None:
    path = str(drawn_table(tmp_path))
    shown = CliRunner().invoke(application.app, ["table", "show", path, "--json"])
    assert json.loads(shown.stdout)["nets"] == 1024
    asked = CliRunner().invoke(application.app, ["table", "query", path, "4,4,last,4,last", "--json"])
    assert set(json.loads(asked.stdout)) == set(json.loads(shown.stdout)["columns"])
    with pytest.raises(UserError, match="has 2 genes; needed are 5"):
        application.app.main(["table", "query", path, "4,4"], standalone_mode=False)
