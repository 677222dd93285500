"""TensorBoard event files, written without TensorBoard.

The file is a row of records (length, its checksum, data, its checksum) whose data are protocol buffer messages
`Event`; the few fields that scalars need are encoded here by hand.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

_POLYNOMIAL = 0x82F63B78
_VERSION = b"brain.Event:2"


class EventWriter:
    """Writes scalars into a new event file of a folder; TensorBoard reads all files of a folder as one run."""

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        """Opens the file.

        Args:
            folder: Made if missing.
            first_step: Step that the run starts or resumes at; what other files of the folder hold from there on is
                no longer shown.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("ab")
        self._write(_field(3, 2, _sized(_VERSION)))
        if first_step:
            # SessionLog START: TensorBoard drops older events of this and later steps.
            self._write(_integer(2, first_step) + _field(7, 2, _sized(_integer(1, 1))))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one value per tag at a step, and brings them to the disk."""
        entries = b"".join(
            _field(1, 2, _sized(_field(1, 2, _sized(tag.encode())) + _field(2, 5, struct.pack("<f", value))))
            for tag, value in values.items()
        )
        self._write(_integer(2, step) + _field(5, 2, _sized(entries)))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        event = _field(1, 1, struct.pack("<d", time.time())) + event
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked(length) + event + _masked(event))


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli) of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE = _table()


def _field(number: int, wire: int, payload: bytes) -> bytes:
    return _varint(number << 3 | wire) + payload


def _integer(number: int, value: int) -> bytes:
    return _field(number, 0, _varint(value))


def _sized(payload: bytes) -> bytes:
    return _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
