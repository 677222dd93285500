"""`Bundle`: a checked bundle, its model files, golden pictures and engines."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scalenas_runtime.backends import get_backend
from scalenas_runtime.bundle.engines import (
    BUILD,
    FILES,
    MAX_BUILD,
    EngineEntry,
    Place,
    build_engine,
    is_intact,
    is_own,
    misfit,
    place_of,
    read_engine,
)
from scalenas_runtime.bundle.manifest import MANIFEST, MAX_MANIFEST, Manifest, ModelEntry, parse_json, parse_manifest
from scalenas_runtime.bundle.stores import DirectoryStore, Store, open_store
from scalenas_runtime.cache import cache_folder, private_folder
from scalenas_runtime.errors import UserError
from scalenas_runtime.golden import Golden, load_golden
from scalenas_runtime.parity import ParityRecord
from scalenas_runtime.records import read_record
from scalenas_runtime.session import Session
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import Recipe

Build = Literal["never", "cached", "auto"]
ENGINES, RECORDS, README = "engines", "records", "README.md"
PARITY = f"{RECORDS}/parity.json"
MAX_RECORD = 64 << 20


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One engine of a bundle, and whether it fits this machine.

    Attributes:
        name: Its folder inside `engines/`.
        entry: What its `build.json` says.
        trusted: Portable, or built on this machine, or the bundle was opened with `trust`.
        fits: It can be loaded here.
        reason: Why not; empty where it fits.
    """

    name: str
    entry: EngineEntry
    trusted: bool
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Found:
    store: Store
    prefix: str
    entry: EngineEntry
    digest: str
    trusted: bool


class Bundle:
    """A bundle whose manifest was read and whose listed files have the content it states.

    Attributes:
        path: The directory or zip.
        manifest: What `manifest.json` says.
        recipe: The task recipe.
    """

    def __init__(self, store: Store, manifest: Manifest, key: str, *, trust: bool) -> None:
        self.path = store.path
        self.manifest = manifest
        self.recipe: Recipe = manifest.task
        self._store = store
        self._key = key
        self._trust = trust

    @staticmethod
    def open(path: str | Path, *, trust: bool = False) -> Bundle:
        """Returns the bundle at `path`, a directory or a zip.

        Every file that the manifest lists is checked against its size and SHA-256 now; an engine's files are when
        it is loaded.

        Args:
            path: The directory or zip.
            trust: Load native engines from other machines too. They are machine code: pass it only for bundles
                whose origin you trust.

        Raises:
            UserError: not a bundle, another major version, a malformed manifest, a missing, changed or unlisted
                file, a path that leads out, or an unsafe zip.
        """
        store = open_store(Path(path))
        names = store.names()
        if MANIFEST not in names:
            inner = next((name for name in names if name.endswith(f"/{MANIFEST}")), None)
            hint = f"; it is in {inner}: name that folder, or zip its content without the folder" if inner else ""
            raise UserError(f"{store.path} is not a bundle: {MANIFEST} is missing{hint}")
        text = store.read(MANIFEST, limit=MAX_MANIFEST)
        manifest = parse_manifest(text, what=str(store.path))
        listed = {entry.path for entry in manifest.files}
        for name in names:
            free = name in (MANIFEST, README) or name.startswith((f"{ENGINES}/", f"{RECORDS}/"))
            if not free and name not in listed:
                raise UserError(f"{store.path}: {name} is not listed in {MANIFEST}; notes belong into {RECORDS}/")
        for entry in manifest.files:
            store.verify(entry)
        return Bundle(store, manifest, hashlib.sha256(text).hexdigest(), trust=trust)

    def model(self, batch: int = 1, io: str = "raw") -> Path:
        """Returns the path of a graph; from a zip it is unpacked into the user's cache.

        Raises:
            UserError: the bundle holds no graph of this batch and form; the text lists those it holds.
        """
        # Weights may lie in a side file that the graph names, so all of the net's files go together.
        entries = [entry for entry in self.manifest.files if not entry.path.startswith("golden/")]
        name = self.model_entry(batch, io).file
        return (self._store.folder(self._key, entries) if not self._store.writable else self.path) / name

    def model_entry(self, batch: int = 1, io: str = "raw") -> ModelEntry:
        """Returns what the manifest says of a graph.

        Raises:
            UserError: the bundle holds no graph of this batch and form; the text lists those it holds.
        """
        for entry in self.manifest.models:
            if (entry.batch, entry.io) == (batch, io):
                return entry
        there = ", ".join(f"batch {entry.batch} io {entry.io}" for entry in self.manifest.models)
        raise UserError(f"{self.path} holds no graph of batch {batch} and io {io}; it holds {there}")

    def golden(self) -> Golden:
        """Returns the golden pictures with the fp32 outputs and results, as read-only arrays.

        Raises:
            UserError: a golden file is no array, or does not fit the recipe.
        """
        entry = self.manifest.golden
        parts = (entry.inputs, entry.outputs, entry.decoded)
        folder = self.path
        if not self._store.writable:
            folder = self._store.folder(self._key, [item for item in self.manifest.files if item.path in parts])
        golden = load_golden(*(folder / part for part in parts))
        golden.check(self.recipe, what=str(self.path))
        return golden

    def parity(self) -> ParityRecord | None:
        """Returns the parity ladder recorded at export, or None where the bundle has none.

        Raises:
            UserError: the record is malformed.
        """
        if PARITY not in self._store.names():
            return None
        what = f"{self.path}: {PARITY}"
        value = parse_json(self._store.read(PARITY, limit=MAX_RECORD), what=what)
        return read_record(ParityRecord, value, what=what)

    def engines(self) -> tuple[EngineStatus, ...]:
        """Returns every engine in the bundle with whether it fits here; nothing is loaded or compiled."""
        found = []
        for item in self._engines():
            reason = self._why_not(item) or ("" if item.trusted else _UNTRUSTED)
            name = item.prefix.split("/")[-2]
            found.append(EngineStatus(name, item.entry, item.trusted, not reason, reason))
        return tuple(found)

    def targets(self) -> tuple[str, ...]:
        """Returns the targets for which the bundle holds an engine that fits here, in text form, sorted."""
        return tuple(sorted({status.entry.target for status in self.engines() if status.fits}))

    def load(
        self,
        target: Target | str,
        *,
        build: Build = "never",
        threads: int | None = None,
        batch: int = 1,
        io: Literal["raw", "end2end"] = "raw",
        hint: Literal["latency", "throughput"] = "latency",
    ) -> Session:
        """Returns a session for a target; see `load_config`.

        Args:
            target: Such as `openvino:cpu/bf16`.
            build: What to do when no engine in the bundle fits.
            threads: CPU threads of one inference; None leaves the number to the backend.
            batch: Pictures in one inference; the bundle must hold a graph of this batch.
            io: `raw` or `end2end`; the bundle must hold a graph of this form.
            hint: `latency` or `throughput`.
        """
        chosen = Target.parse(target) if isinstance(target, str) else target
        return self.load_config(EngineConfig(chosen, threads=threads, hint=hint, batch=batch, io=io), build=build)

    def load_config(self, config: EngineConfig, *, build: Build = "never") -> Session:
        """Returns a session of an engine that fits the config, this backend's version and this machine.

        An engine fits by target, graph (batch and form), version and device; threads, hint and streams are set when
        it is loaded.

        Args:
            config: Target, batch, form, threads and so on.
            build: When no engine in the bundle fits: `never` is an error, `cached` takes one from the user's cache,
                `auto` also builds it there.

        Raises:
            UserError: the target is not possible here; no engine fits (the text says why and names the command that
                builds one); a native engine comes from elsewhere and the bundle was not opened with `trust`; or an
                engine's file was changed.
        """
        if build not in ("never", "cached", "auto"):
            raise UserError(f"build must be never, cached or auto, got {build!r}")
        place = self.place(config)
        candidates = list(self._engines())
        cached = cache_folder(ENGINES) / place.name
        reasons: list[str] = []
        if build != "never" and cached.exists():
            if is_intact(cached, known=lambda _: True):  # `trusted` asks who built it
                candidates.append(self._engine(DirectoryStore(cached), ""))
            else:
                reasons.append(f"{cached} is damaged")
        for item in candidates:
            reason = misfit(item.entry, place) or ("" if item.trusted else _UNTRUSTED)
            if not reason:
                return self._open(item, config)
            reasons.append(f"{item.prefix.rstrip('/') or item.store.path} is {reason}")
        if build == "auto":
            folder = build_engine(self.model(config.batch, config.io), place, private_folder(ENGINES))
            return get_backend(config.target.backend).load(folder / FILES, config)
        raise UserError(self._no_engine(config, build, reasons))

    def place(self, config: EngineConfig) -> Place:
        """Returns what an engine for this config must have been built for on this machine.

        Raises:
            UserError: the target is not possible here, or the bundle holds no such graph.
        """
        name = self.model_entry(config.batch, config.io).file
        sha256 = next(entry.sha256 for entry in self.manifest.files if entry.path == name)
        return place_of(config, name, sha256)

    def build(self, config: EngineConfig, *, cache: bool = False) -> Path:
        """Returns the folder of an engine built for this machine: in the bundle, or in the user's cache.

        Raises:
            UserError: the target is not possible here, the bundle holds no such graph, or it is a zip and `cache` is
                false.
            OSError: the bundle is read-only or the disk is full; nothing is left behind then.
        """
        if not cache and not self._store.writable:
            raise UserError(f"{self.path} is a zip and stays as it is; unzip it, or build into the cache with --cache")
        place = self.place(config)
        model = self.model(config.batch, config.io)
        if cache:
            return build_engine(model, place, private_folder(ENGINES))
        engines = self.path / ENGINES
        try:
            engines.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{engines}: {error.strerror}; build into the cache with --cache") from None
        return build_engine(model, place, engines)

    def _engines(self) -> Iterator[_Found]:
        for name in self._store.names():
            folder, _, last = name.rpartition("/")
            if last == BUILD and folder.startswith(f"{ENGINES}/") and folder.count("/") == 1:
                yield self._engine(self._store, f"{folder}/")

    def _engine(self, store: Store, prefix: str) -> _Found:
        text = store.read(f"{prefix}{BUILD}", limit=MAX_BUILD)
        entry = read_engine(text, what=f"{store.path}: {prefix}{BUILD}")
        trusted = entry.kind == "portable" or self._trust or is_own(text)
        return _Found(store, prefix, entry, hashlib.sha256(text).hexdigest(), trusted)

    def _why_not(self, item: _Found) -> str:
        try:
            stated = item.entry.config
            config = EngineConfig(Target.parse(item.entry.target), batch=stated["batch"], io=stated["io"])
            return misfit(item.entry, self.place(config))
        except (UserError, KeyError, TypeError) as error:
            return str(error)

    def _open(self, item: _Found, config: EngineConfig) -> Session:
        listed = {item.prefix + file.path for file in item.entry.files}
        for name in item.store.names():
            # What kind of engine it is was judged by the listed files: no other one may take part.
            if name.startswith(f"{item.prefix}{FILES}/") and name not in listed:
                raise UserError(f"{item.store.path}: {name} is not listed in {item.prefix}{BUILD}; delete it")
        folder = item.store.folder(item.digest, item.entry.files, prefix=item.prefix)
        return get_backend(config.target.backend).load(folder / FILES, config)

    def _no_engine(self, config: EngineConfig, build: Build, reasons: list[str]) -> str:
        into_cache = build == "cached" or not self._store.writable
        command = ["scalenas-export", "build", str(self.path), "--target", str(config.target)]
        command += ["--batch", str(config.batch)] if config.batch != 1 else []
        command += ["--io", config.io] if config.io != "raw" else []
        command += ["--cache"] if into_cache else []
        load = "" if build == "cached" or not into_cache else " and load with build='cached'"
        seen = "; ".join(reasons) or "it holds none"
        return (
            f"no engine of {self.path} fits {config.target} here ({seen}); build one with: {shlex.join(command)}{load}"
        )


_UNTRUSTED = "a native engine from another machine, which is loaded only with trust (--trust)"
