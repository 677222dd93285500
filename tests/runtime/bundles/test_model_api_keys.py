from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scalenas_runtime.bundle import Bundle, BundleContents, model_api_keys, write_bundle
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe, read_recipe

POSE = PoseRecipe(height=64, width=32, joints=("nose", "left eye"), border=7, keypoint_threshold=0.3)
STREET = SegmentationRecipe(
    height=32, width=64, classes=("road", "sky"), palette=((0, 0, 0), (1, 1, 1)), fit="pad", border=128
)


def test_the_client_is_not_told_to_do_what_the_graph_does() -> None:
    keys = model_api_keys(POSE)
    assert (keys["mean_values"], keys["scale_values"], keys["reverse_input_channels"]) == ("0 0 0", "1 1 1", "False")
    assert keys["layout"] == "image:NHWC"


def test_keys_of_pose_and_segmentation() -> None:
    pose, street = model_api_keys(POSE), model_api_keys(STREET)
    assert pose["labels"] == "nose left_eye"
    assert (pose["pad_value"], pose["confidence_threshold"]) == ("7", "0.3")
    assert "resize_type" not in pose
    assert (street["model_type"], street["labels"], street["resize_type"]) == (
        "Segmentation",
        "road sky",
        "fit_to_window",
    )
    assert all(isinstance(value, str) for value in (*pose.values(), *street.values()))


@pytest.mark.parametrize(("fit", "resize"), [("stretch", "standard"), ("pad", "fit_to_window"), ("sliding", None)])
def test_the_fit_in_model_apis_words(fit: str, resize: str | None) -> None:
    recipe = read_recipe({**json.loads(model_api_keys(STREET)["scalenas_recipe"]), "fit": fit})
    assert model_api_keys(recipe).get("resize_type") == resize


def test_the_whole_recipe_is_among_the_keys() -> None:
    assert read_recipe(json.loads(model_api_keys(POSE)["scalenas_recipe"])) == POSE


def test_a_manifest_adds_its_name(tmp_path: Path, contents: BundleContents) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "net", replace(contents, name="mine")))
    assert model_api_keys(bundle.manifest) == {**model_api_keys(bundle.recipe), "model_name": "mine"}
