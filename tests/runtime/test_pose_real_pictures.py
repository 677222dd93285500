"""Real photographs with their labelled boxes and joints go through crops, drawing and the boxes reader."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from scalenas_runtime.boxes import read_boxes
from scalenas_runtime.geometry import check_boxes, heatmap_to_picture, picture_to_heatmap
from scalenas_runtime.preprocess import pose_crops
from scalenas_runtime.results import PoseResult
from scalenas_runtime.sources import open_source
from scalenas_runtime.tasks.sets import joint_set, pose_recipe

DATA = os.environ.get("SCALENAS_DATA")
pytestmark = [pytest.mark.data, pytest.mark.skipif(DATA is None, reason="SCALENAS_DATA is not set")]


@pytest.mark.parametrize("affine", ["classic", "udp"])
def test_labelled_joints_lie_in_their_crops_and_come_back(affine: Literal["classic", "udp"]) -> None:
    folder = Path(str(DATA)) / "coco_mini"
    labels = folder / "person_keypoints_val2017.json"
    document: dict[str, Any] = json.loads(labels.read_text())
    joints: dict[str, list[list[float]]] = {}
    names = {image["id"]: image["file_name"] for image in document["images"]}
    for annotation in document["annotations"]:
        joints.setdefault(names[annotation["image_id"]], []).append(annotation["keypoints"])
    table, recipe = read_boxes(labels), pose_recipe(joint_set("coco-17"), affine=affine)
    persons = 0
    for frame in open_source(folder / "val"):
        found = table.of(frame)
        boxes = check_boxes(found.boxes, *frame.picture.shape[:2])
        crops, transforms = pose_crops(frame.picture, boxes, recipe)
        labelled = np.array(joints.get(frame.name, []), np.float64).reshape(-1, 17, 3)
        assert len(crops) == len(labelled) == len(found)
        places = picture_to_heatmap(labelled[..., :2], transforms, recipe)
        visible = labelled[..., 2] > 0
        assert ((places >= 0) & (places <= [47, 63]))[visible].mean() > 0.9 if visible.any() else True
        back = heatmap_to_picture(places, transforms, recipe)
        np.testing.assert_allclose(back, labelled[..., :2], atol=0.01)
        scores = visible.astype(np.float32)
        overlay = PoseResult(back, scores, boxes, found.scores, recipe).draw(frame.picture)
        assert overlay.shape == frame.picture.shape
        persons += len(found)
    assert persons == table.count > 100
    assert table.unused == 0
