from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenas_export.cli.app import run
from scalenas_runtime.bundle import Bundle, BundleContents, build_engine, write_bundle
from scalenas_runtime.cache import cache_folder, private_folder
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.targets import EngineConfig, Target

PORTABLE = EngineConfig(Target.parse("onnxruntime:cpu/fp32"))
NATIVE = EngineConfig(Target.parse("openvino:cpu/fp32"))
CONFIGS = [PORTABLE, NATIVE]
IDS = ["portable", "native"]


@pytest.fixture
def bundle(tmp_path: Path, contents: BundleContents) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "net", contents))


def check_runs(bundle: Bundle, config: EngineConfig, **options: Any) -> None:
    golden = bundle.golden()
    with Bundle.open(bundle.path, trust=options.pop("trust", False)).load_config(config, **options) as session:
        output = session.run({"image": np.array(golden.inputs[:1])})["heatmaps"]
    np.testing.assert_allclose(output, golden.outputs[:1], atol=1e-4)


def edited(folder: Path, edit: Callable[[dict[str, Any]], object], *, own: bool = False) -> None:
    """Changes an engine's `build.json`; with `own` it counts as built here."""
    path = folder / "build.json"
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    if own:
        (private_folder("receipts") / file_sha256(path)).touch()


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_never_names_the_command_that_builds_one(bundle: Bundle, config: EngineConfig) -> None:
    text = rf"no engine of .*net fits {config.target} here \(it holds none\); build one with: scalenas-export build "
    with pytest.raises(UserError, match=text + rf".*net --target {config.target}$"):
        bundle.load_config(config)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_a_built_engine_is_in_the_bundle_and_loads(bundle: Bundle, config: EngineConfig) -> None:
    folder = bundle.build(config)
    assert folder.parent == bundle.path / "engines"
    check_runs(bundle, config)
    check_runs(bundle, replace(config, threads=1))
    assert Bundle.open(bundle.path).targets() == (str(config.target),)
    assert not list(folder.parent.glob(".*"))


def test_the_command_that_the_error_names_builds_it(tmp_path: Path, batched_contents: BundleContents) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "my net", batched_contents))
    config = replace(NATIVE, batch=3)
    with pytest.raises(UserError) as failure:
        bundle.load_config(config)
    command = str(failure.value).partition("build one with: ")[2]
    assert run(shlex.split(command)[1:]) == 0
    bundle.load_config(config).close()


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_cached_takes_from_the_cache_and_auto_builds_there(bundle: Bundle, cache: Path, config: EngineConfig) -> None:
    with pytest.raises(UserError, match=r"--target [^ ]* --cache$"):
        bundle.load_config(config, build="cached")
    check_runs(bundle, config, build="auto")
    assert len(list((cache / "engines").iterdir())) == 1
    check_runs(bundle, config, build="cached")
    with pytest.raises(UserError, match="fits"):
        bundle.load_config(config, build="never")
    assert not (bundle.path / "engines").exists()


def test_build_takes_three_words(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="build must be never, cached or auto, got 'always'"):
        bundle.load_config(PORTABLE, build="always")  # type: ignore[arg-type]


def test_an_engine_that_is_there_is_kept(bundle: Bundle) -> None:
    folder = bundle.build(NATIVE)
    before = (folder / "build.json").stat()
    assert bundle.build(NATIVE) == folder
    after = (folder / "build.json").stat()
    # Not the whole record: reading the file may move its access time.
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_broken_engine_is_built_again(bundle: Bundle) -> None:
    folder = bundle.build(NATIVE)
    (folder / "files/model.blob").write_bytes(b"broken")
    assert bundle.build(NATIVE) == folder
    check_runs(bundle, NATIVE)
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_a_changed_engine_file_is_found_before_it_is_loaded(bundle: Bundle, config: EngineConfig) -> None:
    folder = bundle.build(config)
    path = max((folder / "files").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"files/{path.name} has SHA-256 .* the file was changed"):
        bundle.load_config(config, build="auto")


MISFITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another version": (lambda v: v.update(version="2020.1"), "built with openvino 2020.1, here is 20"),
    "another CPU": (lambda v: v.update(device_key="0" * 64, device="Z80"), "built on Z80, here is "),
    "another graph": (lambda v: v.update(model_sha256="0" * 64), "built from another model.onnx"),
    "another batch": (lambda v: v["config"].update(batch=8), "built for openvino:cpu/fp32, batch 8"),
    "another target": (
        lambda v: v["config"].update(target="openvino:cpu/bf16"),
        "engines/openvino-cpu-fp32-.* is built for openvino:cpu/bf16",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_native_engine_that_does_not_fit_says_why(bundle: Bundle, case: str) -> None:
    edit, text = MISFITS[case]
    edited(bundle.build(NATIVE), edit, own=True)
    with pytest.raises(UserError, match=rf"{text}.*; build one with: scalenas-export build .*net --target openvino"):
        bundle.load_config(NATIVE)
    check_runs(bundle, NATIVE, build="auto")


def test_a_portable_engine_of_another_version_and_cpu_fits(bundle: Bundle) -> None:
    edited(bundle.build(PORTABLE), lambda v: v.update(version="1.0", device_key="0" * 64))
    check_runs(bundle, PORTABLE)


def test_a_native_engine_from_elsewhere_needs_trust(bundle: Bundle, cache: Path) -> None:
    bundle.build(NATIVE)
    shutil.rmtree(cache / "receipts")
    with pytest.raises(UserError, match=r"a native engine from another machine, which is loaded only with trust"):
        bundle.load_config(NATIVE)
    assert [status.trusted for status in bundle.engines()] == [False]
    assert bundle.targets() == ()
    check_runs(bundle, NATIVE, trust=True)
    check_runs(bundle, NATIVE, build="auto")
    assert Bundle.open(bundle.path, trust=True).targets() == ("openvino:cpu/fp32",)


def called_portable(folder: Path, *, lists_blob: bool, engine: str) -> None:
    """Makes a native engine say in both of its records that it is portable, as a bundle from elsewhere may."""
    path = folder / "files/engine.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "kind": engine}))

    def edit(build: dict[str, Any]) -> None:
        build["kind"] = "portable"
        files = {file["path"]: file for file in build["files"]}
        files["files/engine.json"].update(sha256=file_sha256(path), size=path.stat().st_size)
        if not lists_blob:
            del files["files/model.blob"]
        build["files"] = list(files.values())

    edited(folder, edit)


@pytest.mark.parametrize(
    ("lists_blob", "engine", "text"),
    [
        (True, "portable", r"a native engine from another machine, which is loaded only with trust"),
        (True, "native", r"a native engine from another machine, which is loaded only with trust"),
        (False, "portable", r"files/model\.blob is not listed in engines/.*build\.json; delete it"),
        (False, "native", r"files/model\.blob is not listed in engines/.*build\.json; delete it"),
    ],
    ids=["listed", "listed, engine.json says native", "unlisted", "unlisted, engine.json says native"],
)
def test_machine_code_that_calls_itself_portable_needs_trust(
    bundle: Bundle, lists_blob: bool, engine: str, text: str
) -> None:
    called_portable(bundle.build(NATIVE), lists_blob=lists_blob, engine=engine)
    with pytest.raises(UserError, match=text):
        bundle.load_config(NATIVE)
    if lists_blob:
        assert [(status.entry.kind, status.trusted) for status in bundle.engines()] == [("native", False)]


def test_a_changed_build_record_is_not_this_machines(bundle: Bundle) -> None:
    edited(bundle.build(NATIVE), lambda v: v.update(build_seconds=1.0))
    with pytest.raises(UserError, match="loaded only with trust"):
        bundle.load_config(NATIVE)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda v: v.pop("kind"), "build.json: Object missing required field `kind`"),
        (lambda v: v.update(kind="odd"), "build.json: Invalid enum value 'odd'"),
        (lambda v: v.update(typ="x"), r"unknown field `typ`"),
        (lambda v: v["files"][0].update(path="../../../evil"), "'../../../evil' leads out of the bundle"),
    ],
    ids=["missing", "value", "surplus", "escaping"],
)
def test_a_malformed_build_record_is_refused(
    bundle: Bundle, edit: Callable[[dict[str, Any]], object], text: str
) -> None:
    edited(bundle.build(PORTABLE), edit)
    with pytest.raises(UserError, match=text):
        bundle.load_config(PORTABLE)


def test_a_target_that_is_not_possible_is_refused_before_anything_else(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="onnxruntime does not run bf16"):
        bundle.load("onnxruntime:cpu/bf16", build="auto")
    with pytest.raises(UserError, match=r"is on another host; .* call this there with openvino:cpu/fp32$"):
        bundle.load("openvino:cpu/fp32@nuc")
    with pytest.raises(UserError, match="holds no graph of batch 4"):
        bundle.build(replace(NATIVE, batch=4))


def test_graphs_of_other_batches_have_engines_of_their_own(tmp_path: Path, batched_contents: BundleContents) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "net", batched_contents))
    assert {bundle.build(PORTABLE), bundle.build(replace(PORTABLE, batch=3))} == set(
        (bundle.path / "engines").iterdir()
    )
    golden = bundle.golden()
    with bundle.load("onnxruntime:cpu/fp32", batch=3) as session:
        output = session.run({"image": np.array(golden.inputs[:3])})["heatmaps"]
    np.testing.assert_allclose(output, golden.outputs[:3], atol=1e-4)


def test_engines_travel_in_a_zip(tmp_path: Path, cache: Path, contents: BundleContents) -> None:
    store = tmp_path / "store"
    store.mkdir()
    built = tuple(build_engine(contents.models[0].path, contents.models[0].place(config), store) for config in CONFIGS)
    bundle = Bundle.open(write_bundle(tmp_path / "net.zip", replace(contents, engines=built)))
    assert bundle.targets() == ("onnxruntime:cpu/fp32", "openvino:cpu/fp32")
    for config in CONFIGS:
        check_runs(bundle, config)
    shutil.rmtree(cache)
    with pytest.raises(UserError, match=r"loaded only with trust .*--cache and load with build='cached'$"):
        bundle.load_config(NATIVE)
    with pytest.raises(UserError, match=r"net\.zip is a zip and stays as it is; unzip it, or build into the cache"):
        bundle.build(NATIVE)
    bundle.build(NATIVE, cache=True)
    check_runs(bundle, NATIVE, build="cached")


def test_two_processes_that_build_at_once_both_succeed(bundle: Bundle) -> None:
    script = (
        "import sys; from scalenas_runtime.bundle import Bundle; from scalenas_runtime.targets import *\n"
        "bundle = Bundle.open(sys.argv[1]); config = EngineConfig(Target.parse('openvino:cpu/fp32'))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(bundle.build(config).name); bundle.load_config(config).close()\n"
    )
    command = [sys.executable, "-c", script, str(bundle.path)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    names = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert [path.name for path in (bundle.path / "engines").iterdir()] == list(names)
    check_runs(bundle, NATIVE)


def test_a_failed_build_leaves_nothing(tmp_path: Path, contents: BundleContents) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    graph = replace(contents.models[0], path=broken)
    bundle = Bundle.open(write_bundle(tmp_path / "net", replace(contents, models=(graph,))))
    with pytest.raises(UserError, match="OpenVINO cannot read it"):
        bundle.build(NATIVE)
    assert list((bundle.path / "engines").iterdir()) == []


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_a_full_disk_ends_a_build_and_leaves_nothing(small_disk: Path, bundle: Bundle, config: EngineConfig) -> None:
    (small_disk / "fill").write_bytes(bytes(128 * 1024 - 4096))
    with pytest.raises((OSError, UserError), match=r"No space left|the engine cannot be built in .* bytes free\)"):
        build_engine(bundle.model(), bundle.place(config), small_disk)
    assert [path.name for path in small_disk.iterdir()] == ["fill"]


def test_where_no_engines_can_be_put_the_cache_is_named(bundle: Bundle) -> None:
    (bundle.path / "engines").write_text("in the way")
    with pytest.raises(UserError, match="File exists; build into the cache with --cache"):
        bundle.build(PORTABLE)


def test_a_relative_cache_folder_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "some/where"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder("engines") == tmp_path / ".cache/scalenas-export/engines"


def test_pose_takes_the_batches_whose_engines_fit(tmp_path: Path, batched_contents: BundleContents) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "net", batched_contents))
    bundle.build(NATIVE)
    many = bundle.build(replace(NATIVE, batch=3))
    with PoseEstimator.load(bundle.path, str(NATIVE.target)) as pose:
        assert pose.batches == (1, 3)
    edited(many, lambda value: value.update(version="2020.1"), own=True)
    with PoseEstimator.load(bundle.path, str(NATIVE.target)) as pose:
        assert pose.batches == (1,)


@pytest.mark.parametrize("damage", ["build.json", "files/model.onnx", "files/engine.json"])
def test_a_damaged_engine_in_the_cache_is_built_anew(damage: str, bundle: Bundle, cache: Path) -> None:
    check_runs(bundle, PORTABLE, build="auto")
    (folder,) = (cache / "engines").iterdir()
    (folder / damage).write_bytes(b"{}")
    with pytest.raises(UserError, match=rf"fits onnxruntime:cpu/fp32 here \({folder} is damaged\); build one with"):
        bundle.load_config(PORTABLE, build="cached")
    check_runs(bundle, PORTABLE, build="auto")
    check_runs(bundle, PORTABLE, build="cached")
