"""When two openings of a description are the same data to train on, and when they are not."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from scalenas.data.dataset import open_dataset
from scalenas.data.identity import training_digest
from scalenas_export.search.data import data_identity
from tests.nets.data.small_data import write_yaml


def _digest(path: Path, *changes: str) -> str:
    return training_digest(open_dataset(path, changes=changes))


def _swap(lists: Path, one: str, other: str) -> None:
    """Lets two lists exchange their first pictures."""
    files = [lists / f"{part}.txt" for part in (one, other)]
    texts = [file.read_text() for file in files]
    first, second = (text.splitlines()[1] for text in texts)
    files[0].write_text(texts[0].replace(first, second))
    files[1].write_text(texts[1].replace(second, first))


def test_where_the_files_lie_and_what_is_left_out_changes_nothing(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _digest(people)
    monkeypatch.chdir(people.parent)
    assert _digest(Path("own.yaml")) == before
    assert _digest(people, f"root={people.parent}") == before
    assert _digest(people, f"splits.folder={people.parent / 'splits' / 'own'}") == before
    (people.parent / "bad.txt").write_text((people.parent / "splits" / "own" / "fit.txt").read_text().splitlines()[1])
    assert _digest(people, "train=[{kind: coco, annotations: people.json, exclude: bad.txt}]") == before
    assert _digest(people, "train=[{kind: coco, annotations: people.json, missing: skip}]") == before


def test_a_corrected_joint_is_other_data(people: Path) -> None:
    before = _digest(people)
    file = people.parent / "people.json"
    value = json.loads(file.read_text())
    value["annotations"][0]["keypoints"][0] += 1
    file.write_text(json.dumps(value))
    assert _digest(people) != before


def test_another_mask_is_other_data(streets: Path) -> None:
    before = _digest(streets)
    mask = streets.parent / "masks" / "run0_000.png"
    assert _digest(streets) == before
    cv2.imwrite(str(mask), np.zeros((40, 56), np.uint8))
    assert _digest(streets) != before


def test_other_lists_and_other_shares_are_other_data(people: Path) -> None:
    before = _digest(people)
    assert _digest(people, "train=[{kind: coco, annotations: people.json, share: 0.5}]") != before
    _swap(people.parent / "splits" / "own", "fit", "search")
    assert _digest(people) != before


def test_drawn_scenes_are_known_by_their_description(tmp_path: Path) -> None:
    text = "task: pose\nset: lspet-14\ntrain: [{kind: synthetic, seed: 1, count: 20}]\n"
    path = write_yaml(tmp_path / "own.yaml", text)
    assert _digest(path) == _digest(path)
    assert _digest(path) != _digest(path, "splits.search=0.3")


def test_a_search_is_about_the_labels_and_lists_too(people: Path) -> None:
    def identity() -> dict[str, object]:
        return dict(data_identity(open_dataset(people), part="search", limit=None, pictures=8))

    before = identity()
    assert identity() == before
    _swap(people.parent / "splits" / "own", "calibrate", "search")
    after = identity()
    assert {key for key in before if before[key] != after[key]} == {"labels"}
