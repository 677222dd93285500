"""Exporting: where weights, statistics and recipes come from, and what a failed or interrupted export leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

import scalenas_export.packing
from scalenas import Supernet, Weights, get_space, save_weights, static_net
from scalenas_export.calibration import calibration_pictures, normalised
from scalenas_export.cli.app import run
from scalenas_export.export_bundle import ExportRequest, export_bundle
from scalenas_export.folding import fold
from scalenas_export.random_nets import settle
from scalenas_export.recipes import read_recipe_file, spec_recipe
from scalenas_export.weight_sources import FoundWeights, find_weights
from scalenas_runtime.bundle import Bundle
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import CheckFailed, UserError
from scalenas_runtime.tasks import PoseRecipe, Recipe
from scalenas_runtime.tasks.sets import pose_recipe, segmentation_recipe
from tests.small_exports import SmallExport, one_thread, small_request


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def silent(line: str) -> None:
    """Takes progress lines and drops them."""


def test_bundle_holds_what_was_asked_for(small_pose: SmallExport) -> None:
    bundle = Bundle.open(small_pose.bundle)
    assert [(entry.batch, entry.io) for entry in bundle.manifest.models] == [
        (1, "raw"),
        (2, "raw"),
        (1, "end2end"),
        (2, "end2end"),
    ]
    assert bundle.targets() == ("onnxruntime:cpu/fp32", "openvino:cpu/fp32")
    assert len(bundle.golden().inputs) == 16
    assert bundle.manifest.provenance.weights.source == "random"
    assert bundle.manifest.spec == json.loads(small_pose.request.spec.canonical)
    assert set(bundle.manifest.digests) == {"spec", "live_spec", "weights", "calibration", "recipe"}


def test_every_rung_is_recorded_and_passed(small_segmentation: SmallExport) -> None:
    parity = Bundle.open(small_segmentation.bundle).parity()
    assert parity is not None
    names = [rung.name for rung in parity.rungs if rung.comparison.stage == "undecoded"]
    assert names[:3] == ["BN folded", "ONNX unsimplified", "simplified"]
    assert {"onnxruntime:cpu/fp32", "openvino:cpu/fp32", "openvino:cpu/fp32 batch 2"} <= set(names)
    assert "openvino:cpu/fp32 end2end" in {rung.name for rung in parity.rungs if rung.comparison.stage == "decoded"}
    assert all(rung.verdict.passed for rung in parity.rungs)


def test_two_exports_agree_in_every_byte_that_the_manifest_lists(small_pose: SmallExport, tmp_path: Path) -> None:
    request = small_request("pose", tmp_path / "again", "onnxruntime:cpu/fp32")
    export_bundle(request, progress=silent)
    for name in ("manifest.json", "model.onnx", "model-b2.onnx", "model-end2end.onnx", "golden/outputs.npy"):
        one, other = ((folder / name).read_bytes() for folder in (small_pose.bundle, request.wanted.out))
        if name == "manifest.json":
            one = one.replace(b"small-pose", b"")
            other = other.replace(b"small-pose", b"")
        assert one == other, name


def test_supernet_weights_are_compared_extracted_and_recalibrated(tmp_path: Path) -> None:
    request = small_request("segmentation", tmp_path / "out.zip", "onnxruntime:cpu/fp32")
    spec = request.spec
    supernet = Supernet(get_space(spec.space), spec.settings)
    weights = Weights("supernet", spec.space, supernet.settings, supernet.state_dict(), None, request.recipe)
    save_weights(tmp_path / "w.safetensors", weights)
    found = find_weights(str(tmp_path / "w.safetensors"))
    member = get_space(spec.space).min(spec.settings, {"image": (3, 64, 96)})
    wanted = replace(request.wanted, batches=(), io=("raw",))
    report = export_bundle(replace(request, spec=member, weights=found, wanted=wanted), progress=silent)
    assert report.rungs[0].name == "supernet vs static"
    assert report.rungs[0].comparison.max_abs == 0
    bundle = Bundle.open(request.wanted.out)
    calibration = bundle.manifest.provenance.calibration
    assert calibration is not None
    assert (calibration.kind, bundle.manifest.digests["calibration"]) == ("synthetic", calibration.digest)
    assert bundle.manifest.digests["weights"] == weights.digest


def trained_supernet(request: ExportRequest, path: Path) -> Weights:
    """Writes weights whose header says that `train` made the supernet."""
    space = get_space(request.spec.space)
    supernet = Supernet(space, request.spec.settings)
    provenance: dict[str, Json] = {"config": {"phase": "supernet", "sampling": {"rule": "groups"}, "seed": 0}}
    weights = Weights(
        "supernet", space.name, supernet.settings, supernet.state_dict(), None, request.recipe, provenance
    )
    save_weights(path, weights)
    return weights


@pytest.mark.parametrize(
    ("given", "kind", "rule"),
    [
        ([], "synthetic", "transferred"),
        (["--statistics", "measured"], "synthetic", "measured"),
        (["--calibration", "D.yaml"], "D calibrate", "transferred"),
    ],
    ids=["default", "measured", "described data"],
)
def test_statistics_of_a_trained_supernet_are_transferred(
    given: list[str], kind: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = trained_supernet(small_request("pose", tmp_path, "onnxruntime:cpu/fp32"), Path("w.safetensors"))
    Path("D.yaml").write_text(
        "task: pose\nset: lspet-14\ntrain: [{kind: synthetic, seed: 1, count: 12}]\n"
        "val: [{kind: synthetic, seed: 2, count: 2}]\nsplits: {calibrate: 0.5, search: 0.2}\n"
    )
    words = ["--weights", "w.safetensors", "--target", "onnxruntime:cpu/fp32", "--out", "b.bundle"]
    assert run(["export", "min", *words, *given]) == 0
    record = json.loads(Path("b.bundle/records/export.json").read_text())
    assert record["recalibration"]["statistics"] == rule
    assert record["recalibration"]["calibration"]["kind"] == kind
    assert Bundle.open(Path("b.bundle")).manifest.digests["weights"] == weights.digest


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--statistics", "transferred"], "--statistics transferred is for a net out of a supernet"),
        (["--statistics", "measured", "--calibration", "none"], "--statistics measured is for a net out of a supernet"),
        (["--data-root", "here"], "--data-root is for --calibration D.yaml"),
        (["--calibration", "nowhere.yaml"], "nowhere.yaml"),
    ],
    ids=["random", "random, none", "root alone", "no file"],
)
def test_statistics_that_cannot_be_had_are_refused(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = small_request("pose", tmp_path, "onnxruntime:cpu/fp32")
    request.spec.write(tmp_path / "s.json")
    target = ["--target", "onnxruntime:cpu/fp32", "--joints", "lspet-14", "--out", str(tmp_path / "out")]
    assert run(["export", str(tmp_path / "s.json"), *target, *words]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_rule_for_statistics_without_pictures_is_refused(tmp_path: Path) -> None:
    request = small_request("pose", tmp_path / "out", "onnxruntime:cpu/fp32")
    trained_supernet(request, tmp_path / "w.safetensors")
    found = find_weights(str(tmp_path / "w.safetensors"))
    asked_for = replace(request, weights=found, calibration="none", statistics="transferred")
    with pytest.raises(UserError, match="--statistics transferred needs pictures, and --calibration is none"):
        export_bundle(asked_for, progress=silent)


def test_static_weights_keep_their_statistics(small_pose: SmallExport, tmp_path: Path) -> None:
    net = static_net(small_pose.request.spec)
    request = small_request("pose", tmp_path / "out", "onnxruntime:cpu/fp32")
    found = FoundWeights(Weights.of(net, recipe=request.recipe), "W.safetensors")
    with pytest.raises(UserError, match=r"bring their BN statistics along; --calibration is for supernets"):
        export_bundle(replace(request, weights=found, calibration="synthetic"), progress=silent)


def test_random_nets_have_sane_outputs() -> None:
    request = small_request("segmentation", Path("out"), "onnxruntime:cpu/fp32")
    net = static_net(request.spec).eval()
    calibration = calibration_pictures("synthetic", request.recipe, count=16)
    assert calibration is not None
    settle(net, request.recipe, calibration, seed=0)
    outputs = net(normalised(calibration.pictures[:4], request.recipe)).detach().numpy()
    assert np.isfinite(outputs).all()
    assert 0.2 <= np.ptp(outputs) <= 5
    assert len(np.unique(outputs.argmax(axis=1))) >= 2


def test_calibration_pictures_are_the_same_every_time() -> None:
    recipe = pose_recipe("lspet-14", size=(64, 32))
    one, other = (calibration_pictures("synthetic", recipe, count=4) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.entry == other.entry
    assert one.pictures.shape == (4, 64, 32, 3)


@pytest.mark.parametrize(
    "recipe",
    [
        pose_recipe("lspet-14", size=(64, 32)),
        segmentation_recipe("camvid-11", size=(64, 96)),
        segmentation_recipe("camvid-11", size=(64, 96), fit="sliding"),
    ],
    ids=["pose", "stretch", "sliding"],
)
def test_calibration_takes_a_folder_of_pictures(recipe: object, tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), np.full((130, 170, 3), ord(name[0]), np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    taken = calibration_pictures(str(tmp_path), recipe)  # type: ignore[arg-type]
    assert taken is not None
    assert taken.entry.kind == "pictures"
    assert len(taken.pictures) == 2
    assert [each[32, 16, 0] for each in taken.pictures] == [ord("a"), ord("b")]


def test_calibration_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"--calibration nowhere is not a directory; give one of pictures"):
        calibration_pictures("nowhere", pose_recipe("lspet-14"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["ctrl-c", "full"])
def test_an_export_that_ends_early_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = small_request("pose", tmp_path / "out", "onnxruntime:cpu/fp32")

    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(scalenas_export.packing, "build_engine", fails)
    with pytest.raises(type(error)):
        export_bundle(request, progress=silent)
    assert list(tmp_path.iterdir()) == []


def test_a_rung_that_fails_ends_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(net):  # type: ignore[no-untyped-def]
        folded = fold(net)
        folded.get_submodule("stage2.0.branch0.block0.conv1.conv").weight.mul_(2)
        return folded

    monkeypatch.setattr("scalenas_export.export_bundle.fold", wrong)
    request = small_request("pose", tmp_path / "out", "onnxruntime:cpu/fp32")
    with pytest.raises(CheckFailed, match=r"BN folded: .*first diverging module is stage2\.0\.branch0\.block0\.conv1"):
        export_bundle(request, progress=silent)
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "precision": (["--target", "onnxruntime:cpu/bf16"], r"onnxruntime does not run bf16 on .*; it runs fp32"),
    "backend": (["--target", "onnx:cpu/fp32"], r"unknown backend 'onnx'; known: onnxruntime, openvino"),
    "device": (["--target", "openvino:tpu/fp32"], r"openvino finds no device 'tpu' here; devices: cpu"),
    "form": (["--target", "onnxruntime/fp32"], r"not of the form backend:device/precision"),
    "weights": (["--weights", "tuned"], r"no weights are called 'tuned'; shipped ones lie in the checkout's weights/"),
    "checkpoint": (["--weights", "x.pth"], r"x.pth is a checkpoint: say whose with --recipe \(.*hrnet-pose"),
    "sets": (["--joints", "coco-17", "--classes", "camvid-11"], r"--joints is for pose, --classes for segmentation"),
    "size": (["--size", "250x192"], r"250.*32|multiple of 32"),
    "recipe": (["--recipe", "none.json"], r"there is no recipe file none.json"),
    "channels": (["--joints", "lspet-14", "--recipe", "{recipe}"], r"the recipe is for pose with 17 joints, the spec"),
    "flip": (["--recipe", "{flip}", "--io", "end2end"], r"cannot carry flip_test"),
}


@pytest.mark.parametrize(("options", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exported_is_refused_before_any_work(
    options: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name, recipe in {"recipe": pose_recipe("coco-17"), "flip": pose_recipe("coco-17", flip_test=True)}.items():
        (recipes / f"{name}.json").write_bytes(msgspec.json.encode(recipe))
    given = [each.format(recipe=recipes / "recipe.json", flip=recipes / "flip.json") for each in options]
    targets = [] if "--target" in given else ["--target", "onnxruntime:cpu/fp32"]
    assert run(["export", "hrnet-w16", "--out", str(tmp_path / "out"), *targets, *given]) == 2
    error = capsys.readouterr().err
    assert re.search(text, error), error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["recipes"]


@pytest.mark.parametrize("seed", ["99999999999999999999", "-1"])
@pytest.mark.parametrize("verb", ["export", "import-checkpoint"])
def test_seeds_that_no_generator_takes_are_refused(
    verb: str, seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.pth").write_bytes(b"")
    lines = {
        "export": ["hrnet-w16", "--target", "onnxruntime:cpu/fp32"],
        "import-checkpoint": [str(tmp_path / "x.pth"), "--recipe", "hrnet-pose"],
    }
    assert run([verb, *lines[verb], "--out", str(tmp_path / "out"), "--seed", seed]) == 2
    assert f"{seed} is not in the range 0<=x<=9223372036854775807" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_largest_seed_is_a_seed(tmp_path: Path) -> None:
    static_net(small_request("pose", tmp_path / "out", "onnxruntime:cpu/fp32").spec, seed=2**63 - 1)


def test_a_taken_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    line = ["export", "hrnet-w16", "--target", "onnxruntime:cpu/fp32", "--out", str(tmp_path / "out")]
    assert run(line) == 2
    assert "out exists already; name another place or pass --overwrite" in capsys.readouterr().err


def test_symbolic_sizes_need_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = small_request("pose", tmp_path / "out", "onnxruntime:cpu/fp32").spec
    symbolic = replace(spec, inputs={"image": (3, "height", "width")})
    symbolic.write(tmp_path / "spec.json")
    line = ["export", str(tmp_path / "spec.json"), "--target", "onnxruntime:cpu/fp32", "--out", str(tmp_path / "out")]
    assert run(line) == 2
    assert "symbolic size height x width, and engines take fixed ones: pass --size" in capsys.readouterr().err


def test_recipes_follow_the_spec(tmp_path: Path) -> None:
    request = small_request("pose", tmp_path / "out", "onnxruntime:cpu/fp32")
    given = pose_recipe("lspet-14", size=(256, 192), decode="dark")
    taken = spec_recipe(request.spec, given=given)
    assert (taken.height, taken.width) == (96, 64)
    assert taken == msgspec.structs.replace(given, height=96, width=64)
    with pytest.raises(UserError, match=r"the recipe is for segmentation with 11 classes, the spec for pose with 14"):
        spec_recipe(request.spec, given=segmentation_recipe("camvid-11"))
    odd = replace(request.spec, settings={**request.spec.settings, "joints": 5})
    with pytest.raises(UserError, match=r"no named set has 5 joints; known: coco-17 \(17\).*pass --joints"):
        spec_recipe(odd)


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> ExportRequest:
    """Returns what a command line of `export` would export."""
    requests: list[ExportRequest] = []

    def take(request: ExportRequest, **options: object) -> None:
        requests.append(request)
        raise UserError("enough")

    monkeypatch.setattr("scalenas_export.export_bundle.export_bundle", take)
    assert run(["export", *words, "--target", "onnxruntime:cpu/fp32"]) == 2
    assert requests
    return requests[0]


@pytest.mark.parametrize(
    ("recipe", "option", "names"),
    [
        (pose_recipe("lspet-14", size=(96, 64)), "--joints", "lspet-14"),
        (segmentation_recipe("camvid-11", size=(64, 96)), "--classes", "camvid-11"),
    ],
    ids=["joints", "classes"],
)
def test_naming_a_set_keeps_the_recipe_of_the_weights(
    recipe: Recipe, option: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_request("pose" if option == "--joints" else "segmentation", tmp_path, "onnxruntime:cpu/fp32").spec
    channels = len(recipe.joints if isinstance(recipe, PoseRecipe) else recipe.classes)
    own: dict[str, object] = {"color": "bgr", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    own |= {"affine": "udp", "decode": "dark-udp"} if option == "--joints" else {"fit": "pad", "align_corners": True}
    unnamed = {option[2:]: tuple(f"c{index}" for index in range(channels))}
    trained = msgspec.structs.replace(recipe, **own, **unnamed)
    save_weights(tmp_path / "w.safetensors", Weights.of(static_net(spec), recipe=trained))
    spec.write(tmp_path / "spec.json")
    words = [str(tmp_path / "spec.json"), "--weights", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "out")]
    assert asked(monkeypatch, *words).recipe == trained
    assert asked(monkeypatch, *words, option, names).recipe == msgspec.structs.replace(recipe, **own)


def write_recipe(path: Path, recipe: Recipe) -> Path:
    path.write_bytes(msgspec.json.encode(recipe))
    return path


def test_the_size_of_a_recipe_file_is_the_nets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = pose_recipe("lspet-14", size=(128, 96))
    out = ["--out", str(tmp_path / "out")]
    given = ["--recipe", str(write_recipe(tmp_path / "r.json", recipe)), *out]
    spec = small_request("pose", tmp_path, "onnxruntime:cpu/fp32").spec
    replace(spec, inputs={"image": (3, "height", "width")}).write(tmp_path / "open.json")
    spec.write(tmp_path / "fixed.json")
    for net in (["hrnet-w16", "--joints", "lspet-14"], [str(tmp_path / "open.json")]):
        request = asked(monkeypatch, *net, *given)
        assert (request.spec.inputs, request.recipe) == ({"image": (3, 128, 96)}, recipe)
    sized = asked(monkeypatch, str(tmp_path / "fixed.json"), "--size", "128x96", *given)
    assert sized.spec.inputs == {"image": (3, 128, 96)}
    target = ["--target", "onnxruntime:cpu/fp32"]
    for words in (["hrnet-w16", "--joints", "lspet-14", "--size", "96x64"], [str(tmp_path / "fixed.json")]):
        capsys.readouterr()
        assert run(["export", *words, *given, *target]) == 2
        assert "r.json is for pictures of 128x96, and the net takes 96x64: change" in capsys.readouterr().err


def test_a_set_beside_a_recipe_file_of_other_names_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = msgspec.structs.replace(pose_recipe("lspet-14"), joints=tuple(f"joint{index}" for index in range(14)))
    words = ["--recipe", str(write_recipe(tmp_path / "r.json", named)), "--out", str(tmp_path / "out")]
    assert run(["export", "hrnet-w16", "--joints", "lspet-14", "--target", "onnxruntime:cpu/fp32", *words]) == 2
    assert "r.json has other names than lspet-14, or another order: name the set or" in capsys.readouterr().err


def test_a_stride_that_is_not_the_nets_is_refused_before_any_work(tmp_path: Path) -> None:
    request = small_request("pose", tmp_path / "out", "onnxruntime:cpu/fp32")
    wrong = replace(request, recipe=msgspec.structs.replace(request.recipe, stride=8))
    text = r"\(stride 8\) needs an output of \(14, 12, 8\), the net gives \(14, 24, 16\): its stride is 4"
    with pytest.raises(UserError, match=text):
        export_bundle(wrong, progress=silent)
    assert list(tmp_path.iterdir()) == []


_NAN = '{"task": "pose", "height": 64, "width": 32, "joints": ["a"], "keypoint_threshold": NaN}'
BROKEN = {
    "no json": "{",
    "no recipe": '{"task": "cooking"}',
    "not a number": _NAN,
    "infinite": _NAN.replace("NaN", "1e999"),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_recipe_files_are_named_in_errors(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"recipe\.json"):
        read_recipe_file(path)
