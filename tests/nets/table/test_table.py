"""Closed tables: what they answer, how they are put together, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy import stats

from scalenas.registry import get_space
from scalenas.search.pareto import dominates
from scalenas.table.accuracies import Accuracy
from scalenas.table.accuracies import read as read_accuracies
from scalenas.table.build import Latency, append_latency, assembled, read_latencies
from scalenas.table.lines import append_line, read_lines
from scalenas.table.nets import members, others
from scalenas.table.record import Column, read_table, write_table
from scalenas.table.space import SPACE
from scalenas.table.surrogate import fit_column
from scalenas.table.table import Table, load
from scalenas.table.wilcoxon import signed_rank
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from tests.nets.search.drawn_table import ACCURACY, INPUTS, LATENCY, SETTINGS, drawn_record, drawn_table

SMALL: dict[str, Json] = {"width": 4, "modules": [1, 1, 1], "depths": [2, 3], "stage1_blocks": 1, "joints": 3}
SIZE = (64, 64)


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(drawn_record(), name="drawn")


def test_all_members_are_different_nets_in_the_order_of_their_index() -> None:
    specs = list(SPACE.specs(SETTINGS, INPUTS))
    assert len(specs) == SPACE.size(SETTINGS) == 1024
    assert [SPACE.index(spec) for spec in specs[::37]] == list(range(0, 1024, 37))
    assert len({SPACE.live(spec).digest for spec in specs}) == 1024
    rng = np.random.default_rng(0)
    child = SPACE.mutate(SPACE.crossover(specs[3], specs[900], rng), rng)
    assert 0 <= SPACE.index(child) < 1024


def test_figures_are_those_of_the_file_and_noise_follows_from_the_seed(table: Table, tmp_path: Path) -> None:
    spec = list(SPACE.specs(SETTINGS, INPUTS))[517]
    again = load(drawn_table(tmp_path))
    assert table.query(spec) == again.query(spec)
    assert table.query(spec)[LATENCY] == table.values(LATENCY)[517]
    noisy = table.query(spec, seed=3)
    assert noisy == table.query(spec, seed=3)
    ratio = noisy[LATENCY] / table.query(spec)[LATENCY] - 1
    assert min(abs(ratio - each) for each in table.column(LATENCY).noise) < 1e-9
    assert noisy[ACCURACY] == table.query(spec)[ACCURACY]


def test_a_member_in_the_words_of_scalenas_is_that_member(table: Table) -> None:
    spec = list(SPACE.specs(SETTINGS, INPUTS))[649]
    for same in (SPACE.expand(spec), get_space("scalenas").live(SPACE.expand(spec))):
        assert table.query(same) == table.query(spec)
        assert table.query(same, seed=5) == table.query(spec, seed=5)
    larger = get_space("scalenas").adapt(SPACE.expand(spec), settings={}, size=(256, 192))
    with pytest.raises(UserError, match=r"of nets that take pictures 128x96; the spec's are 256x192"):
        table.query(larger)


def test_the_front_is_what_nobody_dominates(table: Table) -> None:
    goals = table.goals()
    points = table.points(goals)
    found = set(table.front(goals))
    for index in range(0, 1024, 11):
        assert (index in found) == (not any(dominates(other, points[index]) for other in points))
    assert (table.reference(goals) > points.max(axis=0)).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema": "scalenas.table/9"}, "schema is 'scalenas.table/9'"),
        ({"space": "other"}, "the space is 'other'"),
        ({"columns": []}, "needed is at least one"),
    ],
)
def test_damaged_tables_say_what_is_wrong(tmp_path: Path, change: dict[str, object], text: str) -> None:
    path = drawn_table(tmp_path)
    value = json.loads(gzip.decompress(path.read_bytes())) | change
    path.write_bytes(gzip.compress(json.dumps(value).encode()))
    with pytest.raises(UserError, match=text):
        read_table(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is not a table, or damaged"):
        read_table(path)


def test_unknown_tables_latencies_and_specs_are_refused(table: Table) -> None:
    with pytest.raises(UserError, match="no table is called 'none'"):
        load("none")
    with pytest.raises(UserError, match="latency of drawn"):
        table.goals("tensorrt:cuda0/fp16")
    whole = others(SETTINGS, (128, 96), 1)[0]
    with pytest.raises(UserError, match="has no surrogate"):
        table.query(whole)


def test_lines_survive_a_kill_in_the_middle_of_a_write(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"b": ')
    append_line(path, {"c": 3})
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"d": {"e": 4}')
    append_line(path, {"f": 5})
    assert read_lines(path) == [{"a": 1}, {"c": 3}, {"f": 5}]
    path.write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read_lines(path)


def test_a_table_is_put_together_from_lines_with_noise_and_surrogate(tmp_path: Path) -> None:
    full = others(SMALL, SIZE, 12)
    nets = [*members(SMALL, SIZE), *full]
    file = tmp_path / "t.latencies.jsonl"
    assert read_latencies(file) == []
    depth = {spec.digest: 1.0 + 0.1 * index for index, spec in enumerate(nets)}
    for spec in nets:
        for repeat, factor in enumerate((0.99, 1.01) if spec is nets[0] else (1.0,)):
            append_latency(
                file,
                Latency(
                    spec=spec.digest,
                    target="a:cpu/fp32",
                    repeat=repeat,
                    milliseconds=depth[spec.digest] * factor,
                    headline=1.0,
                    run={},
                ),
            )
    judged = [Accuracy(spec=spec.digest, metric="pck", value=0.5, interval=None, run={"weights": "w"}) for spec in nets]
    record = assembled(SMALL, SIZE, read_latencies(file), judged, full=full)
    write_table(tmp_path / "t.json.gz", record)
    opened = load(tmp_path / "t.json.gz")
    assert opened.values("latency a:cpu/fp32") == pytest.approx([depth[spec.digest] for spec in nets[: -len(full)]])
    assert sorted(opened.column("latency a:cpu/fp32").noise) == pytest.approx([-0.01 * 2**0.5, 0.01 * 2**0.5], abs=1e-6)
    assert [(fit.count, fit.held_out) for fit in record.fits] == [(len(nets), len(full))] * 2
    assert opened.query(full[0])["accuracy"] == pytest.approx(0.5)
    with pytest.raises(UserError, match=r"1 of .* members have no figure"):
        assembled(SMALL, SIZE, read_latencies(file)[2:], judged)
    again = msgspec.structs.replace(read_latencies(file)[0], headline=1.2)
    with pytest.raises(UserError, match=r"the latencies are of several runs .* at 1.0 ms.* at 1.2 ms"):
        assembled(SMALL, SIZE, [*read_latencies(file), again], judged)
    other = Accuracy(spec="x", metric="pck", value=0.5, interval=None, run={"weights": "v"})
    with pytest.raises(UserError, match="of 2 runs"):
        assembled(SMALL, SIZE, read_latencies(file), [*judged, other])


def test_a_surrogates_error_is_that_of_nets_outside_the_table() -> None:
    inside, outside = members(SMALL, SIZE), others(SMALL, SIZE, 40)
    column = Column(name="accuracy", kind="accuracy", unit="pck", values=[0.5] * len(inside))
    rng = np.random.default_rng(0)
    truth = 0.5 + rng.normal(0, 0.1, len(outside))
    exact = [(spec, 0.5) for spec in inside]
    fit = fit_column(column, exact, list(zip(outside, truth.tolist(), strict=True)))
    # Members are guessed well, which is not to make the error look small: what is left is the noise of the others.
    assert len(inside) > 2 * len(outside)
    assert fit.rmse == pytest.approx(float(np.std(truth)), rel=0.35)
    assert (fit.count, fit.held_out) == (len(inside) + len(outside), len(outside))
    with pytest.raises(UserError, match="needs at least 10 nets of the whole space, got 9"):
        fit_column(column, exact, list(zip(outside, truth.tolist(), strict=True))[:9])


@pytest.mark.slow
def test_the_shipped_table_is_what_its_lines_give(tmp_path: Path) -> None:
    folder = Path(__file__).parents[3] / "benchmarks" / "tables"
    for name in ("latencies", "accuracies"):
        lines = gzip.decompress((folder / f"pose-w16.{name}.jsonl.gz").read_bytes())
        (tmp_path / f"{name}.jsonl").write_bytes(lines)
    shipped = load("pose-w16")
    settings, size = shipped.record.settings, (128, 96)
    full = others(settings, size, 150)
    known = read_accuracies(tmp_path / "accuracies.jsonl")
    measured = read_latencies(tmp_path / "latencies.jsonl")
    record = assembled(settings, size, measured, known, full=full, about=shipped.record.about)
    assert [column.values for column in record.columns] == [column.values for column in shipped.record.columns]
    for found, fit in zip(record.fits, shipped.record.fits, strict=True):
        assert (found.count, found.held_out) == (fit.count, fit.held_out) == (1174, 150)
        assert [found.mape, found.rmse, found.tau] == pytest.approx([fit.mape, fit.rmse, fit.tau], rel=1e-3)
    # Each net's own figure took part in the fit: what the surrogate says of it is near.
    judged = {entry.spec: entry.value for entry in known}
    guessed = np.array([shipped.query(spec)["accuracy"] for spec in full])
    true = np.array([judged[spec.digest] for spec in full])
    assert float(np.mean(abs(guessed / true - 1))) < 0.025


@pytest.mark.parametrize("count", [4, 12, 30])
def test_the_signed_rank_test_equals_scipys(count: int) -> None:
    differences = np.random.default_rng(count).normal(0.3, 1, count).tolist()
    found = signed_rank(differences)
    assert found.p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert signed_rank([0.0, 0.0]).p == 1.0
    with pytest.raises(UserError, match="finite differences"):
        signed_rank([float("nan")])
