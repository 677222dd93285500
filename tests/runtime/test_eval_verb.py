"""`eval` on real bundles of tiny nets: synthetic and stored data, dumps, and one line for each user error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalenas_export.cli.app import run
from scalenas_runtime import scenes
from scalenas_runtime.backends import get_backend
from scalenas_runtime.bundle import BundleContents, ModelFile, Provenance, WeightsEntry, write_bundle
from scalenas_runtime.golden import Golden, decode_outputs
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import PoseRecipe, Recipe
from scalenas_runtime.tasks.sets import LSPET_14, pose_recipe, segmentation_recipe

TARGET = "onnxruntime:cpu/fp32"
POSE = pose_recipe("lspet-14", size=(128, 96))
STREET = segmentation_recipe("camvid-11", size=(64, 96))


def _bundle(folder: Path, recipe: Recipe) -> Path:
    """Writes a bundle of one 4x4 convolution with stride 4."""
    pose = isinstance(recipe, PoseRecipe)
    channels = len(recipe.joints) if isinstance(recipe, PoseRecipe) else len(recipe.classes)
    output = "heatmaps" if pose else "logits"
    weights = np.random.default_rng(5).normal(size=(channels, 3, 4, 4)) / 255
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], [output], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    shape = [1, channels, recipe.height // 4, recipe.width // 4]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, recipe.height, recipe.width, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    path = folder / f"{output}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    inputs = scenes.pictures(recipe, seed=0, count=16 if pose else 4)
    with get_backend("onnxruntime").compile(path, EngineConfig(Target.parse(TARGET))) as session:
        outputs = np.concatenate([session.run({"image": each[None]})[output] for each in inputs])
        model = ModelFile(path, session.inputs, session.outputs)
    origin = Provenance(tool="tests", weights=WeightsEntry(source="random", licence="CC0-1.0", digest="0" * 64))
    golden = Golden(inputs, outputs, decode_outputs(outputs, recipe))
    contents = BundleContents(
        name="tiny", recipe=recipe, models=(model,), golden=golden, provenance=origin, golden_source="synthetic"
    )
    return write_bundle(folder / f"tiny-{output}", contents)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bundles")
    return {"pose": str(_bundle(folder, POSE)), "street": str(_bundle(folder, STREET))}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Returns the JSON that a command line prints."""
    code = run(["eval", *arguments, "--target", TARGET, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    value = json.loads(captured.out)
    assert isinstance(value, dict)
    return value


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A COCO file of four scenes, pictures in a folder beside it."""
    images, annotations = [], []
    (tmp_path / "pictures").mkdir()
    for index in range(4):
        scene = scenes.person_scene(9, index, size=(160, 128), joints=LSPET_14, portrait=True)
        cv2.imwrite(str(tmp_path / "pictures" / f"{index}.png"), scene.picture)
        images.append({"id": index + 1, "file_name": f"{index}.png", "width": 128, "height": 160})
        x1, y1, x2, y2 = scene.boxes[0].tolist()
        annotations.append(
            {
                "id": index + 1,
                "image_id": index + 1,
                "category_id": 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "keypoints": scene.joints[0].ravel().tolist(),
            }
        )
    category = {"id": 1, "name": "person", "keypoints": list(LSPET_14.joints)}
    value = {"images": images, "annotations": annotations, "categories": [category]}
    (tmp_path / "people.json").write_text(json.dumps(value))
    return tmp_path / "people.json"


def test_synthetic_people_by_pck_is_the_default(bundles: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    value = evaluated(capsys, bundles["pose"], "synthetic:3:6")
    assert value["metric"] == "pck"
    assert 0 <= value["value"] <= 1
    assert value["figures"]["alpha"] == 0.2
    assert set(value["figures"]["joints"]) == set(LSPET_14.joints)
    assert value["counts"]["pictures_judged"] == 6
    assert value["target"] == TARGET
    assert evaluated(capsys, bundles["pose"], "synthetic:3:6") == value


def test_people_of_a_file_and_their_dump(
    bundles: dict[str, str], people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = tmp_path / "out" / "results.json"
    pictures = str(people.parent / "pictures")
    arguments = (bundles["pose"], str(people), "--pictures", pictures, "--metric", "oks", "--dump", str(dump))
    value = evaluated(capsys, *arguments)
    assert value["metric"] == "oks"
    entries = json.loads(dump.read_text())
    assert [entry["image_id"] for entry in entries] == [1, 2, 3, 4]
    assert {len(entry["keypoints"]) for entry in entries} == {42}
    assert set(entries[0]) == {"image_id", "category_id", "keypoints", "score"}


def test_detected_boxes_and_flip_test_and_limit(
    bundles: dict[str, str], people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = people.parent / "boxes.json"
    boxes.write_text(json.dumps([{"image_id": 1, "bbox": [1, 1, 90, 120], "score": 0.4}]))
    common = (bundles["pose"], str(people), "--pictures", str(people.parent / "pictures"))
    found = evaluated(capsys, *common, "--metric", "oks", "--boxes", str(boxes))
    assert found["counts"]["people_predicted"] == 1
    limited = evaluated(capsys, *common, "--limit", "2", "--flip-test")
    assert limited["counts"]["pictures_judged"] == 2
    plain = evaluated(capsys, *common, "--limit", "2", "--no-flip-test")
    assert plain == evaluated(capsys, *common, "--limit", "2")


def test_streets_drawn_and_stored(bundles: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = evaluated(capsys, bundles["street"], "synthetic:2:3")
    for folder in ("val", "valannot"):
        (tmp_path / folder).mkdir()
    for index in range(3):
        scene = scenes.street_scene(2, index, size=(64, 96))
        cv2.imwrite(str(tmp_path / "val" / f"{index}.png"), scene.picture)
        cv2.imwrite(str(tmp_path / "valannot" / f"{index}.png"), scene.class_map)
    stored = evaluated(capsys, bundles["street"], str(tmp_path / "val"))
    assert stored["metric"] == "miou"
    assert stored["value"] == drawn["value"]
    mapped = evaluated(capsys, bundles["street"], str(tmp_path / "val"), "--map", "0=11")
    assert mapped["counts"]["pixels_ignored"] > stored["counts"]["pixels_ignored"]


def test_the_table_is_for_people(bundles: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", bundles["pose"], "synthetic:0:3", "--target", TARGET]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("PCK@0.2")
    assert "left_wrist" in captured.out
    assert "people without torso" in captured.out
    assert "weights are random" in captured.err
    assert run(["eval", bundles["street"], "synthetic:0:2", "--target", TARGET]) == 0
    assert capsys.readouterr().out.startswith("mIoU")


@pytest.mark.parametrize(
    ("which", "arguments", "message"),
    [
        ("pose", ["synthetic:1"], "'synthetic:1' is no synthetic data set; write synthetic:SEED:COUNT"),
        ("pose", ["synthetic:1:0"], "'synthetic:1:0' is no synthetic data set"),
        ("pose", ["synthetic:1:²"], "'synthetic:1:²' is no synthetic data set"),
        ("pose", [f"synthetic:1:{'9' * 5000}"], "is no synthetic data set; write synthetic:SEED:COUNT"),
        ("street", ["synthetic:1:2", "--map", "²=1"], "--map takes FROM=TO, two labels such as 34=255, got '²=1'"),
        ("pose", ["synthetic:1:2", "--metric", "oks", "--alpha", "0.2"], "--alpha is for pck and pckh; oks has none"),
        ("street", ["synthetic:1:2", "--alpha", "0.2"], "--alpha is for pck and pckh; miou has none"),
        ("street", ["val", "--pictures", "val"], "DATA itself; there is nothing for --pictures; leave it out"),
        ("pose", ["a.json", "--masks", "m"], "masks are for segmentation bundles; with a pose bundle there is nothing"),
        ("pose", ["a.json", "--map", "1=2"], "with a pose bundle there is nothing for --map; leave it out"),
        ("pose", ["a.json", "--mask-suffix", "_m", "--picture-suffix", "_p"], "for --picture-suffix, --mask-suffix;"),
        ("pose", ["synthetic:1:2", "--pictures", "p"], "synthetic:1:2 is drawn, so there is nothing for --pictures;"),
        ("street", ["synthetic:1:2", "--masks", "p"], "synthetic:1:2 is drawn, so there is nothing for --masks;"),
        ("street", ["synthetic:1:2", "--skip-missing"], "so there is nothing for --skip-missing; leave it out"),
        ("pose", ["."], ". is a folder; a pose bundle takes a COCO keypoints file, and its --pictures"),
        ("pose", ["nowhere.json"], "nowhere.json cannot be read: No such file"),
        ("pose", ["synthetic:1:2", "--metric", "miou"], "metric miou is for segmentation"),
        ("street", ["synthetic:1:2", "--metric", "pck"], "metric pck is for pose"),
        ("street", ["synthetic:1:2", "--boxes", "b.json"], "--boxes is for pose bundles"),
        ("street", ["synthetic:1:2", "--dump", "d.json"], "--dump writes people's joints"),
        ("street", ["pictures"], "picturesannot is no folder; name the folder of the masks with --masks"),
        ("street", ["synthetic:1:2", "--map", "3"], "--map takes FROM=TO, two labels such as 34=255, got '3'"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(
    bundles: dict[str, str], which: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", bundles[which], *arguments, "--target", TARGET]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("error: ")
    assert message in error[-1]
