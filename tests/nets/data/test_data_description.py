"""`data.yaml`: strict keys, what is derived, sources of every kind, and clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from scalenas.data.augmentation import SegmentationAugmentation
from scalenas.data.dataset import open_dataset
from scalenas.data.description import read_description
from scalenas_runtime.errors import UserError
from scalenas_runtime.readers import KeypointData, PairData
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe
from scalenas_runtime.tasks.sets import CITYSCAPES_19
from tests.nets.data.small_data import STREETS_YAML, write_people, write_streets, write_yaml

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "data"


def test_everything_about_joints_is_derived_from_the_coco_file(people: Path) -> None:
    dataset = open_dataset(people)
    assert dataset.joints is not None
    assert dataset.joints.joints == ("left_hand", "right_hand", "left_toe", "right_toe")
    assert dataset.joints.edges == ((0, 2), (1, 3))
    assert dataset.joints.flip_pairs == ((0, 1), (2, 3))
    assert dataset.joints.sigmas == (0.089,) * 4
    text = "\n".join(dataset.derived)
    for part in ("names: 4 joints of the annotation file", "skeleton: 2 edges", "left_hand and right_hand", "sigmas"):
        assert part in text


def test_what_the_description_says_wins(people: Path) -> None:
    changes = [
        "names=[right_toe, left_toe, left_hand]",
        "skeleton=[[left_hand, left_toe]]",
        "flip_pairs=[[left_toe, right_toe]]",
        "sigmas=[0.1, 0.1, 0.2]",
    ]
    dataset = open_dataset(people, changes=changes)
    assert dataset.joints is not None
    assert dataset.joints.edges == ((2, 1),)
    assert dataset.joints.flip_pairs == ((1, 0),)
    assert dataset.joints.sigmas == (0.1, 0.1, 0.2)
    assert dataset.derived == ()
    recipe = dataset.recipe((64, 64))
    assert isinstance(recipe, PoseRecipe)
    sample = dataset.samples("fit", recipe).sample(0, np.random.default_rng(0))
    assert sample.weight is not None
    assert sample.weight.tolist() == [1, 1, 1]


def test_a_joint_that_the_only_source_does_not_label_is_an_error_with_the_nearest_name(people: Path) -> None:
    text = r"no train source labels the joint 'right_hnad' \(did you mean 'right_hand'\?\).*leave the joint out"
    with pytest.raises(UserError, match=text):
        open_dataset(people, changes=["names=[left_hand, right_hnad, left_toe, right_toe]"])


def test_a_joint_that_no_source_labels_is_said_and_one_that_another_source_labels_is_not(people: Path) -> None:
    write_people(people.parent / "more", joints=("left_hand", "tail"))
    sources = "{kind: coco, annotations: people.json}, {kind: coco, annotations: more/people.json}"
    dataset = open_dataset(people, changes=[f"train=[{sources}]", "names=[left_hand, right_hnad, tail]"])
    (line,) = dataset.warnings
    assert line.startswith("no train source labels the joint 'right_hnad' (did you mean 'right_hand'?)")
    sample = dataset.samples("fit", dataset.recipe((64, 64))).sample(0, np.random.default_rng(0))
    assert sample.weight is not None
    assert sample.weight.tolist() == [1, 0, 0]


def test_sources_of_other_joints_and_orders_are_judged_by_name(people: Path) -> None:
    write_people(people.parent / "more", joints=("right_toe", "tail", "left_hand"))
    sources = "{kind: coco, annotations: people.json}, {kind: coco, annotations: more/people.json}"
    dataset = open_dataset(people, changes=[f"train=[{sources}]"])
    data = dataset.labelled("search", size=(64, 64))
    assert isinstance(data, KeypointData)
    assert data.joints == ("left_hand", "right_hand", "left_toe", "right_toe")
    first, second = (dataset.pictures(source, "search") for source in dataset.description.train)
    given = list(data)
    assert [each.id for each in given] == list(range(1, len(first) + len(second) + 1))
    np.testing.assert_array_equal(given[0].joints, first[0].joints)  # type: ignore[union-attr]
    other = second[0].joints  # type: ignore[union-attr]
    mixed = given[len(first)].joints
    np.testing.assert_array_equal(mixed[:, 0], other[:, 2])
    np.testing.assert_array_equal(mixed[:, 3], other[:, 0])
    assert not mixed[:, 1:3].any()


def test_classes_get_a_palette(streets: Path) -> None:
    dataset = open_dataset(streets)
    assert dataset.classes is not None
    assert len(set(dataset.classes.palette)) == 3
    assert dataset.classes.ignore == 9
    assert dataset.derived == ("palette: hues around the colour circle",)
    assert isinstance(dataset.recipe((64, 64)), SegmentationRecipe)


def test_masks_by_colour_and_by_mapped_label_give_the_same_maps(tmp_path: Path, streets: Path) -> None:
    write_streets(tmp_path / "coloured", coloured=True)
    given = STREETS_YAML.replace(
        "masks: masks", "masks: masks\n    colours: {road: [[10, 20, 30]], sky: [[200, 0, 0]]}"
    )
    text = given + "palette: [[1, 1, 1], [2, 2, 2], [0, 0, 200]]\nroot: coloured\n"
    coloured = open_dataset(write_yaml(tmp_path / "colour.yaml", text))
    mapped = open_dataset(
        streets, changes=["train=[{kind: folders, pictures: pictures, masks: masks, mapping: {2: road}}]"]
    )
    plain = open_dataset(streets)
    for part in ("fit", "search"):
        triples = zip(*(dataset.labelled(part, size=(32, 32)) for dataset in (plain, coloured, mapped)), strict=True)
        for by_label, by_colour, changed in triples:
            labels = by_label.read_labels()
            assert np.array_equal(labels, by_colour.read_labels())
            assert np.array_equal(np.where(labels == 2, 0, labels), changed.read_labels())


def test_cityscapes_layout_and_label_ids(tmp_path: Path) -> None:
    ids = np.array([[7, 8, 11, 12, 0, 33, 26, 255]], np.uint8).repeat(8, 0)
    for number in range(12):
        stem = f"aachen_{number // 3:06}_{number:06}"
        for kind, name, value in (
            ("leftImg8bit", "leftImg8bit", np.zeros((8, 8, 3), np.uint8)),
            ("gtFine", "gtFine_labelIds", ids),
            ("gtFine", "gtFine_color", np.zeros((8, 8, 3), np.uint8)),
        ):
            folder = tmp_path / "city" / kind / "train" / "aachen"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{stem}_{name}.png"), value)
    source = "train: [{kind: cityscapes, folder: city, part: train}]"
    text = f"task: segmentation\n{source}\nsplits: {{calibrate: 0.25, search: 0.25}}"
    dataset = open_dataset(write_yaml(tmp_path / "city.yaml", text))
    assert dataset.classes is not None
    assert dataset.classes.classes == CITYSCAPES_19.classes
    assert dataset.split_counts() == {"fit": 6, "calibrate": 3, "search": 3, "in no list": 0}
    data = dataset.labelled("search", size=(32, 32))
    assert isinstance(data, PairData)
    assert next(iter(data)).read_labels()[0].tolist() == [0, 1, 2, 3, 255, 18, 13, 255]
    assert {pair.name.split("_")[1] for pair in data} == {next(iter(data)).name.split("_")[1]}


def test_real_and_drawn_sources_mix_and_drawn_scenes_serve_fit_alone(people: Path) -> None:
    text = people.read_text().replace(
        "splits:", "  - {kind: synthetic, seed: 1, count: 50, share: 0.5}\nset: lspet-14\nsplits:"
    )
    write_people(people.parent, joints=("left_hip", "right_hip", "left_knee", "right_knee"))
    dataset = open_dataset(write_yaml(people.parent / "mixed.yaml", text))
    recipe = dataset.recipe((64, 64))
    assert dataset.split_counts() == {"fit": 12 + 50, "calibrate": 4, "search": 4, "in no list": 0}
    fit = dataset.samples("fit", recipe)
    assert len(fit) == 12 + 6
    rng = np.random.default_rng(0)
    real, drawn = (fit.sample(index, rng).weight for index in (0, 17))
    assert real is not None
    assert drawn is not None
    assert real.sum() == 4
    assert drawn.sum() > 8
    assert len(dataset.labelled("search", size=(64, 64))) == 4


def test_evaluation_sees_the_pictures_of_the_part(people: Path) -> None:
    dataset = open_dataset(people)
    data = dataset.labelled("search", size=(64, 64))
    assert isinstance(data, KeypointData)
    listed = (dataset.lists / "search.txt").read_text().splitlines()[1:]
    assert [picture.name for picture in data] == listed
    assert data.joints == ("left_hand", "right_hand", "left_toe", "right_toe")


@pytest.mark.parametrize("name", ["lspet", "camvid", "synthetic-pose", "synthetic-street"])
def test_shipped_descriptions_are_read(name: str) -> None:
    description = read_description(CONFIGS / f"{name}.yaml")
    assert description.task == ("pose" if name in ("lspet", "synthetic-pose") else "segmentation")


@pytest.mark.parametrize("name", ["synthetic-pose", "synthetic-street"])
def test_shipped_synthetic_descriptions_need_no_data(name: str) -> None:
    dataset = open_dataset(CONFIGS / f"{name}.yaml", changes=["train=[{kind: synthetic, seed: 1, count: 10}]"])
    recipe = dataset.recipe((64, 64))
    parts = {part: dataset.samples(part, recipe) for part in ("fit", "calibrate", "search")}
    names = [samples.name(index) for samples in parts.values() for index in range(len(samples))]
    assert names == [f"synthetic-1-{index}" for index in range(10)]
    one = parts["search"].sample(0, np.random.default_rng(0))
    assert one.picture.shape == (64, 64, 3)
    data = dataset.labelled("search", size=(64, 64))
    assert [picture.name for picture in data] == ["synthetic-1-9"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("train:", "trian: 1\ntrain:", r"unknown field `trian`.*did you mean `train`"),
        ("annotations:", "anotations:", r"unknown field `anotations`.*did you mean `annotations`"),
        ("kind: coco", "kind: folders\n    pictures: a\n    masks: b", "unknown field|takes sources of kind"),
        ("kind: coco", "kind: coco\n    share: 0", "share 0 must be positive"),
        ("calibrate: 0.2", "calibrate: 0", r"calibrate 0.0 and search 0.2 must be shares"),
        ("calibrate: 0.2", "seed: -1", "seed -1 must not be negative"),
        ("task: pose", "task: pose\npalette: [[0, 0, 0]]", "`palette` means nothing for task pose"),
        ("task: pose", "task: pose\nnames: [a, a]", "names must be distinct joints, got a, a"),
        ("task: pose", "task: pose\nset: lspet-15", "no joint set is called 'lspet-15'"),
        ("task: pose", "task: pose\nset: lspet-14", "labels the joints .*, none of right_ankle"),
        (
            "task: pose",
            "task: pose\nskeleton: [[left_hand, tail]]",
            "skeleton names the joint 'tail'; there are left_hand",
        ),
        ("task: pose", "task: pose\nsigmas: [0.1]", "sigmas must be 4 positive numbers"),
        ("task: pose", "task: pose\nroot: elsewhere", r"people.json cannot be read: No such file.*looked for in"),
        ("kind: coco", "kind: synthetic\n    seed: 1\n    count: 0", "unknown field|count 0 must be positive"),
        ("kind: coco", "kind: coco\n    exclude: none.txt", "none.txt cannot be read: No such file"),
        ("kind: coco", "kind: coco\n    sequences: {pattern: '(', block: 1}", r"'\(' is no regular expression"),
        ("kind: coco", "kind: coco\n    sequences: {pattern: a, gap: -1}", "gap -1 must not be negative"),
    ],
)
def test_descriptions_that_do_not_fit(people: Path, old: str, new: str, text: str) -> None:
    changed = write_yaml(people.parent / "bad.yaml", people.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=text):
        open_dataset(changed).split_counts()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("names: [road, sky, car]", "", "needs `names` or `set`: masks do not say"),
        ("names: [road, sky, car]", "names: [road]", "names must be 2 to 255 distinct classes, got road"),
        ("ignore: 9", "ignore: 2", r"ignore 2 must be in 3\.\.255"),
        ("ignore: 9", "palette: [[0, 0, 0]]", r"palette must be 3 colours \[R, G, B\]"),
        (
            "masks: masks",
            "masks: masks\n    mapping: {1: tree}",
            "mapping names the class 'tree'; there are road, sky, car",
        ),
        ("masks: masks", "masks: nothing", "nothing is no folder"),
        ("task: segmentation", "task: segmentation\nsigmas: [1]", "`sigmas` means nothing for task segmentation"),
    ],
)
def test_segmentation_descriptions_that_do_not_fit(streets: Path, old: str, new: str, text: str) -> None:
    changed = write_yaml(streets.parent / "bad.yaml", streets.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=text):
        open_dataset(changed)


def test_a_drawn_pose_set_needs_names(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "d.yaml", "task: pose\ntrain: [{kind: synthetic, seed: 1, count: 9}]")
    with pytest.raises(UserError, match="needs `names` or `set`, because no annotation file"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("content", "changes", "text"),
    [
        ("a: [", (), "is not YAML"),
        ("- a", (), "must hold keys and values, got list"),
        ("task: pose", ("root",), "a change is key=value, such as root=/data, got 'root'"),
        ("task: pose", ("root=[",), "root of the change 'root=\\['"),
        ("task: pose", ("task.x=1",), "task.x cannot be set, because a part of it is no group"),
    ],
)
def test_files_and_changes_that_do_not_fit(tmp_path: Path, content: str, changes: tuple[str, ...], text: str) -> None:
    with pytest.raises(UserError, match=text):
        read_description(write_yaml(tmp_path / "d.yaml", content), changes)


def test_a_missing_description(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"d.yaml cannot be read: No such file"):
        read_description(tmp_path / "d.yaml")


def test_an_annotation_without_its_picture_stops_or_is_counted(people: Path) -> None:
    (people.parent / "clip1_001.png").unlink()
    with pytest.raises(UserError, match=r"its picture clip1_001.png is not in"):
        open_dataset(people)
    source = "train=[{kind: coco, annotations: people.json, missing: skip}]"
    dataset = open_dataset(people, changes=[source])
    assert dataset.opened(dataset.description.train[0]).counts["missing_pictures"] == 1
    assert sum(dataset.split_counts().values()) == 19


def test_a_person_whose_box_lies_outside_the_picture_is_no_sample(people: Path) -> None:
    file = people.parent / "people.json"
    before = len(open_dataset(people).samples("fit", open_dataset(people).recipe((64, 64))))
    listed = (people.parent / "splits" / "own" / "fit.txt").read_text().splitlines()[1]
    value = json.loads(file.read_text())
    (number,) = [image["id"] for image in value["images"] if image["file_name"] == listed]
    value["annotations"][number - 1]["bbox"] = [50, 10, 20, 20]
    file.write_text(json.dumps(value))
    dataset = open_dataset(people)
    assert len(dataset.samples("fit", dataset.recipe((64, 64)))) == before - 1
    counts = dataset.opened(dataset.description.train[0]).counts
    assert (counts["usable_people"], counts["people_without_box"]) == (19, 1)


def test_excluded_pictures_are_counted(people: Path) -> None:
    (people.parent / "bad.txt").write_text("# torn\nclip1_001.png\n")
    source = "train=[{kind: coco, annotations: people.json, exclude: bad.txt}]"
    dataset = open_dataset(people, changes=[source])
    assert dataset.opened(dataset.description.train[0]).counts["excluded"] == 1
    assert sum(dataset.split_counts().values()) == 19
    (people.parent / "bad.txt").write_text("clip9.png\n")
    with pytest.raises(UserError, match=r"bad.txt excludes clip9.png, which is no picture of its source"):
        open_dataset(people, changes=[source])


def test_a_file_without_labelled_people(people: Path) -> None:
    value = json.loads((people.parent / "people.json").read_text())
    value["annotations"] = []
    (people.parent / "people.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="holds no person with a labelled joint"):
        open_dataset(people)


def test_unknown_parts_and_other_tasks_are_refused(people: Path) -> None:
    dataset = open_dataset(people)
    recipe = dataset.recipe((64, 64))
    with pytest.raises(UserError, match="there is no part 'train'; known: fit, calibrate, search, val, test"):
        dataset.samples("train", recipe)
    with pytest.raises(UserError, match=r"own.yaml names no sources under `val`"):
        dataset.labelled("val", size=(64, 64))
    with pytest.raises(UserError, match="is of task pose; recipe and augmentation must be too"):
        dataset.samples("fit", recipe, augmentation=SegmentationAugmentation())
