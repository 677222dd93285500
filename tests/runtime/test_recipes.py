"""Recipes are read strictly: every way of being wrong is one clear line."""

import re
from collections.abc import Mapping

import pytest

from scalenas_runtime.errors import UserError
from scalenas_runtime.records import to_plain
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe, read_recipe

POSE: dict[str, object] = {"task": "pose", "height": 256, "width": 192, "joints": ["a", "b"]}
SEGMENTATION: dict[str, object] = {
    "task": "segmentation",
    "height": 64,
    "width": 96,
    "classes": ["road", "sky"],
    "palette": [[1, 2, 3], [4, 5, 6]],
}


@pytest.mark.parametrize("value", [POSE, SEGMENTATION], ids=["pose", "segmentation"])
def test_a_recipe_survives_json(value: Mapping[str, object]) -> None:
    recipe = read_recipe(value)
    assert read_recipe(to_plain(recipe)) == recipe


def test_output_sizes_follow_the_stride() -> None:
    pose = read_recipe(POSE)
    segmentation = read_recipe(SEGMENTATION)
    assert isinstance(pose, PoseRecipe)
    assert isinstance(segmentation, SegmentationRecipe)
    assert pose.heatmap_size == (64, 48)
    assert segmentation.logits_size == (16, 24)


WRONG: list[tuple[dict[str, object], dict[str, object], str]] = [
    (POSE, {"task": "depth"}, "recipe: task is 'depth', known: pose, segmentation"),
    (POSE, {"heigth": 3}, "pose recipe: .*unknown field `heigth` \\(did you mean `height`\\?\\)"),
    (POSE, {"height": "256"}, "pose recipe: Expected `int`, got `str` - at `\\$.height`"),
    (POSE, {"height": 250}, "height 250 is not a positive multiple of 32"),
    (POSE, {"width": 0}, "width 0 is not a positive multiple of 32"),
    (POSE, {"version": 2}, "Invalid enum value 2"),
    (POSE, {"joints": ["a", "a"]}, "joints must be distinct names"),
    (POSE, {"joints": []}, "joints must be distinct names"),
    (POSE, {"edges": [[0, 2]]}, "edges: \\(0, 2\\) is outside the joints 0..1"),
    (POSE, {"flip_pairs": [[-1, 0]]}, "flip_pairs: \\(-1, 0\\) is outside the joints 0..1"),
    (POSE, {"sigmas": [0.1]}, "sigmas must be 2 positive numbers or none"),
    (POSE, {"padding": 9.0}, "padding 9.0 is outside 0.5..4"),
    (POSE, {"border": 256}, "border 256 is outside 0..255"),
    (POSE, {"blur": 4}, "blur 4 must be odd and positive"),
    (POSE, {"stride": 0}, "stride 0 must be positive"),
    (POSE, {"decode": "magic"}, "Invalid enum value 'magic'"),
    (POSE, {"std": [1.0, 0.0, 1.0]}, "must be positive"),
    (POSE, {"mean": [1.0, float("nan"), 1.0]}, "is not finite"),
    (SEGMENTATION, {"classes": ["road"]}, "classes must be 2 to 255 distinct names, got 1"),
    (SEGMENTATION, {"palette": [[1, 2, 3]]}, "palette has 1 colours for 2 classes"),
    (SEGMENTATION, {"palette": [[1, 2, 3], [4, 5, 600]]}, "palette colours are outside 0..255"),
    (SEGMENTATION, {"ignore": 1}, "ignore 1 must be in 2..255, outside the classes"),
    (SEGMENTATION, {"border": -1}, "border -1 is outside 0..255"),
    (SEGMENTATION, {"overlap": 1.0}, "overlap 1.0 is outside 0..1"),
    (SEGMENTATION, {"stride": -4}, "stride -4 must be positive"),
]


@pytest.mark.parametrize(
    ("base", "change", "message"), WRONG, ids=[f"{base['task']}-{change}" for base, change, _ in WRONG]
)
def test_a_wrong_recipe_is_named(base: dict[str, object], change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_recipe({**base, **change})


@pytest.mark.parametrize("key", ["height", "width", "joints"])
def test_a_missing_key_is_named(key: str) -> None:
    value = {name: item for name, item in POSE.items() if name != key}
    with pytest.raises(UserError, match=re.escape(f"missing required field `{key}`")):
        read_recipe(value)


def test_something_that_is_no_object_is_refused() -> None:
    with pytest.raises(UserError, match="recipe: task is None"):
        read_recipe([1, 2])
