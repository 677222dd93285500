"""Engine folders: what they say about themselves, whether one fits here, and how one is built.

An engine folder holds `build.json` and, in `files/`, what the backend wrote. It lies in a bundle's `engines/` or in the
user's cache; its name ends with its key, so that two builds of the same thing meet and two different ones never do.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from scalenas_runtime.backends import get_backend, holds_machine_code
from scalenas_runtime.backends.base import Device, EngineFiles
from scalenas_runtime.bundle.manifest import FileEntry, parse_json
from scalenas_runtime.bundle.names import check_name
from scalenas_runtime.cache import cache_folder, private_folder
from scalenas_runtime.canonical import digest, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256, write_text
from scalenas_runtime.fingerprint import cpu_flags, cpu_model, fingerprint
from scalenas_runtime.records import Record, read_record, to_plain
from scalenas_runtime.targets import EngineConfig

BUILD = "build.json"
FILES = "files"
MAX_BUILD = 1 << 20


class EngineEntry(Record, frozen=True):
    """`build.json`: what an engine was built from, for what, by what and on what.

    Attributes:
        kind: `portable` (any machine with the backend) or `native` (this version and this device alone).
        target: The target in its text form.
        config: The `EngineConfig` as JSON, and `config_digest` its digest.
        model: Path of the graph inside the bundle, and `model_sha256` its SHA-256.
        version: Version of the engine's package that built it.
        versions: Version of each package that took part.
        device: What the backend calls the device, with the processor's name.
        device_key: Digest of the processor's instruction sets and the device; a native engine fits where it is equal.
        fingerprint: The machine it was built on.
        files: The backend's files with their checksums.
        build_seconds: How long the build took.
    """

    kind: Literal["portable", "native"]
    target: str
    config: dict[str, Any]
    config_digest: str
    model: str
    model_sha256: str
    version: str
    versions: dict[str, str]
    device: str
    device_key: str
    fingerprint: dict[str, Any]
    files: tuple[FileEntry, ...]
    build_seconds: float
    schema: Literal["scalenas.build/1"] = "scalenas.build/1"


@dataclass(frozen=True, slots=True)
class Place:
    """What an engine must have been built for to fit here.

    Attributes:
        config: Target, batch, threads and so on.
        model: The graph's path inside the bundle, and `model_sha256` its SHA-256.
        version: Version of the engine's package here.
        device: Name of the device here, and `device_key` its digest.
    """

    config: EngineConfig
    model: str
    model_sha256: str
    version: str
    device: str
    device_key: str

    @property
    def name(self) -> str:
        """The name of the engine folder: readable, then the start of the key."""
        target = self.config.target
        # The graph settles batch and form; threads, hint and streams are set when an engine is loaded.
        key = digest([self.model_sha256, str(target), self.config.batch, self.version, self.device_key])
        return f"{target.backend}-{target.device}-{target.precision}-{key[:16]}"


def place_of(config: EngineConfig, model: str, model_sha256: str) -> Place:
    """Returns what an engine of this config and graph must have been built for, on this machine.

    Raises:
        UserError: the backend, its package, the device or the precision is not there.
    """
    config.target.check_here()
    backend = get_backend(config.target.backend)
    version = backend.version()
    device = backend.check(config.target)
    return Place(config, model, model_sha256, version, _describe(device), _device_key(device))


def read_engine(text: bytes, *, what: str) -> EngineEntry:
    """Returns what a `build.json` says; an engine that lists a file of machine code is native whatever it says.

    Raises:
        UserError: not JSON, another schema, a missing, surplus or wrong-typed key, or a path that leads out.
    """
    entry = read_record(EngineEntry, parse_json(text, what=what), what=what)
    for file in entry.files:
        check_name(file.path, what=what)
    # What an engine says of itself may be a lie, and whether it is trusted depends on it.
    if holds_machine_code(file.path for file in entry.files):
        return msgspec.structs.replace(entry, kind="native")
    return entry


def misfit(entry: EngineEntry, place: Place) -> str:
    """Returns why an engine does not fit here, or an empty text where it does."""
    wanted = place.config.to_json()
    if any(entry.config.get(key) != wanted[key] for key in ("target", "batch", "io")):
        return f"built for {describe_config(entry.config)}"
    if entry.model_sha256 != place.model_sha256:
        return f"built from another {entry.model}"
    if entry.kind == "portable":
        return ""
    if entry.version != place.version:
        return f"built with {place.config.target.backend} {entry.version}, here is {place.version}"
    if entry.device_key != place.device_key:
        return f"built on {entry.device}, here is {place.device}"
    return ""


def describe_config(config: dict[str, Any]) -> str:
    """Returns a config as a short text: the target, and what differs from the defaults."""
    unset = {"threads": None, "streams": None, "hint": "latency", "batch": 1, "io": "raw"}
    others = [f"{key} {config[key]}" for key, value in unset.items() if config.get(key, value) != value]
    return ", ".join([str(config.get("target")), *others])


def is_own(text: bytes) -> bool:
    """Returns whether the engine with this `build.json` was built on this machine by this user."""
    return (cache_folder("receipts") / hashlib.sha256(text).hexdigest()).is_file()


def build_engine(model: Path, place: Place, store: Path) -> Path:
    """Returns the folder inside `store` with an engine for this place; an intact one already there is kept.

    Two processes may build the same engine at once: each works in a folder of its own, and one result stays.

    Args:
        model: The graph.
        place: What to build for.
        store: An existing folder: a bundle's `engines/`, or the cache.

    Raises:
        UserError: the backend refuses the graph, or fails for a reason of its own.
        OSError: the folder is read-only or the disk is full; nothing is left behind then.
    """
    destination = store / place.name
    if is_intact(destination):
        return destination
    temporary = Path(tempfile.mkdtemp(prefix=".building.", dir=store))
    try:
        started = time.monotonic()
        (temporary / FILES).mkdir()
        built = _build(model, place.config, temporary / FILES)
        entry = EngineEntry(
            kind="portable" if built.kind == "portable" else "native",
            target=str(place.config.target),
            config=dict(place.config.to_json()),
            config_digest=place.config.digest,
            model=place.model,
            model_sha256=place.model_sha256,
            version=place.version,
            versions=dict(built.versions),
            device=place.device,
            device_key=place.device_key,
            fingerprint=fingerprint(),
            files=tuple(file_entry(temporary, f"{FILES}/{name}") for name in sorted(built.files)),
            build_seconds=round(time.monotonic() - started, 3),
        )
        text = pretty_json(to_plain(entry))
        write_text(temporary / BUILD, text)
        write_text(private_folder("receipts") / hashlib.sha256(text.encode()).hexdigest(), f"{place.name}\n")
        temporary.chmod(0o755)
        _settle(temporary, destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return destination


def _build(model: Path, config: EngineConfig, folder: Path) -> EngineFiles:
    try:
        return get_backend(config.target.backend).build(model, config, folder)
    except RuntimeError as error:
        # OpenVINO says "iostream error" when the disk is full.
        free = shutil.disk_usage(folder).free
        raise UserError(
            f"{config.target}: the engine cannot be built in {folder.parent.parent} ({free} bytes free): {error}"
        ) from None


def is_intact(folder: Path, known: Callable[[bytes], bool] = is_own) -> bool:
    """Returns whether an engine folder is complete, unchanged, and known (built here, unless told otherwise)."""
    path = folder / BUILD
    if not path.is_file():
        return False
    text = path.read_bytes()
    try:
        entry = read_engine(text, what=str(path))
    except UserError:
        return False
    files = [(folder / file.path, file.sha256) for file in entry.files]
    return known(text) and all(file.is_file() and file_sha256(file) == sha256 for file, sha256 in files)


def _settle(temporary: Path, destination: Path) -> None:
    while True:
        try:
            temporary.rename(destination)
            return
        except OSError:
            if not destination.is_dir():
                raise
        if is_intact(destination):  # another process was faster
            shutil.rmtree(temporary)
            return
        retired = Path(tempfile.mkdtemp(prefix=".retired.", dir=destination.parent))
        try:
            destination.rename(retired / destination.name)
        except FileNotFoundError:  # another process moved the broken one away
            pass
        finally:
            shutil.rmtree(retired, ignore_errors=True)


def file_entry(folder: Path, name: str) -> FileEntry:
    """Returns path, checksum and size of the file `name` inside `folder`."""
    path = folder / name
    return FileEntry(path=name, sha256=file_sha256(path), size=path.stat().st_size)


def _describe(device: Device) -> str:
    processor = cpu_model()
    return device.description if processor in device.description else f"{device.description} in {processor}"


def _device_key(device: Device) -> str:
    return digest(
        [platform.system(), platform.machine(), cpu_model(), list(cpu_flags()), device.name, device.description]
    )
