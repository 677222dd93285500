"""`run` on tiny real bundles: overlays and results.json from pictures and videos, and one line for every mistake."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scalenas_export.cli import app as application
from scalenas_runtime.backends import get_backend
from scalenas_runtime.bundle import Bundle, BundleContents, ModelFile, Provenance, WeightsEntry, write_bundle
from scalenas_runtime.detect import Detector
from scalenas_runtime.errors import UserError
from scalenas_runtime.golden import Golden, decode_outputs
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import Recipe, SegmentationRecipe
from tests.runtime.dots import dot_model, dot_picture, dot_recipe

TARGET = Target.parse("onnxruntime:cpu/fp32")
PLACES = np.array([[[60.0, 80], [120, 90], [90, 40]], [[300, 200], [350, 120], [320, 160]]])
PICTURE = dot_picture(PLACES, size=(260, 420))
BOXES = [[30, 20, 120, 110], [280, 90, 100, 140]]


def segmentation_model() -> Any:
    """uint8 (1, 64, 96, 3) -> logits (1, 3, 16, 24): each channel's mean."""
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["logits"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 64, 96, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 16, 24])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def make_bundle(folder: Path, name: str, models: dict[int, Any], recipe: Recipe) -> Path:
    files, golden = [], None
    for batch, model in models.items():
        path = folder / f"{name}{batch}.onnx"
        onnx.save(model, path)
        with get_backend("onnxruntime").compile(path, EngineConfig(TARGET, batch=batch)) as session:
            files.append(ModelFile(path, session.inputs, session.outputs, batch=batch))
            if golden is None:
                inputs = np.random.default_rng(0).integers(0, 256, (2, *session.inputs[0].shape[1:]), dtype=np.uint8)
                output = session.outputs[0].name
                outputs = np.concatenate([session.run({"image": inputs[i : i + 1]})[output] for i in range(2)])
                golden = Golden(inputs, outputs, decode_outputs(outputs, recipe))
    assert golden is not None
    weights = WeightsEntry(source="drawn by hand", licence="CC0-1.0")
    contents = BundleContents(
        name=name,
        recipe=recipe,
        models=tuple(files),
        golden=golden,
        provenance=Provenance(tool="tests", weights=weights),
    )
    path = write_bundle(folder / name, contents)
    for batch in models:
        Bundle.open(path).build(EngineConfig(TARGET, batch=batch))
    return path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("pose"), "dots", {1: dot_model(1), 4: dot_model(4)}, dot_recipe())


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    palette = ((0, 0, 255), (0, 255, 0), (255, 0, 0))
    recipe = SegmentationRecipe(height=64, width=96, classes=("blue", "green", "red"), palette=palette)
    return make_bundle(tmp_path_factory.mktemp("segmentation"), "colours", {1: segmentation_model()}, recipe)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "000000000007.png"), PICTURE)
    cv2.imwrite(str(folder / "b.png"), PICTURE[:130, :160])
    (folder / "notes.txt").write_text("text")
    return folder


def boxes_file(folder: Path, entries: list[dict[str, Any]]) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps(entries))
    return path


def walk(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 130))
    for step in range(count):
        writer.write(np.roll(PICTURE[:130, :160], 2 * step, axis=1))
    writer.release()
    return path


def run(*arguments: object) -> int:
    return application.run(["run", *map(str, arguments)])


def test_a_directory_gives_overlays_and_one_results_file(
    pose: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(pose, pictures) == 0
    printed = capsys.readouterr()
    assert "2 pictures, 2 persons, 1 other files skipped; overlays and results.json in runs/run/1" in printed.out
    assert "each picture is taken as one person" in printed.err
    folder = tmp_path / "runs" / "run" / "1"
    document = json.loads((folder / "results.json").read_text())
    assert document["task"] == "pose"
    assert document["target"] == str(TARGET)
    assert document["skipped"] == 1
    assert document["files"] == ["000000000007.jpg", "b.jpg"]
    assert [frame["name"] for frame in document["frames"]] == ["000000000007.png", "b.png"]
    nose = document["frames"][1]["persons"][0]["keypoints"][2]
    assert nose["name"] == "nose"
    assert (nose["x"], nose["y"]) == pytest.approx((90, 40), abs=1)
    overlay = cv2.imread(str(folder / "000000000007.jpg"))
    assert overlay is not None
    assert overlay.shape == PICTURE.shape
    assert (folder / "command.txt").read_text().startswith("scalenas-export")
    assert run(pose, pictures / "b.png") == 0
    assert (tmp_path / "runs" / "run" / "2" / "results.json").is_file()


def test_boxes_from_a_file(pose: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [{"image_id": 7, "bbox": box, "score": 0.5} for box in BOXES] + [{"image_id": 99, "bbox": BOXES[0]}]
    out = tmp_path / "out"
    arguments = ["--boxes", boxes_file(tmp_path, entries), "--out", out, "--json", "--show-scores"]
    assert run(pose, pictures, *arguments) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert [len(frame["persons"]) for frame in document["frames"]] == [2, 0]
    found = [[point["x"], point["y"]] for person in document["frames"][0]["persons"] for point in person["keypoints"]]
    np.testing.assert_allclose(found, PLACES.reshape(-1, 2), atol=0.3)
    assert document["frames"][0]["persons"][0]["box_score"] == 0.5
    assert document["folder"] == str(out)
    assert "the boxes of 1 pictures were not used" in printed.err
    assert json.loads((out / "results.json").read_text())["frames"] == document["frames"]


def test_a_video_gives_a_video_and_tracked_ids(pose: Path, tmp_path: Path) -> None:
    path = walk(tmp_path / "walk.avi", 6)
    out = tmp_path / "out"
    assert run(pose, path, "--track", "--out", out, "--frames", 5) == 0
    document = json.loads((out / "results.json").read_text())
    assert document["files"] == ["overlay.mp4"]
    assert [[person["id"] for person in frame["persons"]] for frame in document["frames"]] == [[1]] * 5
    assert [frame["time"] for frame in document["frames"]] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    capture = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    good, frame = capture.read()
    assert good
    assert frame.shape == (130, 160, 3)


def test_a_segmentation_bundle_gives_class_maps(segmentation: Path, tmp_path: Path) -> None:
    picture = np.zeros((50, 80, 3), np.uint8)
    picture[:, :40, 0] = 255
    picture[:, 40:, 2] = 255
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    out = tmp_path / "out"
    assert run(segmentation, tmp_path / "p.png", "--out", out) == 0
    document = json.loads((out / "results.json").read_text())
    assert document["files"] == ["p.jpg", "p_classes.png"]
    assert document["frames"][0]["shares"]["blue"] == pytest.approx(0.5, abs=0.02)
    classes = cv2.imread(str(out / "p_classes.png"), cv2.IMREAD_UNCHANGED)
    assert classes is not None
    assert classes.shape == (50, 80)
    assert (classes[:, :35] == 0).all()
    assert (classes[:, 45:] == 2).all()


def test_pictures_of_the_same_name_do_not_overwrite_each_other(pose: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    cv2.imwrite(str(tmp_path / "more" / "b.png"), PICTURE)
    out = tmp_path / "out"
    assert run(pose, pictures / "b.png", tmp_path / "more", "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["b.jpg", "b_000001.jpg", "results.json"]


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("cut.png", [], "cut.png is truncated"),
        ("none.png", [], "none.png: no such file or directory"),
        ("empty", [], "empty: no pictures among 0 files"),
        ("b.png", ["--target", "onnxruntime:cpu/bf16"], "does not run bf16"),
        ("b.png", ["--boxes", "none.json"], "none.json cannot be read: No such file"),
        ("b.png", ["--boxes", "bad.json"], "entry 0: bbox"),
        ("b.png", ["--boxes", "outside.json"], r"box 0 \[900, 900, 910, 910\] lies outside the picture of 160 x 130"),
        ("b.png", ["--boxes", "outside.json", "--track"], "leave out --detector and --track"),
        ("b.png", ["--detector", "none.onnx"], "none.onnx: no such file"),
        ("b.png", ["--batch", "3"], "holds no graph of batch 3"),
        ("b.png", ["--min-score", "0.5"], "--min-score and --detector-layout are for a person detector"),
        ("b.png", ["--boxes", "outside.json", "--min-score", "0.3"], "are for a person detector; name one with --det"),
        ("b.png", ["--detector-layout", "nonsense"], "are for a person detector; name one with --detector"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    pose: Path,
    pictures: Path,
    source: str,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(pictures)
    Path("empty").mkdir()
    Path("cut.png").write_bytes(Path("b.png").read_bytes()[:-20])
    Path("bad.json").write_text('[{"image_id": 1, "bbox": [1, 2, NaN, 4]}]')
    Path("outside.json").write_text('[{"image_id": "b", "bbox": [900, 900, 10, 10]}]')
    before = sorted(Path.cwd().iterdir())
    assert run(pose, source, *arguments, "--out", "out") == 2
    printed = capfd.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message.replace("\\", "") in errors[0]
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert sorted(Path.cwd().iterdir()) == before
    assert run(pose, source, *arguments) == 2
    assert not list(Path.cwd().glob("runs/run/*"))


def test_pose_options_are_refused_for_segmentation(
    segmentation: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--track"], ["--show-scores"], ["--min-score", "0.3"], ["--detector-layout", "yolox"]):
        assert run(segmentation, pictures, *option) == 2
        assert "--boxes, --detector and --track are for pose bundles" in capsys.readouterr().err


def test_an_existing_out_folder_stays_unless_told(
    pose: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert run(pose, pictures, "--out", out) == 2
    assert "out exists already" in capsys.readouterr().err
    assert run(pose, pictures, "--out", out, "--overwrite") == 2
    assert "out cannot be replaced: it holds other files, and no results.json" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    assert run(pose, pictures / "b.png", "--out", out, "--overwrite") == 0
    assert run(pose, pictures, "--out", out, "--overwrite") == 0
    assert len(json.loads((out / "results.json").read_text())["frames"]) == 2


@pytest.mark.parametrize("what", ["source", "boxes", "bundle", "video"])
def test_overwrite_never_replaces_what_the_run_reads(
    pose: Path, pictures: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "results.json").write_text("{}")
    arguments: list[object] = [pose, pictures]
    elsewhere = pictures.parent / "b.png"
    shutil.copy(pictures / "b.png", elsewhere)
    if what == "boxes":
        arguments = [pose, elsewhere, "--boxes", boxes_file(pictures, [])]
    elif what == "bundle":
        arguments = [shutil.copytree(pose, pictures / "net"), elsewhere]
    elif what == "video":
        arguments = [pose, walk(pictures / "walk.avi", 2)]
    before = sorted(pictures.rglob("*"))
    assert run(*arguments, "--out", pictures, "--overwrite") == 2
    assert "which is read, lies in it; name another folder" in capsys.readouterr().err
    assert sorted(pictures.rglob("*")) == before


def test_a_bundle_loads_every_batch_it_has_an_engine_for(pose: Path, segmentation: Path) -> None:
    boxes = np.array([[30, 20, 150, 130], [280, 90, 380, 230], [0, 0, 100, 100]], np.float32)
    with PoseEstimator.load(pose) as estimator, PoseEstimator.load(pose, TARGET, batch=1) as single:
        assert estimator.batches == (1, 4)
        assert single.batches == (1,)
        np.testing.assert_allclose(
            estimator.estimate(PICTURE, boxes).keypoints, single.estimate(PICTURE, boxes).keypoints, atol=1e-3
        )
    with pytest.raises(UserError, match="a bundle for segmentation, not pose; load it with Segmenter"):
        PoseEstimator.load(segmentation)


def test_a_bundle_without_engines_names_the_command(pose: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(pose, tmp_path / "bare", ignore=shutil.ignore_patterns("engines")))
    with pytest.raises(UserError, match=r"has no engine that fits here; name a target, .*scalenas-export build"):
        PoseEstimator.load(bare)
    with pytest.raises(UserError, match=r"no engine of .* fits onnxruntime:cpu/fp32"):
        PoseEstimator.load(bare, "onnxruntime:cpu/fp32")


def test_a_picture_whose_name_is_no_utf8_is_run(
    pose: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"shot\xff.png")
    shutil.copy(pictures / "b.png", name)
    for arguments in (["--out", os.fsdecode(b"out\xff")], ["--json"]):
        assert run(pose, name, *arguments) == 0
    capfd.readouterr()
    for folder in (Path(os.fsdecode(b"out\xff")), Path("runs/run/1")):
        assert json.loads((folder / "results.json").read_text())["frames"][0]["name"] == name
        assert (folder / os.fsdecode(b"shot\xff.jpg")).is_file()


def test_a_video_that_breaks_off_is_told(pose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = walk(tmp_path / "walk.avi", 10)
    assert run(pose, path, "--out", tmp_path / "whole") == 0
    assert "broke off" not in capsys.readouterr().err
    assert "frames_claimed" not in json.loads((tmp_path / "whole" / "results.json").read_text())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert run(pose, path, "--out", tmp_path / "cut") == 0
    document = json.loads((tmp_path / "cut" / "results.json").read_text())
    read = len(document["frames"])
    assert read < 9
    assert document["frames_claimed"] == 10
    assert f"note: walk broke off: {read} of about 10 frames could be read" in capsys.readouterr().err
    assert run(pose, path, "--out", tmp_path / "few", "--frames", 3) == 0
    assert "broke off" not in capsys.readouterr().err


def test_the_detector_takes_the_threads_that_are_asked_for(
    pose: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int | None, float]] = []

    def load(_: Path, *, threads: int | None, layout: str | None, min_score: float) -> Detector:
        asked.append((threads, min_score))
        raise UserError("seen")

    monkeypatch.setattr(Detector, "load", load)
    for more in ([], ["--min-score", 0.5]):
        assert run(pose, pictures, "--threads", 1, "--detector", "d.onnx", "--out", tmp_path / "out", *more) == 2
    assert asked == [(1, 0.3), (1, 0.5)]
