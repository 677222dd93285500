"""The format, frozen: a bundle written out by hand, and the exact manifest that the writer makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenas_runtime.bundle import Bundle, BundleContents, ModelFile, Provenance, WeightsEntry, write_bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.golden import Golden
from scalenas_runtime.session import TensorSpec
from scalenas_runtime.tasks import SegmentationRecipe

RECIPE = SegmentationRecipe(height=32, width=32, classes=("road", "sky"), palette=((128, 64, 128), (70, 130, 180)))
MODEL = b"not a graph, only bytes"
FROZEN = Path(__file__).with_name("frozen_manifest.json")


def frozen_contents(folder: Path) -> BundleContents:
    model = folder / "graph.onnx"
    model.write_bytes(MODEL)
    ramp = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(1, 32, 32, 3)
    return BundleContents(
        name="frozen",
        recipe=RECIPE,
        models=(
            ModelFile(
                model,
                (TensorSpec("image", "uint8", (1, 32, 32, 3)),),
                (TensorSpec("logits", "float32", (1, 2, 8, 8)),),
            ),
        ),
        golden=Golden(
            (ramp % 251).astype(np.uint8),
            (np.arange(128) / 64 - 1).astype(np.float32).reshape(1, 2, 8, 8),
            np.ones((1, 32, 32), np.uint8),
        ),
        provenance=Provenance(
            tool="scalenas-export 0.1.0",
            weights=WeightsEntry(source="made by hand", licence="CC0-1.0", digest="2" * 64),
            export={"opset": 18},
        ),
        spec={"space": "none"},
        digests={"live_spec": "1" * 64},
        extra={"shelf": 3},
    )


Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "frozen", frozen_contents(tmp_path))


def edited(bundle: Path, edit: Edit) -> Path:
    manifest = bundle / "manifest.json"
    value = json.loads(manifest.read_text())
    edit(value)
    manifest.write_text(json.dumps(value))
    return bundle


def test_the_manifest_has_exactly_this_text(frozen: Path) -> None:
    assert (frozen / "manifest.json").read_text() == FROZEN.read_text()


def test_the_golden_files_have_exactly_these_bytes(frozen: Path) -> None:
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1, 32, 32), }"
    assert (frozen / "golden/decoded.npy").read_bytes() == header.ljust(127) + b"\n" + b"\x01" * 1024
    assert sorted(path.relative_to(frozen).as_posix() for path in frozen.rglob("*") if path.is_file()) == [
        *("README.md", "golden/decoded.npy", "golden/inputs.npy", "golden/outputs.npy"),
        *("manifest.json", "model.onnx"),
    ]


def test_a_bundle_written_by_hand_opens(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "written", frozen_contents(tmp_path))
    by_hand = tmp_path / "by-hand"
    (by_hand / "golden").mkdir(parents=True)
    (by_hand / "manifest.json").write_bytes(FROZEN.read_bytes())
    (by_hand / "model.onnx").write_bytes(MODEL)
    for name in ("inputs", "outputs", "decoded"):
        (by_hand / f"golden/{name}.npy").write_bytes((written / f"golden/{name}.npy").read_bytes())
    bundle = Bundle.open(by_hand)
    assert bundle.recipe == RECIPE
    assert bundle.manifest.extra == {"shelf": 3}
    assert bundle.manifest.digests["live_spec"] == "1" * 64
    assert bundle.model().read_bytes() == MODEL
    assert bundle.engines() == ()
    assert bundle.parity() is None
    golden = bundle.golden()
    assert golden.inputs[0, 0, 0].tolist() == [0, 1, 2]
    assert golden.outputs[0, 1, 7, 7] == 127 / 64 - 1
    assert golden.decoded.min() == 1


def without(*keys: str) -> Edit:
    def edit(value: dict[str, Any]) -> None:
        place = value
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return edit


def listing(path: str) -> Edit:
    return lambda value: value["files"].append({"path": path, "sha256": "0" * 64, "size": 1})


MALFORMED: dict[str, tuple[Edit, str]] = {
    "missing key": (without("models"), "missing required field `models`"),
    "missing inner key": (without("golden", "count"), r"missing required field `count` - at `\$.golden`"),
    "surplus key": (lambda v: v.update(model=[]), r"unknown field `model` \(did you mean `models`\?\)"),
    "surplus inner key": (
        lambda v: v["models"][0].update(batches=1),
        r"unknown field `batches` - at `\$.models\[0\]` \(did you mean `batch`\?\)",
    ),
    "wrong type": (lambda v: v["models"][0].update(batch="1"), "Expected `int`, got `str` - at `.*batch`"),
    "unknown io": (lambda v: v["models"][0].update(io="cooked"), "Invalid enum value 'cooked'"),
    "other major": (lambda v: v.update(schema="scalenas.bundle/2.0"), "has major version 2, this version reads 1"),
    "other schema": (lambda v: v.update(schema="else/1.0"), "schema is 'else/1.0', expected 'scalenas.bundle/1.0'"),
    "no schema": (without("schema"), "schema is None, expected 'scalenas.bundle/1.0'"),
    "schema of another type": (lambda v: v.update(schema=1), "schema is 1, expected"),
    "requires in 1.0": (
        lambda v: v.update(requires=["x"]),
        r"requires \['x'\], which scalenas.bundle/1.0 does not have",
    ),
    "bad recipe": (lambda v: v["recipe"].update(fitt="pad"), r"unknown field `fitt` \(did you mean `fit`\?\)"),
    "changed recipe": (lambda v: v["recipe"].update(stride=8), "the recipe was changed: its digest is not digests.rec"),
    "unknown task": (lambda v: v["recipe"].update(task="depth"), "task is 'depth', known: pose, segmentation"),
    "checksum that is none": (
        lambda v: v["files"][3].update(sha256="12"),
        "is not 64 lower-case hexadecimal digits: '12'",
    ),
    "negative size": (lambda v: v["files"][3].update(size=-1), "size of model.onnx is negative: -1"),
    "path twice": (lambda v: v["files"].append(v["files"][3]), "files holds a path twice"),
    "paths that differ in case": (
        lambda v: v["files"].append({**v["files"][3], "path": "Model.onnx"}),
        "files holds a path twice",
    ),
    "model not listed": (lambda v: v["files"].pop(3), "'model.onnx' is used but not listed in files"),
    "golden not listed": (lambda v: v["files"].pop(0), "'golden/decoded.npy' is used but not listed in files"),
    "form twice": (lambda v: v["models"].append(v["models"][0]), "models holds a form twice"),
    "no raw batch 1": (lambda v: v["models"][0].update(batch=2), "models lacks the graph of batch 1 and io raw"),
    "wrong checksum": (
        lambda v: v["files"][3].update(sha256="0" * 64),
        "model.onnx has SHA-256 3e7a.*; the file was changed",
    ),
    "wrong size": (lambda v: v["files"][3].update(size=24), "model.onnx has 23 bytes, its record says 24"),
    "file that is not there": (
        lambda v: v["files"].append({"path": "licence.txt", "sha256": "0" * 64, "size": 1}),
        "licence.txt is missing",
    ),
    **{
        f"escaping path {path!r}": (listing(path), "leads out of the bundle or is not portable")
        for path in (
            *("../model.onnx", "golden/../../x", "/etc/passwd", "a\\..\\b", "C:/x", "C:x", "a//b", "./a", "", "a/"),
            *("a\0b", "a\nb", "a./b", "x" * 300),
        )
    },
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_manifest_is_refused(frozen: Path, case: str) -> None:
    edit, text = MALFORMED[case]
    with pytest.raises(UserError, match=text):
        Bundle.open(edited(frozen, edit))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "must be a JSON object, got list"),
        (b'{"a": 1, "a": 2}', "key 'a' stands twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
    ],
    ids=["empty", "cut", "list", "key twice", "nan", "deep", "bytes"],
)
def test_a_manifest_that_is_no_json_is_refused(frozen: Path, data: bytes, text: str) -> None:
    (frozen / "manifest.json").write_bytes(data)
    with pytest.raises(UserError, match=text):
        Bundle.open(frozen)


def test_an_endless_manifest_is_not_read_on(frozen: Path) -> None:
    with (frozen / "manifest.json").open("ab") as stream:
        stream.truncate(17 << 20)
    with pytest.raises(UserError, match=r"manifest\.json is longer than the 16777216 bytes it may have"):
        Bundle.open(frozen)


def test_a_golden_file_that_is_an_archive_is_refused(frozen: Path) -> None:
    path = frozen / "golden/inputs.npy"
    with path.open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edited(frozen, lambda v: v["files"][1].update(sha256=digest, size=path.stat().st_size))
    with pytest.raises(UserError, match=r"inputs\.npy is an archive of arrays; a golden file is one \.npy array"):
        Bundle.open(frozen).golden()


def test_a_newer_minor_with_keys_that_need_not_be_understood_opens(frozen: Path) -> None:
    def edit(value: dict[str, Any]) -> None:
        value.update(schema="scalenas.bundle/1.7", colour="blue", requires=["golden", "models.batch"])
        value["models"][0]["speed"] = 3
        value["provenance"]["weights"]["owner"] = "x"

    manifest = Bundle.open(edited(frozen, edit)).manifest
    assert (manifest.name, manifest.schema, manifest.models[0].batch) == ("frozen", "scalenas.bundle/1.7", 1)


@pytest.mark.parametrize("key", ["colour", "models.speed", "provenance.weights.owner", "never.heard.of"])
def test_a_newer_minor_that_requires_an_unknown_key_is_refused(frozen: Path, key: str) -> None:
    def edit(value: dict[str, Any]) -> None:
        value.update(schema="scalenas.bundle/1.7", colour="blue", requires=["name", key])
        value["models"][0]["speed"] = 3
        value["provenance"]["weights"]["owner"] = "x"

    with pytest.raises(
        UserError, match=rf"its keys {key} must be understood .*1\.7.*knows scalenas.bundle/1\.0; update"
    ):
        Bundle.open(edited(frozen, edit))


def test_a_newer_minor_is_as_strict_about_known_keys(frozen: Path) -> None:
    with pytest.raises(UserError, match="missing required field `name`"):
        Bundle.open(edited(frozen, lambda v: (v.update(schema="scalenas.bundle/1.1"), v.pop("name"))))


def test_a_surplus_file_is_refused_and_hidden_ones_are_passed_over(frozen: Path) -> None:
    (frozen / ".DS_Store").write_text("x")
    (frozen / "records").mkdir()
    (frozen / "records/notes.txt").write_text("x")
    (frozen / "README.md").write_text("mine")
    Bundle.open(frozen)
    (frozen / "golden/more.npy").write_text("x")
    with pytest.raises(UserError, match=r"golden/more.npy is not listed in manifest.json; notes belong into records/"):
        Bundle.open(frozen)


@pytest.mark.parametrize("name", ["model.onnx", "golden/inputs.npy"])
def test_a_changed_byte_is_found(frozen: Path, name: str) -> None:
    data = bytearray((frozen / name).read_bytes())
    data[-1] ^= 1
    (frozen / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} has SHA-256 .* the file was changed"):
        Bundle.open(frozen)


def test_a_symbolic_link_is_refused(frozen: Path) -> None:
    target = frozen.parent / "elsewhere.onnx"
    (frozen / "model.onnx").rename(target)
    (frozen / "model.onnx").symlink_to(target)
    with pytest.raises(UserError, match=r"model\.onnx is a symbolic link"):
        Bundle.open(frozen)


def test_a_linked_folder_is_refused(frozen: Path) -> None:
    (frozen / "golden").rename(frozen.parent / "golden")
    (frozen / "golden").symlink_to(frozen.parent / "golden")
    with pytest.raises(UserError, match="golden is a symbolic link"):
        Bundle.open(frozen)


def test_what_is_no_bundle_says_so(tmp_path: Path, frozen: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist; a bundle is a directory with a manifest\.json"):
        Bundle.open(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match="text is not a bundle: neither a directory nor a zip"):
        Bundle.open(tmp_path / "text")
    outer = tmp_path / "outer"
    outer.mkdir()
    with pytest.raises(UserError, match=r"outer is not a bundle: manifest\.json is missing$"):
        Bundle.open(outer)
    frozen.rename(outer / "inner")
    with pytest.raises(UserError, match=r"it is in inner/manifest\.json: name that folder"):
        Bundle.open(outer)


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        (
            "inputs",
            np.zeros((1, 32, 32, 4), np.uint8),
            r"inputs must be uint8 \(1, 32, 32, 3\).* got uint8 \(1, 32, 32, 4\)",
        ),
        ("outputs", np.zeros((2, 2, 8, 8), np.float32), r"outputs must be float32 \(1, 2, 8, 8\)"),
        ("outputs", np.zeros((1, 2, 8, 8)), "outputs must be float32 .* got float64"),
        ("decoded", np.zeros((1, 32, 32), np.int64), "decoded must be uint8 .* got int64"),
        ("decoded", np.array([{"a": 1}], object), "is not a .npy file of plain numbers"),
    ],
    ids=["channels", "count", "dtype", "class dtype", "pickle"],
)
def test_golden_files_that_do_not_fit_are_refused(
    frozen: Path, name: str, array: np.ndarray[Any, Any], text: str
) -> None:
    path = frozen / f"golden/{name}.npy"
    np.save(path, array, allow_pickle=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    index = ["decoded", "inputs", "outputs"].index(name)
    edited(frozen, lambda v: v["files"][index].update(sha256=digest, size=path.stat().st_size))
    with pytest.raises(UserError, match=text):
        Bundle.open(frozen).golden()


def test_a_batch_or_form_that_is_not_there_names_those_that_are(frozen: Path) -> None:
    with pytest.raises(UserError, match="holds no graph of batch 8 and io raw; it holds batch 1 io raw"):
        Bundle.open(frozen).model(batch=8)


def test_a_malformed_parity_record_is_refused(frozen: Path) -> None:
    (frozen / "records").mkdir()
    (frozen / "records/parity.json").write_text('{"rungs": [{}]}')
    with pytest.raises(UserError, match=r"records/parity.json: Object missing required field `name`"):
        Bundle.open(frozen).parity()


def test_contents_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    contents = frozen_contents(tmp_path)
    with pytest.raises(UserError, match=r"models lacks the graph|models holds"):
        write_bundle(tmp_path / "b", replace(contents, models=(replace(contents.models[0], batch=4),)))
    with pytest.raises(UserError, match=r"files: manifest\.json is a name of the bundle's own"):
        write_bundle(tmp_path / "b", replace(contents, files={"manifest.json": contents.models[0].path}))
    with pytest.raises(UserError, match=r"leads out of the bundle"):
        write_bundle(tmp_path / "b", replace(contents, files={"../x": contents.models[0].path}))
    golden = contents.golden
    empty = Golden(golden.inputs[:0], golden.outputs[:0], golden.decoded[:0])
    with pytest.raises(UserError, match="with at least one picture"):
        write_bundle(tmp_path / "b", replace(contents, golden=empty))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["graph.onnx"]


def test_a_bundle_without_a_digest_of_its_recipe_opens(frozen: Path) -> None:
    assert Bundle.open(edited(frozen, without("digests", "recipe"))).recipe == RECIPE
