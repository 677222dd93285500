"""What every backend must do; a new one is one line in `TARGETS`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalenas_runtime.backends import BACKENDS, get_backend, onnxruntime
from scalenas_runtime.backends.base import Backend, import_engine
from scalenas_runtime.errors import MissingExtra, UserError
from scalenas_runtime.files import file_sha256
from scalenas_runtime.fingerprint import cpu_affinity
from scalenas_runtime.session import Session
from scalenas_runtime.targets import EngineConfig, Target

TARGETS = [
    "onnxruntime:cpu/fp32",
    "openvino:cpu/fp32",
]
# What rounding to the precision allows: maximum error over the output's range.
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}


@pytest.fixture(params=TARGETS)
def config(request: pytest.FixtureRequest) -> EngineConfig:
    return EngineConfig(Target.parse(request.param))


@pytest.fixture
def backend(config: EngineConfig) -> Backend:
    return get_backend(config.target.backend)


@pytest.fixture
def session(backend: Backend, config: EngineConfig, tiny_models: Any) -> Iterator[Session]:
    with backend.compile(tiny_models.path("one"), config) as session:
        yield session


def _runs(target: str) -> bool:
    parsed = Target.parse(target)
    try:
        get_backend(parsed.backend).check(parsed)
    except UserError:
        return False
    return True


def _error(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    return float(np.abs(actual - expected).max() / np.ptp(expected))


def test_every_registered_backend_is_in_the_list() -> None:
    assert {target.partition(":")[0] for target in TARGETS} == set(BACKENDS)


@pytest.mark.parametrize("target", [*TARGETS, "openvino:cpu/bf16"])
def test_built_and_loaded_engine_computes_what_numpy_computes(target: str, tmp_path: Path, tiny_models: Any) -> None:
    if not _runs(target):
        pytest.skip(f"this machine does not run {target}")
    config = EngineConfig(Target.parse(target))
    backend = get_backend(config.target.backend)
    files = backend.build(tiny_models.path("one"), config, tmp_path)
    assert files.kind in ("portable", "native")
    assert files.versions == {backend.name: backend.version()}
    assert sorted(files.files) == sorted(path.name for path in tmp_path.iterdir())
    pictures = tiny_models.pictures()
    with backend.load(tmp_path, config) as session:
        assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [("image", "uint8", (1, 16, 12, 3))]
        assert [(spec.name, spec.dtype, spec.shape) for spec in session.outputs] == [
            ("heatmaps", "float32", (1, 5, 4, 3))
        ]
        heatmaps = session.run({"image": pictures})["heatmaps"]
    assert _error(heatmaps, tiny_models.expected(pictures)) <= TOLERANCE[config.target.precision]


def test_compile_gives_the_outputs_of_build_and_load(
    backend: Backend, config: EngineConfig, session: Session, tmp_path: Path, tiny_models: Any
) -> None:
    backend.build(tiny_models.path("one"), config, tmp_path)
    feeds = {"image": tiny_models.pictures()}
    with backend.load(tmp_path, config) as loaded:
        np.testing.assert_array_equal(loaded.run(feeds)["heatmaps"], session.run(feeds)["heatmaps"])


@pytest.mark.parametrize("name", ["four", "open"])
def test_batch_of_four(backend: Backend, config: EngineConfig, tiny_models: Any, name: str) -> None:
    pictures = tiny_models.pictures(4)
    with backend.compile(tiny_models.path(name), replace(config, batch=4)) as session:
        assert session.inputs[0].shape[0] == session.outputs[0].shape[0] == 4
        heatmaps = session.run({"image": pictures})["heatmaps"]
    assert _error(heatmaps, tiny_models.expected(pictures)) <= 1e-5


def test_another_batch_than_the_model_has_is_refused(backend: Backend, config: EngineConfig, tiny_models: Any) -> None:
    with pytest.raises(UserError, match=r"its batch is 4, not 1; name the batch"):
        backend.compile(tiny_models.path("four"), config)


def test_dynamic_height_is_refused(backend: Backend, config: EngineConfig, tiny_models: Any) -> None:
    with pytest.raises(UserError, match=r"input 'image' has the dynamic shape \(1, '.+', 12, 3\); only the batch"):
        backend.compile(tiny_models.path("open-height"), config)


def test_many_requests_from_many_threads(session: Session, tiny_models: Any) -> None:
    pictures = [tiny_models.pictures(seed=seed) for seed in range(24)]
    results: dict[int, Any] = {}

    def worker(first: int) -> None:
        futures = {index: session.submit({"image": pictures[index]}) for index in range(first, 24, 3)}
        results.update({index: future.result()["heatmaps"] for index, future in futures.items()})

    threads = [threading.Thread(target=worker, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, picture in enumerate(pictures):
        assert _error(results[index], tiny_models.expected(picture)) <= 1e-5


def test_throughput_hint_runs_requests_side_by_side(backend: Backend, config: EngineConfig, tiny_models: Any) -> None:
    pictures = [tiny_models.pictures(seed=seed) for seed in range(16)]
    parallel = replace(config, hint="throughput", streams=2)
    with backend.compile(tiny_models.path("one"), parallel) as session:
        assert session.parallel >= 2
        futures = [session.submit({"image": picture}) for picture in pictures]
        for picture, future in zip(pictures, futures, strict=True):
            assert _error(future.result()["heatmaps"], tiny_models.expected(picture)) <= 1e-5


def test_same_input_gives_the_same_bits(session: Session, tiny_models: Any) -> None:
    feeds = {"image": tiny_models.pictures()}
    first = session.run(feeds)["heatmaps"]
    for _ in range(5):
        np.testing.assert_array_equal(session.run(feeds)["heatmaps"], first)
    np.testing.assert_array_equal(session.submit(feeds).result()["heatmaps"], first)


def test_outputs_are_owned_by_the_caller(session: Session, tiny_models: Any) -> None:
    first = session.run({"image": tiny_models.pictures(seed=1)})["heatmaps"]
    kept = first.copy()
    session.run({"image": tiny_models.pictures(seed=2)})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # writeable, and no buffer of the engine
    np.testing.assert_array_equal(session.run({"image": tiny_models.pictures(seed=1)})["heatmaps"], kept)


def test_outputs_are_written_into_out(session: Session, tiny_models: Any) -> None:
    feeds = {"image": tiny_models.pictures()}
    buffer = np.full((1, 5, 4, 3), np.nan, np.float32)
    result = session.run(feeds, out={"heatmaps": buffer})
    assert result["heatmaps"] is buffer
    np.testing.assert_array_equal(buffer, session.run(feeds)["heatmaps"])


@pytest.mark.parametrize("form", ["strided", "read-only"])
def test_inputs_of_any_memory_layout(session: Session, tiny_models: Any, form: str) -> None:
    pictures = tiny_models.pictures()
    given = pictures
    if form == "strided":
        given = np.concatenate([pictures, pictures], axis=2)[:, :, ::2]
        pictures = np.ascontiguousarray(given)
    else:
        given.flags.writeable = False
    assert _error(session.run({"image": given})["heatmaps"], tiny_models.expected(pictures)) <= 1e-5


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        pytest.param({}, "inputs are image, got none", id="missing"),
        pytest.param({"picture": np.zeros((1, 16, 12, 3), np.uint8)}, "inputs are image, got picture", id="name"),
        pytest.param(
            {"image": np.zeros((1, 16, 12, 3), np.float32)},
            r"'image' takes uint8 \(1, 16, 12, 3\), got float32 \(1, 16, 12, 3\)",
            id="dtype",
        ),
        pytest.param({"image": np.zeros((1, 3, 16, 12), np.uint8)}, r"got uint8 \(1, 3, 16, 12\)", id="shape"),
        pytest.param({"image": [[0]]}, r"input 'image' takes uint8 .*, got list", id="no array"),
    ],
)
def test_wrong_feeds_are_named(session: Session, feeds: Any, message: str) -> None:
    for call in (session.run, session.submit):
        with pytest.raises(ValueError, match=message):
            call(feeds)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        pytest.param(
            {"maps": np.zeros((1, 5, 4, 3), np.float32)}, "outputs are heatmaps, got 'maps' in out", id="name"
        ),
        pytest.param(
            {"heatmaps": np.zeros((1, 5, 4, 3))}, "output 'heatmaps' takes float32 .*, got float64", id="dtype"
        ),
        pytest.param(
            {"heatmaps": np.zeros((1, 5, 4, 6), np.float32)[..., ::2]},
            "must be C-contiguous and writeable",
            id="strided",
        ),
    ],
)
def test_wrong_out_is_named(session: Session, tiny_models: Any, out: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        session.run({"image": tiny_models.pictures()}, out=out)


def test_closed_session_refuses_and_leaves_no_thread(backend: Backend, config: EngineConfig, tiny_models: Any) -> None:
    before = threading.active_count()
    feeds = {"image": tiny_models.pictures()}
    with backend.compile(tiny_models.path("one"), config) as session:
        pending = [session.submit(feeds) for _ in range(4)]
    assert all(future.result() for future in pending)
    session.close()
    assert threading.active_count() == before
    for call in (session.run, session.submit):
        with pytest.raises(ValueError, match="the session is closed"):
            call(feeds)


def test_threads_are_honoured(backend: Backend, config: EngineConfig, tiny_models: Any) -> None:
    with backend.compile(tiny_models.path("one"), replace(config, threads=1)) as session:
        values = [value for key, value in session.properties.items() if "num_threads" in key.lower()]
        assert "1" in values
        assert session.run({"image": tiny_models.pictures()})["heatmaps"].shape == (1, 5, 4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"device": "tpu9"}, r"finds no device 'tpu9' here; devices: .*cpu", id="device"),
        pytest.param({"precision": "int8"}, r"does not run int8 on .*; it runs .*fp32", id="precision"),
    ],
)
def test_impossible_target_is_refused_before_the_model_is_read(
    backend: Backend, config: EngineConfig, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    impossible = replace(config, target=replace(config.target, **change))
    missing = tmp_path / "not read.onnx"
    for call in (
        lambda: backend.compile(missing, impossible),
        lambda: backend.build(missing, impossible, tmp_path),
        lambda: backend.check(impossible.target),
    ):
        with pytest.raises(UserError, match=message):
            call()


@pytest.mark.parametrize("target", ["onnxruntime:cpu/bf16", "openvino:cpu/fp16"])
def test_precision_the_device_lacks_is_refused(target: str, tiny_models: Any) -> None:
    parsed = Target.parse(target)
    backend = get_backend(parsed.backend)
    if parsed.precision in next(device for device in backend.devices() if device.name == "cpu").precisions:
        pytest.skip(f"this machine runs {target}")
    with pytest.raises(UserError, match=f"does not run {parsed.precision} on"):
        backend.compile(tiny_models.path("one"), EngineConfig(parsed))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("absent", r"absent.onnx is not a file; an ONNX model is needed", id="missing"),
        pytest.param("broken", r"broken.onnx: \w+ ?\w* cannot use it|broken.onnx: OpenVINO cannot", id="truncated"),
        pytest.param("text", r"text.onnx: \w+ ?\w* cannot use it|text.onnx: OpenVINO cannot", id="text"),
    ],
)
def test_unusable_model_is_named(
    backend: Backend, config: EngineConfig, tiny_models: Any, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        backend.compile(tiny_models.path(name), config)


def test_streams_contradict_the_latency_hint(backend: Backend, config: EngineConfig, tiny_models: Any) -> None:
    with pytest.raises(UserError, match="hint latency runs one stream, got streams 2"):
        backend.compile(tiny_models.path("one"), replace(config, streams=2))


def test_build_wants_an_empty_folder(backend: Backend, config: EngineConfig, tmp_path: Path, tiny_models: Any) -> None:
    (tmp_path / "something").write_text("")
    with pytest.raises(UserError, match="must be an existing, empty folder"):
        backend.build(tiny_models.path("one"), config, tmp_path)


def _edit(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "engine.json").read_text())
    (folder / "engine.json").write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"target": "openvino:npu/fp16"}, "was built for target openvino:npu/fp16, not", id="target"),
        pytest.param({"batch": 8}, "was built for batch 8, not 1", id="batch"),
        pytest.param({"schema": "scalenas.engine/9"}, "scalenas.engine/9", id="schema"),
        pytest.param({"colour": 1}, "colour", id="surplus key"),
        pytest.param({"files": {"../up": "0" * 64}}, r"engine file '../up' is missing", id="escaping name"),
    ],
)
def test_engine_record_that_does_not_fit(
    backend: Backend, config: EngineConfig, tmp_path: Path, tiny_models: Any, changes: dict[str, object], message: str
) -> None:
    backend.build(tiny_models.path("one"), config, tmp_path)
    _edit(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        backend.load(tmp_path, config)


def test_engine_from_elsewhere(backend: Backend, config: EngineConfig, tmp_path: Path, tiny_models: Any) -> None:
    files = backend.build(tiny_models.path("one"), config, tmp_path)
    flags = json.loads((tmp_path / "engine.json").read_text())["cpu_flags"]
    _edit(tmp_path, versions={backend.name: "1.2.3"}, cpu_flags=["sme2", *flags[1:]])
    if files.kind == "portable":
        backend.load(tmp_path, config).close()
        return
    with pytest.raises(UserError, match=rf"was built with {backend.name} 1.2.3, here is .*; build it again"):
        backend.load(tmp_path, config)
    _edit(tmp_path, versions=files.versions)
    with pytest.raises(UserError, match=r"another CPU \(there but not here: sme2; here but not there: \w+\)"):
        backend.load(tmp_path, config)


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "no record", "no json"])
def test_damaged_engine(backend: Backend, config: EngineConfig, tmp_path: Path, tiny_models: Any, harm: str) -> None:
    backend.build(tiny_models.path("one"), config, tmp_path)
    largest = max((path for path in tmp_path.iterdir() if path.suffix != ".json"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    messages = {
        "flip": "is damaged: its SHA-256",
        "truncate": "is damaged: its SHA-256",
        "remove": f"the engine file '{largest.name}' is missing",
        "no record": r"holds no engine \(engine.json is missing\)",
        "no json": "engine.json is not JSON",
    }
    if harm == "flip":
        data[len(data) // 2] ^= 0xFF
        largest.write_bytes(data)
    elif harm == "truncate":
        largest.write_bytes(data[:100])
    elif harm == "remove":
        largest.unlink()
    elif harm == "no record":
        (tmp_path / "engine.json").unlink()
    else:
        (tmp_path / "engine.json").write_text("{")
    with pytest.raises(UserError, match=messages[harm]):
        backend.load(tmp_path, config)


@pytest.mark.parametrize(
    ("old", "new"),
    [pytest.param(b"ov=20", b"ov=19", id="version"), pytest.param(b"isa=", b"isb=", id="instruction set")],
)
def test_openvino_blob_of_another_runtime_is_not_recompiled(
    tmp_path: Path, tiny_models: Any, old: bytes, new: bytes
) -> None:
    config = EngineConfig(Target.parse("openvino:cpu/fp32"))
    backend = get_backend("openvino")
    backend.build(tiny_models.path("one"), config, tmp_path)
    blob = tmp_path / "model.blob"
    assert old in blob.read_bytes()[:200]
    blob.write_bytes(blob.read_bytes().replace(old, new, 1))
    files = {path.name: file_sha256(path) for path in tmp_path.iterdir() if path.name != "engine.json"}
    _edit(tmp_path, files=files)
    with pytest.raises(UserError, match=r"does not fit this machine: .*mismatch.* blob: .* current: "):
        backend.load(tmp_path, config)


def test_openvino_ir_carries_the_metadata(tmp_path: Path, tiny_models: Any) -> None:
    config = EngineConfig(Target.parse("openvino:cpu/fp32"))
    get_backend("openvino").build(tiny_models.path("one"), config, tmp_path)
    import openvino

    network = openvino.Core().read_model(tmp_path / "model.xml")
    assert network.get_rt_info(["model_info", "model_type"]).astype(str) == "keypoint_detection"


def test_profile_names_the_layers(backend: Backend, config: EngineConfig, tiny_models: Any) -> None:
    feeds = [{"image": tiny_models.pictures(seed=seed)} for seed in range(3)]
    layers = backend.profile(tiny_models.path("one"), config, feeds)
    assert any("Conv" in layer.kind for layer in layers)
    assert all(layer.milliseconds >= 0 for layer in layers)


@pytest.mark.parametrize("name", BACKENDS)
def test_absent_package_names_the_pip_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtra, match=rf"{name} is not installed; add it with: pip install 'scalenas-export\[{name}\]'"
    ):
        get_backend(name).devices()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ImportError('libengine.so.1 is missing')", "cannot be imported: libengine.so.1 is missing"),
        ("import a_part_of_it_that_is_gone", "lacks a_part_of_it_that_is_gone; install it again"),
    ],
    ids=["a library", "a module"],
)
def test_a_package_that_does_not_load_is_told_from_one_that_is_absent(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_engine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=f"broken_engine is installed, but {message}"):
        import_engine("broken_engine", "broken")


def test_more_threads_than_processors_do_not_spin(tiny_models: Any) -> None:
    feeds = {"image": tiny_models.pictures()}
    backend, target = get_backend("onnxruntime"), Target.parse("onnxruntime:cpu/fp32")
    properties, outputs = [], []
    for threads in (1, 64 * cpu_affinity()):
        with backend.compile(tiny_models.path("one"), EngineConfig(target, threads=threads)) as session:
            properties.append(session.properties["allow_spinning"])
            outputs.append(next(iter(session.run(feeds).values())))
    assert properties == ["1", "0"]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


def test_a_profile_that_does_not_fit_on_the_disk_is_an_error(tiny_models: Any) -> None:
    code = (
        "import resource, sys, numpy as np; from pathlib import Path;"
        "from scalenas_runtime.backends import get_backend; from scalenas_runtime.targets import EngineConfig, Target;"
        "backend = get_backend('onnxruntime'); backend.version();"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "config = EngineConfig(Target.parse('onnxruntime:cpu/fp32'));"
        f"feeds = [dict(image=np.zeros({tiny_models.pictures().shape}, np.uint8))];"
        f"backend.profile(Path({str(tiny_models.path('one'))!r}), config, feeds)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UserError: the profile " in done.stderr
    assert "is incomplete" in done.stderr


def test_unknown_backend_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"unknown backend 'ncnn'; known: onnxruntime, openvino"):
        get_backend("ncnn")


def test_importing_the_backends_imports_no_engine() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['onnxruntime', 'openvino', 'onnx', 'torch']));"
        "import scalenas_runtime.backends as b; [b.get_backend(name) for name in b.BACKENDS]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})


@pytest.mark.parametrize(
    ("edit", "said"),
    [({"kind": "portable"}, "kind portable"), ({"files": {}}, "nothing of that file")],
    ids=["portable", "unlisted"],
)
def test_machine_code_is_loaded_only_as_native(
    edit: dict[str, Any], said: str, tmp_path: Path, tiny_models: Any
) -> None:
    config = EngineConfig(Target.parse("openvino:cpu/fp32"))
    backend = get_backend("openvino")
    backend.build(tiny_models.path("one"), config, tmp_path)
    record = json.loads((tmp_path / "engine.json").read_text())
    (tmp_path / "engine.json").write_text(json.dumps({**record, **edit}))
    with pytest.raises(UserError, match=rf"holds model\.blob, which is machine code, and its record says {said}"):
        backend.load(tmp_path, config)


def test_onnx_runtime_takes_no_more_threads_than_it_may_run_on(
    tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, target = get_backend("onnxruntime"), Target.parse("onnxruntime:cpu/fp32")
    cases: list[tuple[int | None, int, str]] = [(8, 2, "2"), (2, 8, "2"), (None, 3, "3")]
    for cores, allowed, threads in cases:
        monkeypatch.setattr(onnxruntime, "physical_cores", lambda count=cores: count)
        monkeypatch.setattr(onnxruntime, "cpu_affinity", lambda count=allowed: count)
        with backend.compile(tiny_models.path("one"), EngineConfig(target)) as session:
            assert session.properties["intra_op_num_threads"] == threads
            assert session.properties["allow_spinning"] == session.properties["force_spinning_stop"] == "1"


def test_a_model_whose_name_is_no_utf8_is_run_or_one_line(backend: Backend, tiny_models: Any, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"net\xff.onnx")
    path.write_bytes(tiny_models.path("one").read_bytes())
    config = EngineConfig(Target.parse(f"{backend.name}:cpu/fp32"))
    if backend.name == "onnxruntime":
        with pytest.raises(UserError, match="its name is no UTF-8"):
            backend.compile(path, config)
    else:
        backend.compile(path, config).close()
