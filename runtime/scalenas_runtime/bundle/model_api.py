"""A recipe in the words of OpenVINO's Model API, for ONNX `metadata_props` and OpenVINO `rt_info`."""

from __future__ import annotations

from scalenas_runtime.bundle.manifest import Manifest
from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.records import to_plain
from scalenas_runtime.tasks import PoseRecipe, Recipe

SECTION = "model_info"
# Model API has no wrapper for heatmaps (its keypoint model decodes SimCC), so the pose type is a name of ours.
_POSE, _SEGMENTATION = "heatmap_keypoint_detection", "Segmentation"
_RESIZE = {"stretch": "standard", "pad": "fit_to_window"}


def model_api_keys(source: Manifest | Recipe) -> dict[str, str]:
    """Returns key and value texts that describe a graph of form `raw`: what its client has to do.

    The graph takes uint8 BGR pictures and does colour order, mean and std itself, so a client must not do them
    again: `mean_values` are 0, `scale_values` 1, `reverse_input_channels` False. The training values stand in
    `scalenas_recipe`, the whole recipe as canonical JSON. In ONNX each key is written as `model_info <key>`; in
    OpenVINO under the path `["model_info", key]`.

    Source: Model API's model configuration (`open-edge-platform/model_api`, `models/parameters.py`).
    """
    recipe = source.task if isinstance(source, Manifest) else source
    pose = isinstance(recipe, PoseRecipe)
    names = recipe.joints if isinstance(recipe, PoseRecipe) else recipe.classes
    plain: Json = to_plain(recipe)
    keys = {
        "model_type": _POSE if pose else _SEGMENTATION,
        "labels": " ".join("_".join(name.split()) for name in names),
        "layout": "image:NHWC",
        "mean_values": "0 0 0",
        "scale_values": "1 1 1",
        "reverse_input_channels": "False",
        "pad_value": str(recipe.border),
        "scalenas_recipe": canonical_json(plain),
    }
    if not isinstance(recipe, PoseRecipe) and recipe.fit in _RESIZE:
        keys["resize_type"] = _RESIZE[recipe.fit]
    if isinstance(recipe, PoseRecipe):
        keys["confidence_threshold"] = str(recipe.keypoint_threshold)
    if isinstance(source, Manifest):
        keys["model_name"] = source.name
    return keys
