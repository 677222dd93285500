"""What a backend offers: devices, build, load. The checks that every backend needs live here."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import msgspec

from scalenas_runtime.canonical import pretty_json
from scalenas_runtime.errors import MissingExtra, UserError, missing_extra
from scalenas_runtime.files import file_sha256, write_text
from scalenas_runtime.fingerprint import cpu_flags
from scalenas_runtime.records import Record, read_record
from scalenas_runtime.session import Feeds, Session
from scalenas_runtime.targets import EngineConfig, Target

RECORD_FILE = "engine.json"
Kind = Literal["portable", "native"]


@dataclass(frozen=True, slots=True)
class Device:
    """One device a backend can use here, with the precisions it runs without falling back to another.

    `host_memory` says that it works in the host's memory, so that no copy to and from it belongs to an inference.
    """

    name: str
    description: str
    precisions: tuple[str, ...]
    host_memory: bool = True


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """What `build` left in the engine folder.

    Attributes:
        kind: `portable` (loads on any machine with the backend) or `native` (this device and version alone).
        files: File names inside the folder.
        versions: Version of each package that took part.
    """

    kind: Kind
    files: tuple[str, ...]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Mean time of one executed layer, in milliseconds an inference; `kind` is the engine's word for what ran."""

    name: str
    kind: str
    milliseconds: float


class EngineRecord(Record, frozen=True, kw_only=True):
    """`engine.json`: what an engine folder holds and which machine it was built for."""

    schema: Literal["scalenas.engine/1"]
    target: str
    batch: int
    kind: Kind
    files: dict[str, str]
    versions: dict[str, str]
    cpu_flags: list[str]


class Backend(ABC):
    """Compiles a model for a target and loads it; one subclass per engine, in a file of its own."""

    name: str
    extra: str
    # Names of engine files that are machine code: who holds one is native, whatever it says of itself.
    native_files: tuple[str, ...] = ()

    @abstractmethod
    def version(self) -> str:
        """Returns the version of the engine's package.

        Raises:
            MissingExtra: the package is not installed.
        """

    @abstractmethod
    def devices(self) -> tuple[Device, ...]:
        """Returns the devices that are really there.

        Raises:
            MissingExtra: the package is not installed.
        """

    def compile(self, model: Path, config: EngineConfig) -> Session:
        """Returns a session of the ONNX file `model`, compiled now; nothing is written.

        Raises:
            UserError: the target or an option is not possible here, or the engine refuses the model.
        """
        self._check_config(model, config)
        return _checked(self._compile(model, config), config, str(model))

    def build(self, model: Path, config: EngineConfig, folder: Path) -> EngineFiles:
        """Compiles the ONNX file `model` into the existing, empty folder `folder`.

        Raises:
            UserError: the target or an option is not possible here, or the engine refuses the model.
        """
        self._check_config(model, config)
        if not folder.is_dir() or any(folder.iterdir()):
            raise UserError(f"{folder} must be an existing, empty folder to build an engine in")
        kind = self._build(model, config, folder)
        files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        versions = {self.name: self.version()}
        record = EngineRecord(
            schema="scalenas.engine/1",
            target=str(config.target),
            batch=config.batch,
            kind=kind,
            files=files,
            versions=versions,
            cpu_flags=list(cpu_flags()),
        )
        write_text(folder / RECORD_FILE, pretty_json(msgspec.to_builtins(record)))
        return EngineFiles(kind, (*files, RECORD_FILE), versions)

    def load(self, folder: Path, config: EngineConfig) -> Session:
        """Returns a session of an engine that `build` made. Threads, hint and streams are those of `config`.

        Raises:
            UserError: no engine, a damaged one, one that holds machine code and says that it is portable, or one for
                another target, version or CPU than is here.
        """
        record = _read_engine(folder)
        self.check(config.target)
        self._check_options(config)
        for what, built, wanted in (
            ("target", record.target, str(config.target)),
            ("batch", record.batch, config.batch),
        ):
            if built != wanted:
                raise UserError(f"{folder} was built for {what} {built}, not {wanted}; {_REBUILD}")
        if record.kind == "native":
            self._check_machine(record, config.target, folder)
        _check_files(folder, record)
        self._check_kind(folder, record)
        return _checked(self._load(folder, config), config, str(folder))

    def check(self, target: Target) -> Device:
        """Returns the device of `target`, before anything is compiled.

        Raises:
            UserError: the target is on another host, there is no such device, or it lacks the precision; the text
                says what is there.
        """
        target.check_here()
        devices = self.devices()
        for device in devices:
            if device.name == target.device:
                if target.precision in device.precisions:
                    return device
                raise UserError(
                    f"{target}: {self.name} does not run {target.precision} on {device.description}; "
                    f"it runs {', '.join(device.precisions) or 'none of the precisions known here'}"
                )
        there = ", ".join(device.name for device in devices) or "none"
        raise UserError(f"{target}: {self.name} finds no device {target.device!r} here; devices: {there}")

    def equivalent_command(self, model: Path, config: EngineConfig, seconds: float) -> str | None:
        """Returns the command line of the engine's own measuring tool that measures the same, None without a tool."""
        return None

    @abstractmethod
    def profile(self, model: Path, config: EngineConfig, feeds: Sequence[Feeds]) -> tuple[LayerTime, ...]:
        """Returns the time of every executed layer, averaged over one inference of each of `feeds`, in order.

        Profiling slows the engine down: shares are worth reading, the sum is not the latency.
        """

    @abstractmethod
    def _compile(self, model: Path, config: EngineConfig) -> Session:
        """Returns a session of a readable ONNX file for a checked config."""

    @abstractmethod
    def _build(self, model: Path, config: EngineConfig, folder: Path) -> Kind:
        """Writes the engine's files into `folder` and returns its kind."""

    @abstractmethod
    def _load(self, folder: Path, config: EngineConfig) -> Session:
        """Returns a session of files that `_build` wrote, here or, for portable ones, elsewhere."""

    def _check_config(self, model: Path, config: EngineConfig) -> None:
        self.check(config.target)
        self._check_options(config)
        if not model.is_file():
            raise UserError(f"{model} is not a file; an ONNX model is needed")

    def _check_options(self, config: EngineConfig) -> None:
        if config.threads is not None and config.target.device != "cpu":
            raise UserError(f"{config.target}: threads are an option of the CPU, got threads {config.threads}")
        if config.hint == "latency" and config.streams not in (None, 1):
            raise UserError(f"hint latency runs one stream, got streams {config.streams}; use hint throughput")

    def _check_kind(self, folder: Path, record: EngineRecord) -> None:
        for name in self.native_files:
            if not (folder / name).exists():
                continue
            if record.kind != "native" or name not in record.files:
                said = f"kind {record.kind}" if name in record.files else "nothing of that file"
                raise UserError(f"{folder} holds {name}, which is machine code, and its record says {said}; {_REBUILD}")

    def _check_machine(self, record: EngineRecord, target: Target, folder: Path) -> None:
        built, here = record.versions.get(self.name), self.version()
        if built != here:
            raise UserError(f"{folder} was built with {self.name} {built}, here is {here}; {_REBUILD}")
        if target.device != "cpu":
            return
        theirs, ours = set(record.cpu_flags), set(cpu_flags())
        if theirs != ours:
            raise UserError(
                f"{folder} was built for another CPU (there but not here: {_names(theirs - ours)}; "
                f"here but not there: {_names(ours - theirs)}); {_REBUILD}"
            )


def import_engine(name: str, extra: str) -> ModuleType:
    """Returns an engine's package.

    Raises:
        MissingExtra: it is not installed, or what is installed does not load.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise MissingExtra(f"{name} is installed, but lacks {error.name}; install it again") from None
        raise missing_extra(name, extra) from None
    except ImportError as error:
        # A library that is missing in the system, or Ctrl-C in the midst of the import.
        raise MissingExtra(f"{name} is installed, but cannot be imported: {error}") from None


_REBUILD = "build it again on this machine (scalenas-export build)"


def static_shape(dimensions: Sequence[object], batch: int, *, what: str) -> tuple[int, ...]:
    """Returns a model's input shape with a dynamic first dimension set to `batch`.

    Raises:
        UserError: another dimension is dynamic.
    """
    shape = [batch if index == 0 and not isinstance(size, int) else size for index, size in enumerate(dimensions)]
    fixed = tuple(size for size in shape if isinstance(size, int))
    if len(fixed) != len(shape):
        raise UserError(f"{what} has the dynamic shape {tuple(dimensions)}; only the batch may be open")
    return fixed


def _checked(session: Session, config: EngineConfig, what: str) -> Session:
    for spec in session.inputs:
        if spec.shape and spec.shape[0] != config.batch:
            session.close()
            raise UserError(
                f"{what}: input {spec.name!r} has the shape {spec.shape}, so its batch is {spec.shape[0]}, "
                f"not {config.batch}; name the batch the model was exported with"
            )
    return session


def _read_engine(folder: Path) -> EngineRecord:
    path = folder / RECORD_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no engine ({RECORD_FILE} is missing); {_REBUILD}")
    try:
        plain = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise UserError(f"{path} is not JSON: {error}; {_REBUILD}") from None
    return read_record(EngineRecord, plain, what=str(path))


def _check_files(folder: Path, record: EngineRecord) -> None:
    # Engines read damaged files without a word, or crash: OpenVINO ran a blob with a flipped byte.
    for name, wanted in record.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise UserError(f"{folder}: the engine file {name!r} is missing; {_REBUILD}")
        if file_sha256(path) != wanted:
            raise UserError(f"{path} is damaged: its SHA-256 is not the recorded one; {_REBUILD}")


def _names(flags: set[str]) -> str:
    return ", ".join(sorted(flags)) or "nothing"


def property_text(values: Mapping[str, object]) -> dict[str, str]:
    """Returns engine properties as text, for `Session.properties`."""
    return {key: str(value) for key, value in sorted(values.items())}
