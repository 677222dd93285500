"""The main job: export, verify and run, in this process, in one without torch, and without any of our code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from scalenas import save_weights
from scalenas_export.cli.app import run
from scalenas_export.demo import HEADS, DemoRequest, demo
from scalenas_export.search.view import LineView
from scalenas_runtime.backends import get_backend
from scalenas_runtime.canonical import Json, digest
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.scenes import person_scene, street_scene
from scalenas_runtime.targets import Target
from tests.conftest import Environment
from tests.export.test_weights_by_name import small_weights
from tests.small_exports import SmallExport

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "plain_onnxruntime.py"
TARGETS = ("onnxruntime:cpu/fp32", "openvino:cpu/fp32", "openvino:cpu/bf16")


def _usable() -> list[str]:
    precisions = get_backend("openvino").check(Target.parse("openvino:cpu/fp32")).precisions
    return [text for text in TARGETS if text.rpartition("/")[2] in precisions]


def _pictures(folder: Path, task: str) -> list[Path]:
    paths = []
    for index in range(2):
        scene = person_scene(2, index, size=(240, 180)) if task == "pose" else street_scene(2, index, size=(180, 240))
        paths.append(folder / f"{index}.png")
        cv2.imwrite(str(paths[-1]), scene.picture)
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["hrnet-w16", "hrnet-w16-seg"])
def test_export_verify_run_on_every_target(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = "segmentation" if spec.endswith("seg") else "pose"
    options = ["--size", "128x160", "--classes", "camvid-11"] if task == "segmentation" else ["--size", "128x96"]
    targets = [word for text in _usable() for word in ("--target", text)]
    out = str(tmp_path / "net.zip")
    assert run(["export", spec, *options, *targets, "--out", out]) == 0, capsys.readouterr().err
    assert "the weights are random" in capsys.readouterr().out
    assert run(["verify", out]) == 0, capsys.readouterr().err
    pictures = [str(path) for path in _pictures(tmp_path, task)]
    for text in _usable():
        folder = tmp_path / text.replace("/", "-").replace(":", "-")
        assert run(["run", out, *pictures, "--target", text, "--out", str(folder)]) == 0, capsys.readouterr().err
        results = json.loads((folder / "results.json").read_text())
        assert len(results["frames"]) == 2
        assert (folder / "0.jpg").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("data", [None, str(ROOT / "configs" / "data" / "synthetic-pose.yaml")], ids=["drawn", "data"])
def test_the_demo_searches_exports_verifies_and_runs(data: str | None, tmp_path: Path) -> None:
    save_weights(tmp_path / "tiny.safetensors", small_weights("pose"))
    request = DemoRequest(
        folder=tmp_path / "demo",
        pose=str(tmp_path / "tiny.safetensors"),
        street=None,
        target=Target.parse("onnxruntime:cpu/fp32"),
        n_trials=4,
        latency_ms=5000.0,
        data=data,
        limit=4,
        final_grade="standard",
    )
    done = demo(request, view=LineView(lambda text: None), stop=lambda: False)
    assert done.missed == ""
    assert "synthetic: it says little" in done.sentences
    # The member's statistics come from the same pictures as those of the nets that were found.
    manifest = (done.files["hrnet"] / "manifest.json").read_text()
    assert ("synthetic-pose calibrate" in manifest) == (data is not None)
    found, *members = (dict(zip(HEADS, row, strict=True)) for row in done.rows)
    assert (found["role"], found["golden pictures"]) == ("found", "verified")
    assert (members[0]["net"], members[0]["golden pictures"]) == ("hrnet-w4", "verified")
    assert 0 < float(found["median ms"]) <= float(found["p90 ms"])
    overlay = cv2.imread(str(done.files[f"found {found['net']} on pose.png"]))
    assert overlay is not None
    assert overlay.shape == (480, 640, 3)


@pytest.mark.data
@pytest.mark.skipif("SCALENAS_DATA" not in os.environ, reason="SCALENAS_DATA names no folder of real pictures")
@pytest.mark.parametrize(("task", "pattern"), [("pose", "lspet/val/*.jpg"), ("segmentation", "camvid/val/*.*")])
def test_bundles_run_on_photographs(
    task: str, pattern: str, small_pose: SmallExport, small_segmentation: SmallExport, tmp_path: Path
) -> None:
    export = small_pose if task == "pose" else small_segmentation
    pictures = sorted(Path(os.environ["SCALENAS_DATA"]).glob(pattern))[:3]
    line = [
        "run",
        str(export.bundle),
        *map(str, pictures),
        "--target",
        "openvino:cpu/fp32",
        "--out",
        str(tmp_path / "o"),
    ]
    assert run(line) == 0
    for path in pictures:
        overlay = cv2.imread(str(tmp_path / "o" / f"{path.stem}.jpg"))
        assert overlay is not None
        photograph = cv2.imread(str(path))
        assert photograph is not None
        assert overlay.shape == photograph.shape


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif("SCALENAS_DATA" not in os.environ, reason="SCALENAS_DATA names no folder of real pictures")
@pytest.mark.parametrize(
    ("weights", "spec", "data", "limit", "floor"),
    [
        # All of the part: 42.7 % of the joints, 48.5 % mIoU.
        ("pose-w16", "hrnet-w16", ("lspet/person_keypoints_val.json", "--pictures", "lspet/val"), 200, 0.37),
        ("seg-w16", "hrnet-w16-seg", ("camvid/test",), 40, 0.38),
    ],
)
def test_bundles_of_shipped_supernets_are_right_about_photographs(
    weights: str,
    spec: str,
    data: tuple[str, ...],
    limit: int,
    floor: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    out = str(tmp_path / "net.bundle")
    assert run(["export", spec, "--weights", weights, "--target", TARGETS[0], "--out", out]) == 0
    capsys.readouterr()
    place = Path(os.environ["SCALENAS_DATA"])
    words = [word if word.startswith("-") else str(place / word) for word in data]
    assert run(["eval", out, *words, "--target", TARGETS[0], "--limit", str(limit), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] > floor


def run_example(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", str(EXAMPLE), *words], check=False, capture_output=True, text=True)


def decoded_by(bundle: Path, out: Path, **fields: Json) -> Path:
    """Returns a copy of a bundle whose recipe has other values; the net is the same."""
    shutil.copytree(bundle, out)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["recipe"] |= fields
    manifest["digests"]["recipe"] = digest(manifest["recipe"])
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


@pytest.mark.parametrize("decode", ["argmax", "quarter", "dark"])
@pytest.mark.parametrize("affine", ["classic", "udp"])
@pytest.mark.parametrize("boxed", [False, True], ids=["whole picture", "box"])
def test_the_plain_example_finds_the_same_joints(
    small_pose: SmallExport, boxed: bool, affine: str, decode: str, tmp_path: Path
) -> None:
    scene = person_scene(3, 1, size=(240, 180), portrait=True)
    path = tmp_path / "person.png"
    cv2.imwrite(str(path), scene.picture)
    bundle = decoded_by(small_pose.bundle, tmp_path / "net.bundle", affine=affine, decode=decode)
    box = [f"{value:.2f}" for value in scene.boxes[0].tolist()] if boxed else []
    done = run_example(str(bundle), str(path), *box)
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(" ", 3) for line in done.stdout.splitlines()]
    with PoseEstimator.load(bundle, "onnxruntime:cpu/fp32") as pose:
        result = pose(scene.picture, np.array([box], np.float32) if boxed else None)
    assert [row[0] for row in rows] == list(result.recipe.joints)
    table = np.array([row[1:] for row in rows], np.float64)
    np.testing.assert_allclose(table[:, :2], result.keypoints[0], atol=1e-3)
    np.testing.assert_allclose(table[:, 2], result.scores[0], atol=2e-6)


@pytest.mark.parametrize("fields", [{"decode": "dark-udp"}, {"flip_test": True}], ids=["dark-udp", "flip test"])
def test_the_plain_example_refuses_what_it_does_not_cover(
    small_pose: SmallExport, fields: dict[str, Json], tmp_path: Path
) -> None:
    path = tmp_path / "person.png"
    cv2.imwrite(str(path), person_scene(3, 1, size=(240, 180)).picture)
    done = run_example(str(decoded_by(small_pose.bundle, tmp_path / "net.bundle", **fields)), str(path))
    ((key, value),) = fields.items()
    assert done.returncode == 1
    assert "covers decode argmax, quarter and dark without flip test" in done.stderr
    assert f"{key} {value}" in done.stderr


def test_the_plain_example_is_short_and_stands_alone() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 85
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"json", "sys", "pathlib", "cv2", "numpy", "onnxruntime"}


@pytest.mark.slow
def test_everything_but_export_works_without_torch(
    runtime_venv: Environment, small_pose: SmallExport, small_segmentation: SmallExport, tmp_path: Path
) -> None:
    def call(*arguments: str) -> str:
        done = runtime_venv.run("scalenas-export", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    absent = runtime_venv.run("python", "-c", "import torch")
    assert absent.returncode != 0
    target = ["--target", "onnxruntime:cpu/fp32"]
    for task, export in (("pose", small_pose), ("segmentation", small_segmentation)):
        bundle, picture = str(export.bundle), str(_pictures(tmp_path, task)[0])
        assert "passed" in call("verify", bundle, *target)
        call("run", bundle, picture, *target, "--out", f"{task}-run")
        assert (tmp_path / f"{task}-run" / "0.jpg").is_file()
        assert "step" in call("explain", bundle, picture, *target)
        json.loads(call("bench", bundle, *target, "--seconds", "1", "--json"))
        judged = json.loads(call("eval", bundle, "synthetic:0:4", *target, "--json"))
        assert judged["counts"]["pictures"] == 4
    missing = runtime_venv.run("scalenas-export", "export", "hrnet-w16", *target, "--out", "x", cwd=tmp_path)
    assert missing.returncode == 2
    assert "pip install 'scalenas-export[export]'" in missing.stderr
