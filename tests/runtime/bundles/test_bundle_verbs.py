from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_export.cli.app import run
from scalenas_runtime.bundle import Bundle, BundleContents, write_bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.safetensors_header import read_safetensors_header
from scalenas_runtime.targets import EngineConfig, Target

ORT, OPENVINO = "onnxruntime:cpu/fp32", "openvino:cpu/fp32"


@pytest.fixture
def net(tmp_path: Path, contents: BundleContents) -> str:
    return str(write_bundle(tmp_path / "net", contents))


def test_build_then_verify_then_inspect(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build", net, "--target", ORT, "--target", OPENVINO]) == 0
    built = capsys.readouterr()
    assert "building openvino:cpu/fp32" in built.err
    assert [line.split()[0] for line in built.out.splitlines()] == ["target", ORT, OPENVINO]
    assert run(["verify", net]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["target", ORT, OPENVINO]
    assert all(line.endswith("passed") for line in table[1:])
    assert run(["inspect", net]) == 0
    shown = capsys.readouterr().out
    for part in ("tiny-pose", "model.onnx (batch 1, io raw)", "all checksums hold", "onnxruntime-cpu-fp32-", "joint6"):
        assert part in shown


def test_json_is_one_document(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build", net, "--target", ORT, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engines"][0]["target"] == ORT
    assert run(["verify", net, "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["reports"][0]["verdict"]["passed"] is True
    assert run(["inspect", net, "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert inspected["engines"][0]["fits"] is True
    assert inspected["manifest"]["schema"] == "scalenas.bundle/1.0"


def test_a_failed_verification_exits_with_4(
    tmp_path: Path, contents: BundleContents, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = contents.golden.outputs * np.float32(1.01)
    net = write_bundle(tmp_path / "net", replace(contents, golden=replace(contents.golden, outputs=outputs)))
    worst = tmp_path / "worst"
    assert run(["verify", str(net), "--target", ORT, "--worst", str(worst)]) == 4
    shown = capsys.readouterr()
    assert "FAILED" in shown.out
    assert shown.err.splitlines()[-1].startswith(f"error: {net} does not verify on {ORT}: outputs: relative error")
    assert [path.suffix for path in worst.iterdir()] == [".png"]


@pytest.mark.parametrize("damaged", [False, True], ids=["intact", "damaged"])
def test_verify_looks_at_engines_of_every_batch_and_form(
    damaged: bool, tmp_path: Path, batched_contents: BundleContents, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_bundle(tmp_path / "net", batched_contents)
    bundle = Bundle.open(path)
    for batch in (1, 3):
        folder = bundle.build(EngineConfig(Target.parse(ORT), batch=batch))
    if damaged:
        (folder / "files/model.onnx").write_bytes(b"x" * (folder / "files/model.onnx").stat().st_size)
    assert run(["verify", str(path), "--json"]) == (2 if damaged else 0)
    shown = capsys.readouterr()
    if damaged:
        assert "files/model.onnx has SHA-256" in shown.err
        return
    assert [report["config"]["batch"] for report in json.loads(shown.out)["reports"]] == [1, 3]
    worst = tmp_path / "worst"
    assert run(["verify", str(path), "--worst", str(worst)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [ORT, f"{ORT}, batch 3"]
    assert [("-b3-" in name.name) for name in sorted(worst.iterdir())] == [False, True]
    assert run(["verify", str(path), "--batch", "3", "--json"]) == 0
    assert [report["config"]["batch"] for report in json.loads(capsys.readouterr().out)["reports"]] == [3]


def test_targets_on_other_hosts_are_not_run_here(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    graph = str(Path(net) / "model.onnx")
    for words in (["verify", graph, graph], ["verify", net], ["bench", graph, "--print-equivalent"]):
        assert run([*words, "--target", f"{OPENVINO}@nuc"]) == 2
        assert f"{OPENVINO}@nuc is on another host; " in capsys.readouterr().err
    assert run(["verify", graph, graph, "--target", f"{ORT}@nuc"]) == 2
    assert f"call this there with {ORT}\n" in capsys.readouterr().err


def test_build_says_that_a_kept_engine_has_no_threads(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["build", net, "--target", ORT, "--json"]
    assert run([*line, "--threads", "2"]) == 0
    first = capsys.readouterr()
    assert (json.loads(first.out)["engines"][0]["kept"], "note:" in first.err) == (False, False)
    assert run(line) == 0
    assert "note:" not in capsys.readouterr().err
    for options in (["--threads", "1"], ["--hint", "throughput", "--streams", "2"]):
        assert run([*line, *options]) == 0
        again = capsys.readouterr()
        assert json.loads(again.out)["engines"][0]["kept"] is True
        assert "is kept; --threads, --streams and --hint change nothing in it, since they are" in again.err


def test_verify_without_engines_asks_for_a_target(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", net]) == 2
    assert capsys.readouterr().err.endswith(
        "holds no engine that fits here; name what to verify, such as --target " + ORT + "\n"
    )
    assert run(["verify", net, "--target", ORT]) == 0
    assert run(["verify", net, net, net]) == 2
    assert "takes one bundle or two ONNX files, got 3 paths" in capsys.readouterr().err


def test_verify_compares_two_models(
    contents: BundleContents, tmp_path: Path, capsys: pytest.CaptureFixture[str], save_model: object
) -> None:
    assert callable(save_model)
    first, other = str(contents.models[0].path), str(save_model("pose", noise=0.01))
    assert run(["verify", first, first]) == 0
    assert "on onnxruntime:cpu/fp32, inputs: 4 of noise, 4 of drawn people: passed" in capsys.readouterr().out
    assert run(["verify", first, other, "--target", OPENVINO]) == 4
    assert "differ: heatmaps: relative error" in capsys.readouterr().err
    for option in (["--trust"], ["--worst", str(tmp_path / "worst")]):
        assert run(["verify", first, first, *option]) == 2
        assert "--worst and --trust are for a bundle; leave them out" in capsys.readouterr().err
    assert run(["verify", first, other, "--target", OPENVINO, "--target", ORT]) == 2
    assert f"two models are compared on one target, got {OPENVINO}, {ORT}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["inspect"], ["verify"], ["build", "--target", ORT]], ids=lambda verb: str(verb[0]))
def test_a_broken_bundle_is_one_line_and_exit_code_2(
    net: str, verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(net) / "model.onnx").write_bytes(b"other")
    assert run([verb[0], net, *verb[1:]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {net}: model.onnx has 5 bytes")


def test_a_target_that_is_not_possible_builds_none_of_them(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build", net, "--target", ORT, "--target", "onnxruntime:cpu/bf16"]) == 2
    assert "onnxruntime does not run bf16" in capsys.readouterr().err
    assert Bundle.open(net).engines() == ()


def test_inspect_tells_why_an_engine_does_not_fit(net: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build", net, "--target", OPENVINO]) == 0
    for receipt in (cache / "receipts").iterdir():
        receipt.unlink()
    assert run(["inspect", net]) == 0
    assert (
        "no: a native engine from another machine, which is loaded only with trust (--trust)" in capsys.readouterr().out
    )


def test_inspect_shows_a_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scalenas.names import resolve_spec

    path = tmp_path / "spec.json"
    spec = resolve_spec("hrnet-w32")
    spec.write(path)
    assert run(["inspect", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["digest"]) == ("spec", spec.digest)
    path.write_text("{}")
    assert run(["inspect", str(path)]) == 2


def weights_file(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_inspect_shows_weights_that_safetensors_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "w.safetensors"
    tensors: dict[str, NDArray[Any]] = {
        "b": np.zeros((2, 3), np.float32),
        "a": np.ones(4, np.float16),
        "flag": np.array(True),
    }
    save_file(tensors, path, metadata={"scalenas": '{"kind": "static"}', "note": "hello"})
    assert run(["inspect", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["metadata"] == {"note": "hello", "scalenas": {"kind": "static"}}
    assert shown["tensors"] == [
        {"name": "a", "dtype": "F16", "shape": [4]},
        {"name": "b", "dtype": "F32", "shape": [2, 3]},
        {"name": "flag", "dtype": "BOOL", "shape": []},
    ]
    assert shown["parameters"] == 11
    assert run(["inspect", str(path)]) == 0
    assert "kind  static" in capsys.readouterr().out


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BROKEN: dict[str, tuple[object, bytes, int | None, str]] = {
    "short": (b"", b"", 0, "its header claims 0 bytes"),
    "huge header": ({}, b"", 1 << 60, "its header claims 1152921504606846976 bytes, the file has 10"),
    "not json": (b"{]", b"", None, "is not JSON"),
    "list": ([], b"", None, "the header must be a JSON object, got list"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", None, "__metadata__ must hold texts by name"),
    "missing key": ({"t": {"dtype": "F32", "shape": [1]}}, b"", None, "'t' must have dtype, shape and data_offsets"),
    "dtype": ({"t": {**F32, "dtype": "X9"}}, bytes(4), None, "unknown dtype 'X9'; known: F64"),
    "negative shape": ({"t": {**F32, "shape": [-1]}}, bytes(4), None, "must be whole numbers from 0"),
    "wrong span": ({"t": {**F32, "data_offsets": [0, 8]}}, bytes(8), None, "needs 4 bytes, .* hold 8"),
    "overlap": ({"t": F32, "u": F32}, bytes(4), None, "overlap or leave a gap at byte 0"),
    "gap": ({"t": {**F32, "data_offsets": [4, 8]}}, bytes(8), None, "overlap or leave a gap at byte 0"),
    "truncated": ({"t": F32}, bytes(3), None, "need 4 bytes, the file holds 3; it is truncated"),
    "tail": ({"t": F32}, bytes(5), None, "need 4 bytes, the file holds 5"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_weights_file_is_refused(tmp_path: Path, case: str) -> None:
    header, data, length, text = BROKEN[case]
    path = weights_file(tmp_path / "w.safetensors", header, data, length=length)
    with pytest.raises(UserError, match=text):
        read_safetensors_header(path)


def test_a_weights_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(tmp_path / "w.safetensors")]) == 2
    assert "w.safetensors is not a file" in capsys.readouterr().err
