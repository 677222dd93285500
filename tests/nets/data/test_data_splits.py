"""`fit`, `calibrate` and `search`: chosen once, by sequences, kept in list files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from scalenas.data.dataset import open_dataset
from scalenas.data.description import Sequences, Splits
from scalenas.data.splits import PARTS, choose, part_of_scenes, read_lists, sequence_of, write_lists
from scalenas_runtime.errors import UserError
from tests.nets.data.small_data import PEOPLE_YAML, STREETS_YAML, write_people, write_streets, write_yaml

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "data"
NAMES = [f"clip{number % 3}_{number:03}.jpg" for number in range(90)]
CLIPS = Sequences(pattern=r"^clip\d")


@pytest.mark.parametrize("sequences", [None, Sequences(pattern=r"^clip\d", block=5)], ids=["pictures", "stretches"])
def test_parts_have_their_shares_and_no_picture_twice(sequences: Sequences | None) -> None:
    parts = choose(NAMES, sequences, Splits(calibrate=0.1, search=0.2))
    everything = [name for part in parts.values() for name in part]
    assert sorted(everything) == sorted(NAMES)
    assert len(parts["search"]) == pytest.approx(18, abs=3)
    assert len(parts["calibrate"]) == pytest.approx(9, abs=3)


def test_the_seed_decides_and_the_order_of_the_names_does_not() -> None:
    splits = Splits(seed=5)
    assert choose(NAMES, None, splits) == choose(NAMES[::-1], None, splits)
    assert choose(NAMES, None, splits) != choose(NAMES, None, Splits(seed=6))


def test_whole_sequences_stay_together() -> None:
    parts = choose(NAMES, CLIPS, Splits(calibrate=0.3, search=0.3))
    clips = [{name[:5] for name in parts[part]} for part in PARTS]
    assert all(len(found) == 1 for found in clips)
    assert len(set.union(*clips)) == 3


def test_stretches_come_from_all_sequences_and_gaps_are_left_out() -> None:
    sequences = Sequences(pattern=r"^clip\d", block=5, gap=2)
    parts = choose(NAMES, sequences, Splits(calibrate=0.2, search=0.2))
    assert {name[:5] for name in parts["search"]} == {"clip0", "clip1", "clip2"}
    assert parts["unused"]
    where = {name: part for part in PARTS for name in parts[part]}
    for clip in ("clip0", "clip1", "clip2"):
        members = sorted(name for name in NAMES if name.startswith(clip))
        for place, name in enumerate(members):
            near = {where[other] for other in members[max(0, place - 2) : place + 3] if other in where}
            assert name not in where or near == {where[name]}


@pytest.mark.parametrize(
    ("pattern", "sequence"),
    [(r"^[^_]+", "0006R0"), (r"^(\d+)R", "0006"), (r"^nothing", "0006R0_f00930.png")],
    ids=["match", "group", "none"],
)
def test_sequences_by_name(pattern: str, sequence: str) -> None:
    assert sequence_of("0006R0_f00930.png", Sequences(pattern=pattern)) == sequence


def test_too_few_groups() -> None:
    with pytest.raises(UserError, match="90 pictures in 2 groups do not fill fit, calibrate and search"):
        choose([name.replace("clip2", "clip1") for name in NAMES], CLIPS, Splits())


def test_drawn_scenes_are_split_by_their_numbers() -> None:
    splits = Splits(calibrate=0.1, search=0.2)
    parts = [part_of_scenes(50, part, splits) for part in PARTS]
    assert parts == [range(35), range(35, 40), range(40, 50)]
    with pytest.raises(UserError, match="2 scenes do not fill"):
        part_of_scenes(2, "fit", splits)


def test_lists_are_written_once_and_win_afterwards(tmp_path: Path) -> None:
    write_people(tmp_path)
    path = write_yaml(tmp_path / "own.yaml", PEOPLE_YAML)
    assert open_dataset(path).split_counts() == {"fit": 12, "calibrate": 4, "search": 4, "in no list": 0}
    folder = tmp_path / "splits" / "own"
    assert sorted(file.name for file in folder.iterdir()) == ["calibrate.txt", "fit.txt", "search.txt"]
    (folder / "search.txt").write_text((folder / "search.txt").read_text().rsplit("\n", 2)[0] + "\n")
    assert open_dataset(path).split_counts() == {"fit": 12, "calibrate": 4, "search": 3, "in no list": 1}


@pytest.mark.parametrize("how", ["exclude", "missing", "both"])
def test_listed_pictures_can_be_left_out_afterwards_and_are_counted(tmp_path: Path, how: str) -> None:
    write_people(tmp_path)
    path = write_yaml(tmp_path / "own.yaml", PEOPLE_YAML)
    open_dataset(path).split_counts()
    torn = (tmp_path / "splits" / "own" / "fit.txt").read_text().splitlines()[1]
    keys = []
    if how != "missing":
        (tmp_path / "bad.txt").write_text(f"{torn}\n")
        keys.append("exclude: bad.txt")
    if how != "exclude":
        (tmp_path / torn).unlink()
        keys.append("missing: skip")
    dataset = open_dataset(path, changes=[f"train=[{{kind: coco, annotations: people.json, {', '.join(keys)}}}]"])
    counts = {"fit": 11, "calibrate": 4, "search": 4, "in no list": 0, "listed, left out": 1}
    assert dataset.split_counts() == counts
    assert torn not in [picture.name for picture in dataset.pictures(dataset.description.train[0], "fit")]


def test_a_listed_mask_that_is_missing_can_be_skipped_afterwards(tmp_path: Path) -> None:
    write_streets(tmp_path)
    path = write_yaml(tmp_path / "own.yaml", STREETS_YAML)
    open_dataset(path).split_counts()
    torn = (tmp_path / "splits" / "own" / "fit.txt").read_text().splitlines()[1]
    (tmp_path / "masks" / torn).unlink()
    changes = ["train=[{kind: folders, pictures: pictures, masks: masks, missing: skip}]"]
    assert open_dataset(path, changes=changes).split_counts()["listed, left out"] == 1


def test_lists_of_another_seed_are_not_silently_taken(tmp_path: Path) -> None:
    write_people(tmp_path)
    path = write_yaml(tmp_path / "own.yaml", PEOPLE_YAML)
    open_dataset(path).split_counts()
    with pytest.raises(UserError, match=r"fit.txt was chosen by seed 0.*the description says seed 3"):
        open_dataset(path, changes=["splits.seed=3"]).split_counts()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    write_people(tmp_path)
    (tmp_path / "file").write_text("")
    path = write_yaml(tmp_path / "own.yaml", PEOPLE_YAML)
    with pytest.raises(UserError, match=r"list files cannot be written to .*name another `splits.folder`"):
        open_dataset(path, changes=["splits.folder=file/lists"]).split_counts()


@pytest.mark.parametrize(
    ("part", "text", "match"),
    [
        ("search", "", r"search.txt lists no pictures"),
        ("search", "clip1_001.png\n", r"search.txt lists clip1_001.png, which fit.txt lists already"),
        ("fit", "nobody.png\n", r"fit.txt lists nobody.png, which is in no train source"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, part: str, text: str, match: str) -> None:
    write_people(tmp_path)
    lists = {"fit": "clip1_001.png\n", "calibrate": "clip2_002.png\n", "search": "clip3_003.png\n", part: text}
    for name, content in lists.items():
        folder = tmp_path / "splits" / "own"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text(content)
    with pytest.raises(UserError, match=match):
        open_dataset(write_yaml(tmp_path / "own.yaml", PEOPLE_YAML)).split_counts()


@pytest.mark.data
@pytest.mark.skipif("SCALENAS_DATA" not in os.environ, reason="SCALENAS_DATA names no folder of real pictures")
@pytest.mark.parametrize(("name", "search"), [("lspet", 400), ("camvid", 53)])
def test_the_shipped_lists_fit_the_real_data(name: str, search: int) -> None:
    dataset = open_dataset(CONFIGS / f"{name}.yaml", root=os.environ["SCALENAS_DATA"])
    assert dataset.split_counts()["search"] == search
    recipe = dataset.recipe((128, 96))
    for part in (*PARTS, "val"):
        samples = dataset.samples(part, recipe)
        assert samples.sample(0, np.random.default_rng(0)).picture.shape == (128, 96, 3)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    write_lists(tmp_path / "lists", choose(NAMES, None, Splits()), Splits())
    (tmp_path / "lists" / "search.txt").unlink()
    with pytest.raises(UserError, match=r"search.txt cannot be read: No such file"):
        read_lists(tmp_path / "lists", Splits())
