"""What an engine is built for: `Target` (backend, device, precision, host) and `EngineConfig` (and its options)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Literal

from scalenas_runtime.canonical import digest
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import read_record

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_PATTERN = re.compile(
    r"(?P<backend>[a-z][a-z0-9_]*):(?P<device>[a-z][a-z0-9_]*)/(?P<precision>[a-z0-9]+)(?:@(?P<host>[\w.\-]+))?"
)


@dataclass(frozen=True, slots=True)
class Target:
    """One backend on one device at one explicit precision, perhaps on another host.

    Precision is never implied: OpenVINO's own default is bf16 on some CPUs and f16 on GPUs.
    """

    backend: str
    device: str
    precision: str
    host: str | None = None

    @staticmethod
    def parse(text: str) -> Target:
        """Returns the target written as `backend:device/precision[@host]`, for example `openvino:cpu/bf16`.

        Raises:
            UserError: the text has another form or an unknown precision. Whether backend and device exist here
                is the backend's own question, asked before it builds.
        """
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise UserError(
                f"target {text!r} is not of the form backend:device/precision[@host], for example openvino:cpu/fp32"
            )
        if found["precision"] not in PRECISIONS:
            raise UserError(f"target {text!r}: precision {found['precision']!r} is not one of {', '.join(PRECISIONS)}")
        return Target(found["backend"], found["device"], found["precision"], found["host"])

    def check_here(self) -> None:
        """Accepts a target on this machine.

        Raises:
            UserError: it is on another host; engines are built, loaded and measured where they run.
        """
        if self.host is not None:
            raise UserError(
                f"{self} is on another host; engines are built and loaded where they run, so call this there with "
                f"{str(self).partition('@')[0]}"
            )

    def __str__(self) -> str:
        host = f"@{self.host}" if self.host else ""
        return f"{self.backend}:{self.device}/{self.precision}{host}"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything that decides which engine is built and how it runs; its digest stands on every record.

    Attributes:
        target: Backend, device, precision, host.
        threads: CPU threads of one inference; None leaves the number to the backend.
        hint: `latency` (one request at a time) or `throughput` (several streams).
        streams: Parallel inference streams; None leaves the number to the hint.
        batch: Pictures in one inference.
        io: `raw` (heatmaps or logits out) or `end2end` (decoded results out).
    """

    target: Target
    threads: int | None = None
    hint: Literal["latency", "throughput"] = "latency"
    streams: int | None = None
    batch: int = 1
    io: Literal["raw", "end2end"] = "raw"

    def __post_init__(self) -> None:
        for name in ("threads", "streams", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if self.hint not in ("latency", "throughput"):
            raise UserError(f"hint must be latency or throughput, got {self.hint!r}")
        if self.io not in ("raw", "end2end"):
            raise UserError(f"io must be raw or end2end, got {self.io!r}")

    def to_json(self) -> dict[str, str | int | None]:
        """Returns the config as JSON values, the target in its text form."""
        plain = asdict(self)
        plain["target"] = str(self.target)
        return plain

    @staticmethod
    def from_json(value: object) -> EngineConfig:
        """Returns the config that `to_json` wrote; keys with a default may be left out.

        Raises:
            UserError: no object, an unknown key, a wrong type or an impossible value.
        """
        if not isinstance(value, dict) or not isinstance(value.get("target"), str):
            raise UserError(f"an engine config is an object with at least a target, got {value!r}")
        known = [field.name for field in fields(EngineConfig)]
        for key in value:
            if key not in known:
                raise UserError(f"engine config: unknown key {key!r}; known: {', '.join(known)}")
        plain = {**value, "target": asdict(Target.parse(value["target"]))}
        return read_record(EngineConfig, plain, what="engine config")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form."""
        return digest(self.to_json())
