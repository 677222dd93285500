"""A study in a storage: what it keeps, what it refuses, and what plain Optuna sees of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from scalenas.cost import LIVE
from scalenas.search import Candidate, Constraint, Measured, Objective, Proposal, SearchOptions, Study, search
from scalenas_runtime.errors import NothingMeetsBudget, UserError
from tests.nets.search.search_worker import SETTINGS, cost, merit, run, space

OPTIONS = SearchOptions(settings=SETTINGS, n_trials=12, identity={"supernet": "abc", "target": "openvino:cpu/bf16"})


def lines(study: Study) -> list[tuple[object, ...]]:
    return [(t.number, t.spec, t.state, dict(t.values), t.origin, dict(t.choices)) for t in study.trials]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished study."""
    storage = str(tmp_path_factory.mktemp("study") / "study.db")
    run(storage, options=OPTIONS).close()
    return storage


def test_a_stored_study_equals_the_one_in_memory_and_goes_on(stored: str, tmp_path: Path) -> None:
    study = Study.open(stored)
    assert lines(study) == lines(run(None, options=OPTIONS))
    study.close()
    shorter, path = replace(OPTIONS, n_trials=5), str(tmp_path / "study.db")
    run(path, options=shorter).close()
    assert lines(run(path, options=OPTIONS)) == lines(Study.open(stored))


def test_replayed_records_give_the_same_sequence_without_measuring(stored: str, tmp_path: Path) -> None:
    study = Study.open(stored)
    study.write_records(tmp_path / "records.jsonl")

    def never(_: Candidate) -> float:
        raise AssertionError("nothing may be measured")

    goals = [Objective("cost", never, "minimize"), Objective("merit", never, "maximize")]
    options = replace(OPTIONS, n_trials=None, replay=tmp_path / "records.jsonl")
    assert lines(search(space(), goals, [], "topology", None, options=options)) == lines(study)
    with pytest.raises(UserError, match=r"needs a candidate that .* does not hold"):
        search(space(), goals, [], "topology", None, options=replace(options, seed=1))


def test_a_study_that_time_ended_or_that_grew_replays(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    seen: list[int] = []
    # 22 trials are enough for the start to be shorter than that of an endless search.
    endless = replace(OPTIONS, n_trials=None)
    timed = run(
        None,
        options=replace(endless, stop=lambda: len(seen) == 22, on_trial=lambda _, trial: seen.append(trial.number)),
    )
    timed.write_records(records)
    assert seen == list(range(22))
    assert lines(run(None, options=replace(endless, replay=records))) == lines(timed)
    # A study that is resumed with more trials keeps the sizes it began with: a start of 15, not of 60.
    first, second = str(tmp_path / "first.db"), str(tmp_path / "second.db")
    run(first, options=replace(OPTIONS, n_trials=20)).close()
    grown = run(first, options=replace(OPTIONS, n_trials=600, stop=lambda: len(Study.open(first).trials) >= 30))
    grown.write_records(records)
    run(second, options=replace(OPTIONS, n_trials=20, replay=records)).close()
    assert lines(run(second, options=replace(OPTIONS, n_trials=600, replay=records))) == lines(grown)
    assert {trial.origin for trial in grown.trials[15:]} == {"offspring"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"identity": {"supernet": "xyz", "target": "openvino:cpu/bf16"}}, 'supernet is "xyz" here and "abc" there'),
        ({"identity": {"supernet": "abc", "target": "onnxruntime:cpu/fp32"}}, "target is .*fp32.* here and .*bf16"),
        ({"seed": 4}, "seed is 4 here and 0 there"),
        ({"settings": {**SETTINGS, "width": 8}}, "settings.width is 8 here and 16 there"),
        ({"inputs": {"image": (3, 64, 64)}}, "inputs.image.1 is 64 here and"),
        ({"choices": {"precision": ("fp32",)}}, "choices.precision is"),
    ],
)
def test_a_study_of_something_else_is_refused_with_what_differs(
    stored: str, change: dict[str, object], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        run(stored, options=replace(OPTIONS, **change))  # type: ignore[arg-type]


def test_what_differs_is_named_to_the_innermost_value(stored: str) -> None:
    about = {"supernet": "abc", "target": "openvino:cpu/bf16", "data": {"description": "x" * 64, "limit": 100}}
    head = Study.open(stored).head
    target = [{"batch": 1, "hint": "latency", "io": "raw", "streams": None, "target": "openvino:cpu/bf16"}]
    one = msgspec.structs.replace(head, identity={**about, "target": target})
    other = msgspec.structs.replace(
        head,
        identity={
            **about,
            "target": [{**target[0], "target": "openvino:cpu/fp32"}],
            "data": {"description": "x" * 63 + "y", "limit": 100},
        },
    )
    with pytest.raises(UserError) as caught:
        one.check_same(other, "here")
    text = str(caught.value)
    assert 'target.0.target is "openvino:cpu/bf16" here and "openvino:cpu/fp32" there' in text
    assert 'data.description is ...xxxxxxxxxxxxxxx"' not in text
    assert f'data.description is ...{"x" * 16}" here and ...{"x" * 15}y" there' in text
    assert "batch" not in text


def test_another_sampler_or_limit_is_another_study(stored: str) -> None:
    with pytest.raises(UserError, match='sampler is "random" here and "topology" there'):
        run(stored, sampler="random", options=OPTIONS)
    with pytest.raises(UserError, match="goals is"):
        run(stored, options=OPTIONS, upper=1.0)


@pytest.mark.parametrize(
    ("storage", "text"),
    [
        ("postgresql://nobody:secret@127.0.0.1:1/none", r"nobody:\*\*\*@127.0.0.1:1/none cannot be used"),
        ("mysql://host/none", "is of kind 'mysql'"),
        ("sqlite://", "needs a file such as study.db"),
        ("postgresql://me:secret@host:abc/db", "is no URL of a database"),
        ("postgresql://me@[::1/db", "is no URL of a database"),
    ],
)
def test_databases_that_are_not_there_are_one_line(storage: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as caught:
        run(storage, options=OPTIONS)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_studies_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is text, and long enough to be no database\n")
    with pytest.raises(UserError, match="is not an SQLite database"):
        run(str(tmp_path / "text.db"), options=OPTIONS)
    with pytest.raises(UserError, match="is a folder"):
        run(str(tmp_path), options=OPTIONS)
    with pytest.raises(UserError, match="there is no study storage"):
        Study.open(tmp_path / "none.db")


def test_plain_optuna_reads_the_study(stored: str) -> None:
    import optuna

    study = Study.open(stored)
    plain = optuna.load_study(study_name="search", storage=f"sqlite:///{stored}")
    assert [trial.values for trial in plain.trials] == [
        [trial.values["cost"], trial.values["merit"]] for trial in study.trials
    ]
    assert {trial.user_attrs["candidate"]["key"] for trial in plain.best_trials} == {
        trial.candidate.key for trial in study.front()
    }
    assert all(not trial.params for trial in plain.trials)


def test_the_table_of_trials_has_spec_cost_and_figures(stored: str) -> None:
    study = Study.open(stored)
    frame = study.trials_dataframe()
    wanted = ["number", "state", "digest", "params", "macs", "cost", "merit", "origin", "failure", "spec"]
    assert list(frame.columns) == wanted
    assert frame["macs"].tolist() == [space().cost(trial.spec, counting=LIVE).macs for trial in study.trials]
    assert frame["digest"].tolist() == [trial.candidate.digest for trial in study.trials]
    assert study.trials_dataframe(space()).equals(frame)
    assert frame["cost"].tolist() == [trial.values["cost"] for trial in study.trials]


def test_enqueued_nets_come_first_and_an_old_study_warms_a_new_one(stored: str) -> None:
    old = Study.open(stored)
    smallest = space().min(SETTINGS)
    options = replace(OPTIONS, enqueue=[Proposal(smallest)], warm_start=stored)
    study = run(None, options=options)
    assert study.trials[0].origin == "enqueued"
    assert study.trials[0].spec == space().normalise(smallest)
    warmed = {trial.candidate.digest for trial in study.trials if trial.origin == "warm-start"}
    assert {trial.candidate.digest for trial in old.front()} <= warmed | {study.trials[0].candidate.digest}


def test_a_study_may_lie_beside_the_one_it_starts_from(tmp_path: Path) -> None:
    stored = str(tmp_path / "study.db")
    run(stored, options=OPTIONS).close()
    options = replace(OPTIONS, name="new", warm_start=stored)
    assert any(trial.origin == "warm-start" for trial in run(stored, options=options).trials)
    # It is there now, and goes on.
    assert len(run(stored, options=replace(options, n_trials=14)).trials) == 14
    run(stored, options=replace(OPTIONS, name="third")).close()
    with pytest.raises(UserError, match=r"has the studies .* say which one \(--warm-start-study\)"):
        run(stored, options=replace(options, n_trials=15))
    named = replace(options, n_trials=15, warm_start_study="third")
    assert len(run(stored, options=named).trials) == 15


def test_workers_agree_on_the_first_figure(tmp_path: Path) -> None:
    stored = str(tmp_path / "study.db")
    run(stored, options=OPTIONS).close()
    first, second = Study.open(stored), Study.open(stored)
    assert [first.agree("scale", 4.5), second.agree("scale", 5.0), first.agree("other", 1.0)] == [4.5, 4.5, 1.0]
    assert second.agreed == {"scale": 4.5, "other": 1.0}
    memory = run(None, options=OPTIONS)
    assert [memory.agree("scale", 4.5), memory.agree("scale", 5.0)] == [4.5, 4.5]
    assert memory.agreed == {"scale": 4.5}


def test_a_budget_that_nothing_meets_says_what_is_closest() -> None:
    study = run(None, options=OPTIONS, upper=1e-6)
    assert {trial.state for trial in study.trials} == {"infeasible"}
    assert study.closest(1)[0].values["cost"] == min(trial.values["cost"] for trial in study.trials)
    with pytest.raises(NothingMeetsBudget, match=r"none of 12 candidates meets the budget; the closest, number"):
        study.best()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_limits_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(UserError, match="needed is a finite number"):
        Constraint("latency", cost, value)


def test_figures_that_are_no_numbers_fail_the_candidate_alone() -> None:
    def measure(candidate: Candidate) -> Measured:
        return Measured(math.nan if candidate.number % 2 else merit(candidate), {"raw": [1.0]})

    study = search(space(), [Objective("merit", measure, "maximize")], [], "random", None, options=OPTIONS)
    assert [trial.state for trial in study.trials] == ["complete", "failed"] * 6
    assert study.trials[1].failure == "merit: the measure gave nan"
    assert study.trials[0].details == {"merit": {"raw": [1.0]}}


@pytest.mark.parametrize(
    ("goals", "text"),
    [
        ([], "at least one objective"),
        ([Objective("a", cost, "minimize")] * 2, "objective 'a' is given twice"),
    ],
)
def test_measures_that_contradict_are_refused(goals: list[Objective], text: str) -> None:
    with pytest.raises(UserError, match=text):
        search(space(), goals, [], "random", None, options=OPTIONS)
