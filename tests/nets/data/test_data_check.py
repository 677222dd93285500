"""`data check`: what it counts, what it finds odd, and the sheet."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from scalenas.data.check import check
from scalenas.data.dataset import open_dataset
from scalenas.data.oddities import likely_swaps
from scalenas_export.cli.app import run
from scalenas_runtime.tasks.sets import LSPET_14
from tests.nets.data.small_data import PEOPLE_YAML, STREETS_YAML, write_people, write_streets, write_yaml


def names(folder: Path, part: str) -> list[str]:
    return (folder / "splits" / "own" / f"{part}.txt").read_text().splitlines()[1:]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    write_people(tmp_path)
    path = write_yaml(tmp_path / "own.yaml", PEOPLE_YAML)
    open_dataset(path).split_counts()
    return path


def test_counts_sizes_and_shares(tmp_path: Path) -> None:
    write_streets(tmp_path)
    report = check(open_dataset(write_yaml(tmp_path / "own.yaml", STREETS_YAML)))
    plain = report.to_json()["parts"]
    assert isinstance(plain, dict)
    assert plain["fit"]["pictures"] == 12
    assert plain["fit"]["height"] == {"smallest": 40, "median": 40, "largest": 40}
    shares = plain["fit"]["pixel_share"]
    assert list(shares) == ["road", "sky", "car", "ignored"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert report.faults == 0


def test_unreadable_pictures_are_listed_by_name(people: Path) -> None:
    folder = people.parent
    torn = names(folder, "fit")[0]
    (folder / torn).write_bytes((folder / torn).read_bytes()[:200])
    report = check(open_dataset(people))
    assert list(report.parts["fit"].unreadable) == [torn]
    assert "truncated" in report.parts["fit"].unreadable[torn]
    assert report.faults == 1


def test_the_same_picture_in_two_parts_is_a_leak(people: Path) -> None:
    folder = people.parent
    fit, search = names(folder, "fit")[0], names(folder, "search")[0]
    (folder / search).write_bytes((folder / fit).read_bytes())
    report = check(open_dataset(people))
    assert [(leak.kind, leak.first, leak.second) for leak in report.leaks] == [
        ("identical", ("fit", fit), ("search", search))
    ]
    assert report.faults == 1


def test_the_same_photograph_at_another_size_and_quality_looks_alike(people: Path) -> None:
    folder = people.parent
    scene = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (60, 50, 3)).astype(np.uint8), (0, 0), 6)
    scene = np.clip(4.0 * (scene.astype(np.float64) - 128) + 128, 0, 255).astype(np.uint8)
    fit, search = names(folder, "fit")[0], names(folder, "search")[0]
    cv2.imwrite(str(folder / fit), scene)
    cv2.imwrite(str(folder / search), cv2.convertScaleAbs(scene, alpha=0.9, beta=8))
    leaks = check(open_dataset(people)).leaks
    assert [(leak.kind, leak.first[1], leak.second[1]) for leak in leaks] == [("alike", fit, search)]


def test_sequences_that_parts_share_are_shown(tmp_path: Path) -> None:
    write_streets(tmp_path)
    text = STREETS_YAML.replace("masks: masks", "masks: masks\n    sequences: {pattern: '^run.', block: 2}")
    leaks = check(open_dataset(write_yaml(tmp_path / "own.yaml", text))).leaks
    assert {leak.kind for leak in leaks} == {"sequence"}
    assert {leak.first[1] for leak in leaks} == {"run0", "run1"}


def test_odd_labels_are_named(people: Path) -> None:
    file = people.parent / "people.json"
    value = json.loads(file.read_text())
    by_name = {image["file_name"]: image["id"] for image in value["images"]}
    odd_name, small_name, *_ = names(people.parent, "fit")
    for person in value["annotations"]:
        if person["image_id"] == by_name[odd_name]:
            person["keypoints"][:2] = [70.0, 10.0]
        if person["image_id"] == by_name[small_name]:
            person["bbox"] = [20, 20, 6, 8]
    file.write_text(json.dumps(value))
    found = {(odd.picture, odd.kind) for odd in check(open_dataset(people)).parts["fit"].odd}
    assert {(odd_name, "outside picture"), (small_name, "small box")} <= found


def test_swapped_ankles_are_likely_and_crossed_wrists_of_a_normal_pose_are_not() -> None:
    places = {
        "ankle": (20, 100),
        "knee": (20, 75),
        "hip": (20, 50),
        "shoulder": (28, 10),
        "elbow": (36, 30),
        "wrist": (36, 48),
        "neck": (0, 8),
        "head_top": (0, -10),
    }
    points = np.zeros((14, 2))
    for index, joint in enumerate(LSPET_14.joints):
        x, y = places[joint.removeprefix("left_").removeprefix("right_")]
        points[index] = (-x if joint.startswith("right") else x, y)
    labelled = np.ones(14, np.bool_)
    assert likely_swaps(points, labelled, LSPET_14) == []
    swapped = points.copy()
    left, right = LSPET_14.joints.index("left_ankle"), LSPET_14.joints.index("right_ankle")
    swapped[[left, right]] = swapped[[right, left]]
    (line,) = likely_swaps(swapped, labelled, LSPET_14)
    assert line.startswith("left_knee to left_ankle and the other side's")
    labelled[left] = False
    assert likely_swaps(swapped, labelled, LSPET_14) == []


def test_the_verb_prints_json_and_writes_a_sheet(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = people.parent / "runs"
    assert run(["data", "check", str(people), "--json", "--size", "64x64", "--runs", str(runs)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sources"]["splits"] == {"fit": 12, "calibrate": 4, "search": 4, "in no list": 0}
    assert any("flip_pairs" in line for line in report["derived"])
    sheet = cv2.imread(str(Path(report["folder"]) / "sheet.png"))
    assert sheet is not None
    assert sheet.shape == (4 * 68 + 4, 8 * 68 + 4, 3)
    assert json.loads((runs / "data" / "1" / "report.json").read_text())["faults"] == 0


def test_a_joint_that_nobody_labels_is_a_line_of_the_report(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_people(people.parent / "more", joints=("left_hand", "tail"))
    sources = "{kind: coco, annotations: people.json}, {kind: coco, annotations: more/people.json}"
    changes = [f"train=[{sources}]", "names=[left_hand, right_hnad, tail]", "splits.folder=new"]
    given = [text for each in changes for text in ("--set", each)]
    assert run(["data", "check", str(people), *given, "--size", "64x64", "--runs", str(people.parent / "runs")]) == 0
    assert "warning: no train source labels the joint 'right_hnad' (did you" in capsys.readouterr().out


def test_the_verb_fails_on_faults_and_takes_another_root(
    people: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_people(elsewhere)
    torn = names(people.parent, "search")[0]
    (elsewhere / torn).write_bytes(b"no picture")
    runs = str(elsewhere / "runs")
    code = run(["data", "check", str(people), "--root", str(elsewhere), "--runs", runs, "--set", "splits.seed=0"])
    printed = capsys.readouterr()
    assert code == 4
    assert "1 faults: unreadable files" in printed.err
    assert f"unreadable: {elsewhere / torn}" in printed.out
    assert (elsewhere / "runs" / "data" / "1" / "unreadable.txt").read_text() == f"{torn}\n"


def test_the_verb_names_a_wrong_key(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(people), "--set", "split.seed=1"]) == 2
    assert "did you mean `splits`" in capsys.readouterr().err
