"""Small data sets on disk: people of four joints with a picture each, and streets of three classes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

JOINTS = ("left_hand", "right_hand", "left_toe", "right_toe")


def write_people(folder: Path, count: int = 20, *, joints: tuple[str, ...] = JOINTS) -> Path:
    """Writes pictures of noise with one person each; returns the JSON file."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    images, people = [], []
    for number in range(1, count + 1):
        name = f"clip{number % 4}_{number:03}.png"
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (60, 50, 3)).astype(np.uint8))
        images.append({"id": number, "file_name": name, "height": 60, "width": 50})
        points = rng.uniform([8, 8], [42, 52], (len(joints), 2)).round(1)
        low, high = points.min(0) - 2, points.max(0) + 2
        people.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "keypoints": np.c_[points, np.full(len(joints), 2)].ravel().tolist(),
            }
        )
    category = {"id": 1, "name": "person", "keypoints": list(joints), "skeleton": [[1, 3], [2, 4]]}
    file = folder / "people.json"
    file.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return file


def write_streets(folder: Path, count: int = 20, *, coloured: bool = False) -> None:
    """Writes `pictures` of noise and `masks` of labels 0..2 and 9 (ignored), or of their colours."""
    rng = np.random.default_rng(1)
    colours = np.array([(10, 20, 30), (200, 0, 0), (0, 0, 200), (0, 0, 0)], np.uint8)
    for kind in ("pictures", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = f"run{number % 2}_{number:03}.png"
        cv2.imwrite(str(folder / "pictures" / name), rng.integers(0, 256, (40, 56, 3)).astype(np.uint8))
        labels = rng.integers(0, 4, (40, 56))
        mask = colours[labels][:, :, ::-1] if coloured else np.array([0, 1, 2, 9], np.uint8)[labels]
        cv2.imwrite(str(folder / "masks" / name), mask)


def write_yaml(path: Path, text: str) -> Path:
    """Writes a description; returns its path."""
    path.write_text(text)
    return path


PEOPLE_YAML = """
task: pose
train:
  - kind: coco
    annotations: people.json
splits: {calibrate: 0.2, search: 0.2}
"""
STREETS_YAML = """
task: segmentation
names: [road, sky, car]
ignore: 9
train:
  - kind: folders
    pictures: pictures
    masks: masks
splits: {calibrate: 0.2, search: 0.2}
"""
