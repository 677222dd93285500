"""What the loader feeds: the same batches whatever the workers and ranks, and loud failures."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from scalenas.data.loader import Batch, batches
from scalenas.data.samples import Mixture, Sample
from scalenas_runtime.errors import UserError
from tests.nets.data.numbered import Numbered


def flat(batch: Batch) -> tuple[bytes, bytes, bytes]:
    assert batch.weight is not None
    return batch.pictures.numpy().tobytes(), batch.target.numpy().tobytes(), batch.weight.numpy().tobytes()


def indices(batch: Batch) -> list[int]:
    found: list[int] = batch.pictures[:, 0, 0, 0].tolist()
    return found


@pytest.fixture(scope="module")
def undisturbed() -> list[Batch]:
    return list(batches(Numbered(11), batch=4, seed=3, steps=9))


def test_batches_have_the_stated_form(undisturbed: list[Batch]) -> None:
    batch = undisturbed[0]
    assert batch.pictures.dtype == torch.uint8
    assert batch.pictures.shape == (4, 4, 4, 3)
    assert batch.target.shape == (4, 2, 1, 1)
    assert batch.weight is not None
    assert batch.weight.shape == (4, 2)


@pytest.mark.parametrize("workers", [1, 3], ids=["one worker", "three workers"])
def test_workers_change_no_batch(undisturbed: list[Batch], workers: int) -> None:
    with closing(batches(Numbered(11), batch=4, seed=3, steps=9, workers=workers)) as made:
        assert [flat(batch) for batch in made] == [flat(batch) for batch in undisturbed]


def test_a_run_resumed_at_step_five_goes_on_as_if_undisturbed(undisturbed: list[Batch]) -> None:
    resumed = list(batches(Numbered(11), batch=4, seed=3, first_step=5, steps=4))
    assert [flat(batch) for batch in resumed] == [flat(batch) for batch in undisturbed[5:]]


def test_ranks_partition_the_global_batch(undisturbed: list[Batch]) -> None:
    ranks = [list(batches(Numbered(11), batch=4, seed=3, steps=9, rank=rank, world=2)) for rank in range(2)]
    for whole, *parts in zip(undisturbed, *ranks, strict=True):
        assert torch.equal(torch.cat([part.pictures for part in parts]), whole.pictures)


def test_every_epoch_holds_each_sample_once_in_a_new_order(undisturbed: list[Batch]) -> None:
    run = [index for batch in undisturbed for index in indices(batch)]
    epochs = [run[start : start + 11] for start in (0, 11, 22)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_seed_decides_order_and_chance(undisturbed: list[Batch]) -> None:
    other = next(iter(batches(Numbered(11), batch=4, seed=4, steps=1)))
    assert flat(other) != flat(undisturbed[0])


def test_a_sample_has_new_chance_in_every_epoch() -> None:
    first, second = batches(Numbered(1), batch=1, seed=0, steps=2)
    assert indices(first) == indices(second)
    assert flat(first) != flat(second)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_used_is_named(workers: int) -> None:
    made = batches(Numbered(4, bad=2), batch=2, seed=0, steps=4, workers=workers)
    with closing(made), pytest.raises(UserError, match=r"/data/im2.jpg is truncated"):
        list(made)


@pytest.mark.parametrize("workers", [0, 1])
def test_any_other_failure_names_the_sample_and_the_step(workers: int) -> None:
    made = batches(Numbered(4, bad=2, how="bug"), batch=4, seed=0, steps=4, workers=workers)
    with closing(made), pytest.raises(RuntimeError, match=r"sample 2 \(im2.jpg\) of step 0 failed: ZeroDivisionError"):
        list(made)


@pytest.mark.parametrize("closed", [True, False])
def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_parent(closed: bool) -> None:
    program = (
        "import os, signal, sys, threading; from scalenas.data.loader import batches\n"
        "from tests.nets.data.numbered import Numbered\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, lambda *_: None)\n"
        # From before the first worker starts until all work.
        "    heard = threading.Event()\n"
        "    def tell():\n"
        "        while not heard.wait(0.01): os.killpg(0, signal.SIGTERM)\n"
        "    threading.Thread(target=tell, daemon=True).start()\n"
        "    made = batches(Numbered(64), batch=1, seed=0, steps=64, workers=2)\n"
        "    print(sum(1 for _ in zip(range(40), made))); heard.set()\n"
        + ("    made.close()\n" if closed else "    sys.modules['held'] = made\n")
    )
    root = Path(__file__).resolve().parents[3]
    paths = os.pathsep.join([str(root), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "40"), done.stderr


def test_a_killed_worker_is_an_error_and_no_hang() -> None:
    made = batches(Numbered(64, bad=50, how="kill"), batch=1, seed=0, steps=64, workers=2)
    with closing(made), pytest.raises(UserError, match=r"worker loader-\d of the loader died \(SIGKILL"):
        list(made)
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("loader")]


def test_closing_ends_the_workers() -> None:
    made = batches(Numbered(64), batch=1, seed=0, steps=1000, workers=2)
    assert len(list(islice(made, 2))) == 2
    assert [child for child in multiprocessing.active_children() if child.name.startswith("loader")]
    made.close()
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("loader")]


def test_workers_run_ahead_by_a_bounded_number_of_steps() -> None:
    # The seventh step fails, and nobody asks for it: a loader without a bound would reach it and tear down the first.
    order = [int(batch.pictures[0, 0, 0, 0]) for batch in batches(Numbered(9), batch=1, seed=0, steps=9)]
    made = batches(Numbered(9, bad=order[6], how="kill"), batch=1, seed=0, steps=9, workers=1)
    with closing(made):
        taken = [int(next(made).pictures[0, 0, 0, 0])]
        time.sleep(0.3)
        taken.append(int(next(made).pictures[0, 0, 0, 0]))
    assert taken == order[:2]


def test_samples_that_cannot_travel_say_so() -> None:
    class Local(Numbered):
        pass

    with pytest.raises(TypeError, match=r"cannot be sent to worker processes .*workers=0"):
        next(batches(Local(4), batch=1, seed=0, steps=1, workers=1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch": 3, "world": 2}, "global batch 3 must be a positive multiple of the 2 processes"),
        ({"batch": 0}, "global batch 0 must be a positive multiple"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"workers": -1}, "workers -1 must not be negative"),
        ({"first_step": -1}, "first_step -1"),
        ({"rank": 2, "world": 2}, r"rank 2 is outside 0\.\.1"),
    ],
    ids=["odd batch", "no batch", "seed", "workers", "first step", "rank"],
)
def test_numbers_that_do_not_fit(options: dict[str, int], text: str) -> None:
    given = {"batch": 2, "seed": 0, "steps": 1, **options}
    with pytest.raises(ValueError, match=text):
        batches(Numbered(4), **given)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(UserError, match="no samples to train on: the split is empty"):
        batches(Numbered(0), batch=1, seed=0, steps=1)


def test_samples_of_different_shapes_are_refused() -> None:
    class Uneven(Numbered):
        def sample(self, index: int, rng: np.random.Generator) -> Sample:
            return Sample(np.zeros((4, 4, 3), np.uint8), np.zeros(1), None if index else np.ones(1, np.float32))

    with pytest.raises(ValueError, match="1 of 2 samples of a batch have a weight"):
        next(batches(Uneven(2), batch=2, seed=0, steps=1))


def test_a_mixture_keeps_the_shares_and_shows_the_first_source_once() -> None:
    mixed = Mixture([(Numbered(20), 0.8), (Numbered(200), 0.2)])
    assert len(mixed) == 25
    rng = np.random.default_rng(0)
    seen = [int(mixed.sample(index, rng).picture[0, 0, 0]) for index in range(25)]
    assert seen[:20] == list(range(20))
    assert len(set(seen[20:])) > 3
    assert mixed.name(3) == "im3.jpg"
    assert mixed.name(21) == "source 1 of the mixture"


def test_a_small_source_repeats() -> None:
    mixed = Mixture([(Numbered(6), 0.5), (Numbered(2), 0.5)])
    rng = np.random.default_rng(0)
    assert [int(mixed.sample(index, rng).picture[0, 0, 0]) for index in range(12)] == [*range(6), 0, 1, 0, 1, 0, 1]
    assert mixed.name(9) == "im1.jpg"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], "at least one source"),
        ([(Numbered(2), 0.0)], "source 0 of the mixture has the share 0; it must be positive"),
        ([(Numbered(2), 1.0), (Numbered(0), 1.0)], "source 1 of the mixture has no samples"),
    ],
    ids=["none", "share", "empty"],
)
def test_mixtures_that_do_not_fit(parts: list[tuple[Numbered, float]], text: str) -> None:
    with pytest.raises(UserError, match=text):
        Mixture(parts)


def test_a_mixture_ends() -> None:
    with pytest.raises(IndexError, match=r"sample 4 is outside 0\.\.3"):
        Mixture([(Numbered(4), 1.0)]).name(4)


def test_worker_processes_start_without_torch() -> None:
    code = "import sys, scalenas.data.dataset, scalenas.data.workers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
