"""Killed workers: nothing is lost, nothing is measured twice, and the sequence is that of an undisturbed run."""

import json
import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from scalenas.search import SearchOptions, Study
from scalenas.search.storage import NoStudy
from tests.nets.search.search_worker import SETTINGS, run

ROOT = Path(__file__).parents[3]
WORKER = "tests.nets.search.search_worker"


def start(
    storage: str, log: Path, *, sampler: str = "topology", pause: float = 0.02, **options: object
) -> subprocess.Popen[bytes]:
    given = {"sampler": sampler, "options": options, "log": str(log), "pause": pause}
    return subprocess.Popen([sys.executable, "-m", WORKER, storage, json.dumps(given)], cwd=ROOT)


def finished(study: Study) -> list[tuple[object, ...]]:
    return [(t.number, t.spec.canonical, t.state, dict(t.values), t.origin) for t in study.trials]


def lines(log: Path) -> int:
    return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


def wait_for_lines(log: Path, count: int, worker: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while lines(log) < count and worker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    storage, log = str(tmp_path / "study.db"), tmp_path / "log"
    moments = random.Random(0)
    kills = 0
    while True:
        worker = start(storage, log, n_trials=40, max_tries=50)
        # Some candidates in, at a moment that hits any step of the loop: proposing, measuring, writing.
        wait_for_lines(log, lines(log) + moments.randint(1, 10), worker)
        time.sleep(moments.uniform(0, 0.03))
        worker.kill()
        if worker.wait() == 0:
            break
        kills += 1
        if kills >= 5:
            assert start(storage, log, n_trials=40, max_tries=50).wait(timeout=240) == 0
            break
    found = finished(Study.open(storage))
    undisturbed = run(None, options=SearchOptions(settings=SETTINGS, n_trials=40))
    assert found == finished(undisturbed)
    assert kills >= 3
    keys = [line.split()[1] for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(set(keys)) == 40
    # At most the candidate in flight is measured anew.
    assert len(keys) <= 40 + kills


@pytest.mark.slow
def test_workers_share_a_study_and_take_over_from_a_dead_one(tmp_path: Path) -> None:
    storage, log = str(tmp_path / "study.db"), tmp_path / "log"
    workers = [start(storage, log, pause=0.1, n_trials=24) for _ in range(3)]
    wait_for_lines(log, 6, workers[0])
    workers[0].kill()
    assert [worker.wait(timeout=240) for worker in workers][1:] == [0, 0]
    study = Study.open(storage)
    check_nothing_lost_and_none_twice(study, log, 24)


def check_nothing_lost_and_none_twice(study: Study, log: Path, count: int) -> None:
    trials = study.trials
    assert [trial.number for trial in trials] == list(range(count))
    assert {trial.state for trial in trials} == {"complete"}
    assert study.running == 0
    assert len({trial.candidate.key for trial in trials}) == count
    keys = [line.split()[1] for line in log.read_text(encoding="utf-8").splitlines()]
    assert set(keys) == {trial.candidate.key for trial in trials}
    assert len(keys) <= count + 1


def postgresql() -> str | None:
    file = ROOT / "build" / "postgresql.url"
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


@pytest.mark.slow
def test_four_workers_on_postgresql_lose_nothing_when_one_is_killed(tmp_path: Path) -> None:
    url = postgresql()
    if url is None:
        pytest.skip("no PostgreSQL server: `make ci-services` starts one")
    pytest.importorskip("psycopg", reason="psycopg (extra postgresql) is not installed")
    name, log = f"test-{time.time_ns()}", tmp_path / "log"
    workers = [start(url, log, pause=0.1, n_trials=32, name=name) for _ in range(4)]
    wait_for_lines(log, 8, workers[0])
    workers[0].kill()
    assert [worker.wait(timeout=240) for worker in workers][1:] == [0, 0, 0]
    study = Study.open(url, name)
    check_nothing_lost_and_none_twice(study, log, 32)
    pids = {line.split()[2] for line in log.read_text(encoding="utf-8").splitlines()}
    assert len(pids) >= 2
    study.close()


@pytest.mark.slow
def test_a_new_postgresql_database_has_no_study_yet() -> None:
    url = postgresql()
    if url is None:
        pytest.skip("no PostgreSQL server: `make ci-services` starts one")
    psycopg = pytest.importorskip("psycopg", reason="psycopg (extra postgresql) is not installed")
    name = f"empty_{time.time_ns()}"
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    empty = f"{url.rpartition('/')[0]}/{name}"
    with pytest.raises(NoStudy, match="holds no studies"):
        Study.open(empty, "search")
    run(empty, options=SearchOptions(settings=SETTINGS, n_trials=1)).close()
    with pytest.raises(NoStudy, match="has no study 'other'; it has 'search'"):
        Study.open(empty, "other")


def test_a_study_whose_maker_died_at_once_is_begun_again(tmp_path: Path) -> None:
    import optuna

    storage = str(tmp_path / "study.db")
    # What a kill between the making of a study and its first words leaves.
    optuna.create_study(storage=f"sqlite:///{storage}", study_name="search", directions=["minimize", "maximize"])
    with pytest.raises(NoStudy, match=r"'search' of .* is empty"):
        Study.open(storage)
    study = run(storage, options=SearchOptions(settings=SETTINGS, n_trials=1))
    assert len(study.trials) == 1
    study.close()
