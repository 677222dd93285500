"""Event files, decoded by protocol buffers and a checksum from its published test vector."""

from __future__ import annotations

import importlib
import struct
from pathlib import Path
from typing import Any

import pytest

from scalenas.training.events import EventWriter, crc32c
from scalenas.training.journal import Journal, read_log

# RFC 3720, B.4.
VECTORS = {b"\0" * 32: 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"123456789": 0xE3069283}


@pytest.mark.parametrize("data", VECTORS, ids=["zeros", "ones", "rising", "digits"])
def test_checksum(data: bytes) -> None:
    assert crc32c(data) == VECTORS[data]


def _message_class() -> Any:
    """The fields of TensorBoard's `Event` that we write, by their published numbers and types."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2", reason="protobuf comes with onnx")
    descriptor_pool = importlib.import_module("google.protobuf.descriptor_pool")
    message_factory = importlib.import_module("google.protobuf.message_factory")

    double, single, whole, text, message = 1, 2, 3, 9, 11
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    for name, fields in {
        "Value": [("tag", 1, text, 1, ""), ("simple_value", 2, single, 1, "")],
        "Summary": [("value", 1, message, 3, ".t.Value")],
        "SessionLog": [("status", 1, whole, 1, "")],
        "Event": [
            ("wall_time", 1, double, 1, ""),
            ("step", 2, whole, 1, ""),
            ("file_version", 3, text, 1, ""),
            ("summary", 5, message, 1, ".t.Summary"),
            ("session_log", 7, message, 1, ".t.SessionLog"),
        ],
    }.items():
        made = file.message_type.add(name=name)
        for field, number, kind, label, other in fields:
            made.field.add(name=field, number=number, type=kind, label=label, type_name=other or None)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))


def _records(path: Path) -> list[bytes]:
    data, records = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        for part, stored in ((data[:8], data[8:12]), (data[12 : 12 + length], data[12 + length : 16 + length])):
            crc = crc32c(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", stored) == (masked,)
        records.append(data[12 : 12 + length])
        data = data[16 + length :]
    return records


def test_scalars_read_back_as_protocol_buffers(tmp_path: Path) -> None:
    event = _message_class()
    writer = EventWriter(tmp_path, first_step=300)
    writer.scalars(301, {"loss": 0.25, "rate": 1e-3})
    writer.scalars(70000, {"loss": 0.125})
    writer.close()
    (path,) = tmp_path.iterdir()
    assert ".tfevents." in path.name
    read = [event.FromString(record) for record in _records(path)]
    assert read[0].file_version == "brain.Event:2"
    assert (read[1].step, read[1].session_log.status) == (300, 1)
    found = [(each.step, {value.tag: value.simple_value for value in each.summary.value}) for each in read[2:]]
    assert found == [(301, pytest.approx({"loss": 0.25, "rate": 1e-3})), (70000, {"loss": 0.125})]
    assert all(each.wall_time > 1.6e9 for each in read)


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with Journal(tmp_path, first_step=0, steps=9, quiet=True) as journal:
        for step in (2, 4, 6):
            journal.add(step, total=float(step), note="x")
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "tot')
    with Journal(tmp_path, first_step=4, steps=9, quiet=True) as journal:
        journal.add(5, total=5.0)
    assert [line["step"] for line in read_log(tmp_path)] == [2, 4, 5]
