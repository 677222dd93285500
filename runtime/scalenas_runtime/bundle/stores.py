"""Where a bundle's files lie: in a directory, or in one zip that is read without trusting it."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from scalenas_runtime.bundle.manifest import FileEntry
from scalenas_runtime.bundle.names import check_name
from scalenas_runtime.cache import private_folder
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import named_errors

MAX_ENTRIES = 10_000
MAX_TOTAL = 16 << 30
# Whole archives of real bundles (weights, pictures, floats) shrink by less than 3; class maps alone shrink more.
MAX_RATIO = 100
RATIO_ALLOWANCE = 64 << 20
_CHUNK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Store(ABC):
    """Read access to the files of one bundle, by their names inside."""

    path: Path
    writable: bool

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Returns the names of all files, sorted; hidden ones (a leading dot in any part) are passed over."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Returns the size in bytes that the store states for a file.

        Raises:
            UserError: there is no such file, or it is a link.
        """

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Returns a stream of a file's bytes."""

    @abstractmethod
    def folder(self, key: str, entries: Iterable[FileEntry], *, prefix: str = "") -> Path:
        """Returns a real folder that holds the files `prefix` + entry.path, each under its entry.path.

        Args:
            key: Names the folder where one must be made; the same key stands for the same files.
            entries: The files and their checksums, which are checked.
            prefix: What comes before each name inside the bundle.

        Raises:
            UserError: a file is missing or differs from its entry.
        """

    def read(self, name: str, *, limit: int) -> bytes:
        """Returns the bytes of a small file.

        Raises:
            UserError: the file is larger than `limit` bytes.
        """
        with self.open(name) as stream:
            return b"".join(_chunks(stream, limit, self.path, name))

    def verify(self, entry: FileEntry, *, prefix: str = "") -> None:
        """Compares a file with its entry.

        Raises:
            UserError: the file is missing, or has another size or other content.
        """
        name = prefix + entry.path
        size = self.size(name)
        if size != entry.size:
            raise UserError(f"{self.path}: {name} has {size} bytes, its record says {entry.size}; the file was changed")
        total = hashlib.sha256()
        with self.open(name) as stream:
            for chunk in _chunks(stream, entry.size, self.path, name):
                total.update(chunk)
        self._compare(entry, name, total.hexdigest())

    def _compare(self, entry: FileEntry, name: str, found: str) -> None:
        if found != entry.sha256:
            raise UserError(
                f"{self.path}: {name} has SHA-256 {found}, its record says {entry.sha256}; the file was changed"
            )


class DirectoryStore(Store):
    """A bundle that is a directory. Links inside it are refused."""

    writable = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> tuple[str, ...]:
        """Returns the names of all files, sorted; hidden ones are passed over."""
        found: list[str] = []
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            here = Path(folder)
            for name in (*folders, *names):
                if (here / name).is_symlink() and not name.startswith("."):
                    raise UserError(f"{self.path}: {(here / name).relative_to(self.path)} is a symbolic link")
            found += [(here / name).relative_to(self.path).as_posix() for name in names if not name.startswith(".")]
        return tuple(sorted(found))

    def size(self, name: str) -> int:
        """Returns the size of a regular file in bytes."""
        return self._regular(name).stat().st_size

    def open(self, name: str) -> IO[bytes]:
        """Returns a stream of a file's bytes."""
        return self._regular(name).open("rb")

    def folder(self, key: str, entries: Iterable[FileEntry], *, prefix: str = "") -> Path:
        """Returns the folder itself, its files checked."""
        for entry in entries:
            self.verify(entry, prefix=prefix)
        return self.path / prefix

    def _regular(self, name: str) -> Path:
        path = self.path
        for part in check_name(name, what=str(self.path)).split("/"):
            path = path / part
            if path.is_symlink():
                raise UserError(f"{self.path}: {name} is, or lies behind, a symbolic link")
        if not path.is_file():
            raise UserError(f"{self.path}: {name} is missing")
        return path


class ZipStore(Store):
    """A bundle that is one zip. Every entry is checked before any is read.

    Raises:
        UserError: not a zip, truncated, encrypted, two entries of one name, a name that leads out, a link, or more
            data than the size of the archive can honestly hold.
    """

    writable = False

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise UserError(f"{path} is not a readable zip: {error}") from None
        self._check(infos)
        self._infos = {info.filename: info for info in infos if not info.is_dir() and _shown(info.filename)}

    def names(self) -> tuple[str, ...]:
        """Returns the names of all files, sorted; hidden ones are passed over."""
        return tuple(sorted(self._infos))

    def size(self, name: str) -> int:
        """Returns the size in bytes that the archive's directory states."""
        return self._info(name).file_size

    def open(self, name: str) -> IO[bytes]:
        """Returns a stream of a file's unpacked bytes; it ends with an error where the data is damaged."""
        info = self._info(name)
        try:
            with zipfile.ZipFile(self.path) as archive:
                # The stream keeps the archive's file open by itself.
                return archive.open(info)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise UserError(f"{self.path}: {name} cannot be read: {error}") from None

    def folder(self, key: str, entries: Iterable[FileEntry], *, prefix: str = "") -> Path:
        """Returns a private folder in the user's cache with the files unpacked; those already there are checked."""
        root = private_folder("unpacked") / key
        for entry in entries:
            name = check_name(prefix + entry.path, what=str(self.path))
            destination = root / check_name(entry.path, what=str(self.path))
            if not _same(destination, entry):
                self._unpack(name, entry, destination)
        return root

    def _unpack(self, name: str, entry: FileEntry, destination: Path) -> None:
        with named_errors(destination):
            destination.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, temporary_name = tempfile.mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
            temporary = Path(temporary_name)
            total = hashlib.sha256()
            try:
                with os.fdopen(handle, "wb") as output, self.open(name) as stream:
                    for chunk in _chunks(stream, entry.size, self.path, name):
                        total.update(chunk)
                        output.write(chunk)
                self._compare(entry, name, total.hexdigest())
                temporary.replace(destination)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self._infos:
            raise UserError(f"{self.path}: {name} is missing")
        return self._infos[name]

    def _check(self, infos: list[zipfile.ZipInfo]) -> None:
        if len(infos) > MAX_ENTRIES:
            raise UserError(f"{self.path} has {len(infos)} entries; a bundle has at most {MAX_ENTRIES}")
        archive = self.path.stat().st_size
        seen: set[str] = set()
        for info in infos:
            # zipfile turns backslashes into slashes on reading, so the name as stored is looked at too.
            for name in (info.filename, info.orig_filename):
                check_name(name.removesuffix("/"), what=str(self.path))
            if info.filename.casefold() in seen:
                raise UserError(f"{self.path} holds {info.filename!r} twice")
            seen.add(info.filename.casefold())
            if info.flag_bits & 0x1:
                raise UserError(f"{self.path}: {info.filename} is encrypted; bundles are not")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UserError(f"{self.path}: {info.filename} is a symbolic link")
            if not 0 <= info.header_offset < archive:
                raise UserError(f"{self.path}: {info.filename} would begin at byte {info.header_offset} of {archive}")
            if info.compress_type not in _METHODS:
                raise UserError(f"{self.path}: {info.filename} is packed by method {info.compress_type}; use deflate")
        packed = sum(info.compress_size for info in infos)
        total = sum(info.file_size for info in infos)
        limit = min(MAX_TOTAL, archive * MAX_RATIO + RATIO_ALLOWANCE)
        if packed > archive or total > limit:
            raise UserError(
                f"{self.path} claims to unpack to {total} bytes from {archive}; that is no bundle but a zip bomb "
                f"(at most {limit} would be read)"
            )


def open_store(path: Path) -> Store:
    """Returns read access to the bundle at `path`.

    Raises:
        UserError: there is nothing at `path`, or it is neither a directory nor a zip.
    """
    if path.is_dir():
        return DirectoryStore(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; a bundle is a directory with a manifest.json, or a zip of one")
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise UserError(f"{path} is not a bundle: neither a directory nor a zip")
    return ZipStore(path)


def _chunks(stream: IO[bytes], size: int, path: Path, name: str) -> Iterator[bytes]:
    """Yields the stream in pieces and ends with an error as soon as it is longer than `size`, or damaged."""
    read = 0
    while True:
        try:
            chunk = stream.read(_CHUNK)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{path}: {name} is damaged: {error}") from None
        read += len(chunk)
        if read > size:
            raise UserError(f"{path}: {name} is longer than the {size} bytes it may have")
        if not chunk:
            return
        yield chunk


def _same(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
        return False
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest() == entry.sha256


def _shown(name: str) -> bool:
    # macOS adds a folder __MACOSX to every zip it makes.
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
