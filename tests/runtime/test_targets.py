"""Targets and engine configs read, print and hash as documented."""

import pytest

from scalenas_runtime.errors import UserError
from scalenas_runtime.targets import EngineConfig, Target

TARGETS = [
    ("onnxruntime:cpu/fp32", Target("onnxruntime", "cpu", "fp32")),
    ("openvino:npu/fp16@nuc", Target("openvino", "npu", "fp16", "nuc")),
    ("tensorrt:cuda0/int8@10.0.0.7", Target("tensorrt", "cuda0", "int8", "10.0.0.7")),
]


@pytest.mark.parametrize(("text", "target"), TARGETS, ids=[text for text, _ in TARGETS])
def test_a_target_reads_and_prints_the_same(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert str(target) == text


@pytest.mark.parametrize(
    "text", ["", "openvino", "openvino:cpu", "openvino/cpu:fp32", "OpenVINO:cpu/fp32", "a:b/fp32@"]
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"is not of the form backend:device/precision\[@host\]"):
        Target.parse(text)


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="precision 'fp64' is not one of fp32, bf16, fp16, int8"):
        Target.parse("openvino:cpu/fp64")


def test_every_field_of_a_config_changes_its_digest() -> None:
    target = Target.parse("openvino:cpu/fp32")
    configs = [
        EngineConfig(target),
        EngineConfig(Target.parse("openvino:cpu/bf16")),
        EngineConfig(target, threads=2),
        EngineConfig(target, hint="throughput"),
        EngineConfig(target, streams=2),
        EngineConfig(target, batch=2),
        EngineConfig(target, io="end2end"),
    ]
    assert len({config.digest for config in configs}) == len(configs)
    assert EngineConfig(target).digest == EngineConfig(Target.parse("openvino:cpu/fp32")).digest


@pytest.mark.parametrize("name", ["threads", "streams", "batch"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} must be at least 1, got 0"):
        EngineConfig(Target.parse("openvino:cpu/fp32"), **{name: 0})  # type: ignore[arg-type]


def test_an_unknown_hint_or_io_form_is_refused() -> None:
    target = Target.parse("openvino:cpu/fp32")
    with pytest.raises(UserError, match="hint must be latency or throughput, got 'fast'"):
        EngineConfig(target, hint="fast")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="io must be raw or end2end, got 'cooked'"):
        EngineConfig(target, io="cooked")  # type: ignore[arg-type]
