"""COCO detection files give each picture its boxes; every malformed entry is named by its index."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenas_runtime.boxes import Detections, read_boxes
from scalenas_runtime.errors import UserError
from scalenas_runtime.sources import Frame

BLACK = np.zeros((4, 4, 3), np.uint8)


def picture(name: str) -> Frame:
    return Frame(BLACK, name, 0, path=Path("folder") / name)


def write(folder: Path, document: object) -> Path:
    path = folder / "boxes.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def entry(image_id: Any = 397133, bbox: Any = (10, 20, 30, 40), **fields: Any) -> dict[str, Any]:
    return {"image_id": image_id, "bbox": list(bbox) if isinstance(bbox, tuple) else bbox, **fields}


def test_corners_and_scores_come_out_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(score=0.5), entry(bbox=(0.5, 0, 1, 1)), entry(image_id=7)])
    table = read_boxes(path)
    found = table.of(picture("000000397133.jpg"))
    np.testing.assert_array_equal(found.boxes, np.array([[10, 20, 40, 60], [0.5, 0, 1.5, 1]], np.float32))
    np.testing.assert_array_equal(found.scores, np.array([0.5, 1], np.float32))
    assert found.boxes.dtype == np.float32
    assert (table.count, table.unused) == (3, 1)
    assert len(table.of(picture("other.jpg"))) == 0


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (entry(397133), "000000397133.jpg"),
        (entry("397133"), "397133.png"),
        (entry("street_4"), "street_4.jpg"),
        (entry(1, file_name="val/street_4.jpg"), "street_4.jpg"),
        (entry(None, file_name="street_4.jpg"), "street_4.jpg"),
    ],
    ids=["number", "text", "name", "file_name", "file_name alone"],
)
def test_an_entry_finds_its_picture(given: dict[str, Any], name: str, tmp_path: Path) -> None:
    table = read_boxes(write(tmp_path, [given]))
    assert len(table.of(picture(name))) == 1
    assert len(table.of(picture("unknown.jpg"))) == 0


def test_image_ids_are_frame_indices_in_a_video(tmp_path: Path) -> None:
    table = read_boxes(write(tmp_path, [entry(0), entry(12), entry(12)]))
    assert [len(table.of(Frame(BLACK, f"clip_{index:06d}", index, 0.0))) for index in (0, 1, 12)] == [1, 0, 2]


def test_an_annotation_file_is_read_by_its_file_names(tmp_path: Path) -> None:
    document = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": [entry(5, category_id=1)]}
    assert len(read_boxes(write(tmp_path, document)).of(picture("a.jpg"))) == 1


def test_other_categories_are_left_out_and_counted(tmp_path: Path) -> None:
    table = read_boxes(write(tmp_path, [entry(category_id=1), entry(category_id=18)]))
    assert (table.count, table.other_categories) == (1, 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry(bbox=(1, 2, 3)), "entry 1: bbox must be four finite numbers"),
        (entry(bbox=None), "entry 1: bbox must be four finite numbers .* got None"),
        (entry(bbox=(1, 2, "3", 4)), "entry 1: bbox must be four"),
        (entry(bbox=(1, 2, True, 4)), "entry 1: bbox must be four"),
        (entry(bbox=(1, 2, float("nan"), 4)), "entry 1: bbox must be four finite numbers .*nan"),
        (entry(bbox=(1, 2, float("inf"), 4)), "entry 1: bbox must be four finite numbers .*inf"),
        (entry(bbox=(1, 2, 10**400, 4)), "entry 1: bbox must be four finite numbers"),
        (entry(bbox=(1, 2, 0, 4)), r"entry 1: bbox \[1, 2, 0, 4\] has no area"),
        (entry(bbox=(1, 2, 3, -4)), "entry 1: bbox .* has no area"),
        (entry(bbox=(1e8, 2, 1e-6, 4)), "entry 1: bbox .* has no area"),
        (entry(score="high"), "entry 1: score must be a finite number, got 'high'"),
        (entry(score=float("nan")), "entry 1: score must be a finite number"),
        (entry(None), "entry 1: image_id must be a number or text"),
        ([1, 2, 3, 4], "entry 1 is list, not an object"),
    ],
)
def test_a_bad_entry_is_named(bad: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_boxes(write(tmp_path, [entry(), bad]))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{broken", "boxes.json is not JSON"),
        ("[" * 100_000, "boxes.json is not JSON: maximum recursion depth"),
        ({"boxes": []}, "must hold a list of detections"),
        ({"annotations": []}, "annotations need the list `images`"),
        ({"annotations": [], "images": [{"id": 3}]}, "image 0 has no id or file_name"),
    ],
)
def test_other_documents_are_refused(document: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_boxes(write(tmp_path, document))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json cannot be read: No such file"):
        read_boxes(tmp_path / "none.json")


def test_an_empty_list_has_no_boxes(tmp_path: Path) -> None:
    assert len(read_boxes(write(tmp_path, [])).of(picture("a.jpg"))) == 0


def test_detections_check_their_shapes() -> None:
    with pytest.raises(ValueError, match=r"boxes \(N, 4\) and scores \(N,\), got \(2, 3\)"):
        Detections(np.zeros((2, 3), np.float32), np.zeros(2, np.float32))


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    table = read_boxes(
        write(
            tmp_path,
            {
                "images": [{"id": number, "file_name": f"seq{number}/000000.jpg"} for number in (1, 2)],
                "annotations": [entry(1), entry(2), entry(2)],
            },
        )
    )
    assert [len(table.of(picture(f"seq{number}/000000.jpg"))) for number in (1, 2)] == [1, 2]
    assert table.unused == 0
    with pytest.raises(UserError, match=r"seq1/000000\.jpg and seq2/000000\.jpg both fit .*name the pictures by paths"):
        table.of(picture("seq3/000000.jpg"))


def test_ids_of_one_number_are_told_apart_by_their_text(tmp_path: Path) -> None:
    table = read_boxes(write(tmp_path, [entry("007"), entry("7"), entry("7")]))
    assert [len(table.of(picture(name))) for name in ("007.jpg", "7.jpg")] == [1, 2]
    with pytest.raises(UserError, match=r"007 and 7 both fit .*0007\.jpg"):
        table.of(picture("0007.jpg"))
