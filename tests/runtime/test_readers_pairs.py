"""Folders of pictures and masks: pairing, labels by value or colour, and one clear line for each fault."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.readers import read_pairs, synthetic_pairs
from scalenas_runtime.readers.pairs import MaskRule, label_table
from scalenas_runtime.tasks.sets import CAMVID_11, CITYSCAPES_19

DATA = os.environ.get("SCALENAS_DATA")


def save(path: Path, array: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    for name in ("b", "a", "town/a"):
        save(tmp_path / "pictures" / f"{name}.jpg", rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        save(tmp_path / "masks" / f"{name}.png", rng.integers(0, 12, (6, 8)).astype(np.uint8))
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures", tmp_path / "masks"


def test_pairs_come_by_name_with_sub_folders(folders: tuple[Path, Path]) -> None:
    save(folders[1] / "alone.png", np.zeros((2, 2), np.uint8))
    data = read_pairs(*folders, CAMVID_11)
    assert [pair.name for pair in data] == ["a.jpg", "b.jpg", "town/a.jpg"]
    assert data.counts == {"pictures": 3, "pictures_without_mask": 0, "masks_without_picture": 1, "other_files": 1}
    for pair in data:
        assert pair.read().shape == (6, 8, 3)
        assert pair.read_labels().shape == (6, 8)
        assert pair.read_labels().max() <= 11


def test_suffixes_as_in_cityscapes(tmp_path: Path) -> None:
    save(tmp_path / "left" / "ulm" / "ulm_1_leftImg8bit.png", np.zeros((4, 4, 3), np.uint8))
    save(tmp_path / "fine" / "ulm" / "ulm_1_gtFine_labelTrainIds.png", np.full((4, 4), 255, np.uint8))
    save(tmp_path / "fine" / "ulm" / "ulm_1_gtFine_color.png", np.zeros((4, 4, 3), np.uint8))
    rule = MaskRule("_leftImg8bit", "_gtFine_labelTrainIds")
    (pair,) = read_pairs(tmp_path / "left", tmp_path / "fine", CITYSCAPES_19, rule)
    assert (pair.read_labels() == 255).all()


def test_a_picture_without_mask_is_named_or_skipped_and_counted(folders: tuple[Path, Path]) -> None:
    (folders[1] / "b.png").unlink()
    with pytest.raises(UserError, match=r"b.jpg has no mask b.png in .*masks"):
        read_pairs(*folders, CAMVID_11)
    data = read_pairs(*folders, CAMVID_11, MaskRule(missing="skip"))
    assert len(data) == 2
    assert data.counts["pictures_without_mask"] == 1


def test_labels_can_be_mapped(folders: tuple[Path, Path]) -> None:
    save(folders[1] / "a.png", np.array([[0, 34], [11, 2]], np.uint8))
    first = next(iter(read_pairs(*folders, CAMVID_11)))
    with pytest.raises(UserError, match=r"a.png holds the labels 34, which no class has; map them"):
        first.read_labels()
    mapped = next(iter(read_pairs(*folders, CAMVID_11, MaskRule(mapping={34: 11, 0: 3}))))
    np.testing.assert_array_equal(mapped.read_labels(), [[3, 11], [11, 2]])
    with pytest.raises(UserError, match=r"label 34 cannot become 12: .* the labels are 0..10 and 11 \(ignored\)"):
        label_table(CAMVID_11, {34: 12})


def test_masks_by_colour(folders: tuple[Path, Path]) -> None:
    labels = np.random.default_rng(1).integers(0, 12, (6, 8)).astype(np.uint8)
    colours = np.array([*CAMVID_11.palette, (0, 0, 0)], np.uint8)
    save(folders[1] / "a.png", np.ascontiguousarray(colours[labels][:, :, ::-1]))
    np.testing.assert_array_equal(next(iter(read_pairs(*folders, CAMVID_11))).read_labels(), labels)
    save(folders[1] / "a.png", np.full((6, 8, 3), (3, 2, 1), np.uint8))
    with pytest.raises(UserError, match=r"a.png holds the colour \(1, 2, 3\) \(R, G, B\), which no class of camvid-11"):
        next(iter(read_pairs(*folders, CAMVID_11))).read_labels()


def test_faulty_masks_and_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a.png is not a picture"):
        next(iter(read_pairs(*folders, CAMVID_11))).read_labels()
    save(folders[1] / "a.png", np.zeros((6, 8), np.uint8))
    whole = (folders[1] / "a.png").read_bytes()
    (folders[1] / "a.png").write_bytes(whole[:-12])
    with pytest.raises(UserError, match=r"a.png is truncated: a PNG without its end mark"):
        next(iter(read_pairs(*folders, CAMVID_11))).read_labels()
    cv2.imwrite(str(folders[1] / "a.png"), np.zeros((6, 8), np.uint16))
    with pytest.raises(UserError, match=r"a.png cannot be read as an 8-bit mask"):
        next(iter(read_pairs(*folders, CAMVID_11))).read_labels()
    save(folders[0] / "b.png", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"b.jpg and .*b.png have one name; keep one"):
        read_pairs(*folders, CAMVID_11)
    (folders[0] / "b.png").unlink()
    with pytest.raises(UserError, match=r"nowhere is no folder"):
        read_pairs(tmp_path / "nowhere", folders[1], CAMVID_11)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no pictures with masks in"):
        read_pairs(tmp_path / "empty", folders[1], CAMVID_11)


def test_synthetic_streets_are_a_data_set() -> None:
    data = synthetic_pairs(CITYSCAPES_19, seed=1, count=2, size=(96, 128))
    for pair in data:
        assert pair.read().shape == (96, 128, 3)
        assert pair.read_labels().shape == (96, 128)
    assert len(data) == 2


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="SCALENAS_DATA names no folder of real pictures")
def test_camvid_pairs_by_folder_names() -> None:
    root = Path(str(DATA)) / "camvid"
    data = read_pairs(root / "val", root / "valannot", CAMVID_11)
    assert len(data) == 101
    for _, pair in zip(range(5), data, strict=False):
        assert pair.read().shape == (360, 480, 3)
        labels = pair.read_labels()
        assert labels.shape == (360, 480)
        assert labels.max() <= 11
