"""Writing that leaves either the whole file or folder, or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scalenas_runtime.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` in one step: readers see the old file or the new one, never a part.

    Raises:
        OSError: when the folder is read-only or the disk is full; nothing is left behind then.
    """
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # mkstemp makes files private; a result is as readable as the user's umask says.
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 to `path` in one step; see `write_bytes`.

    Bytes of file names that are no UTF-8 become escapes, which JSON reads as what Python calls such a name.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def utf8_path(path: str | Path) -> str:
    """Returns the text of a path for libraries that take UTF-8 alone: OpenCV's videos crash on other names.

    Raises:
        UserError: the name holds bytes that are no UTF-8.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="backslashreplace").decode()
        raise UserError(f"{shown}: its name is no UTF-8, which the library that opens it needs; rename it") from None
    return text


@contextmanager
def new_directory(
    path: Path, *, overwrite: bool = False, holds: str | None = None, sources: Iterable[Path] = ()
) -> Iterator[Path]:
    """Gives a temporary folder beside `path` that becomes `path` when the block ends without an error.

    Args:
        path: The folder to be.
        overwrite: Replace an existing folder and everything in it.
        holds: Name of a file by which a folder of the same kind is known: with it, an existing folder is replaced only
            when it holds that file or nothing.
        sources: Files and folders that are read inside the block, so they must not be replaced.

    Raises:
        UserError: `path` exists already and `overwrite` is false, is something that may not be replaced, or holds one
            of `sources`.
        OSError: the parent is read-only or the disk is full; nothing is left behind then.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; name another folder or pass --overwrite")
    _check_replaceable(path, holds, sources)
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            # Something may have appeared there meanwhile.
            if path.exists() and not overwrite:
                raise UserError(f"{path} exists already; name another folder or pass --overwrite")
            _check_replaceable(path, holds, ())
            _settle(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _settle(temporary: Path, path: Path) -> None:
    """Moves a folder to `path`; an older one there goes only when the new one is in its place."""
    if not path.is_dir():
        temporary.rename(path)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    old = retired / path.name
    try:
        path.rename(old)
        temporary.rename(path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            old.rename(path)
        if not os.path.lexists(old):
            retired.rmdir()
        raise
    shutil.rmtree(retired)


def _check_replaceable(path: Path, holds: str | None, sources: Iterable[Path]) -> None:
    if not path.exists():
        return
    place = path.resolve()
    for source in sources:
        resolved = source.resolve()
        # A link inside the folder is a source that would go, wherever it leads.
        if resolved.is_relative_to(place) or (source.parent.resolve() / source.name).is_relative_to(place):
            raise UserError(f"{path} cannot be replaced: {source}, which is read, lies in it; name another folder")
    if holds is None:
        return
    if not path.is_dir():
        raise UserError(f"{path} cannot be replaced by a folder: it is none; name another folder")
    if any(path.iterdir()) and not (path / holds).is_file():
        raise UserError(
            f"{path} cannot be replaced: it holds other files, and no {holds} as a folder written here would; "
            "name another folder, or delete this one first"
        )


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Lets an `OSError` of the block name `path` where it names a temporary `.<name>.*` beside it, or nothing.

    People look for the file they asked for, not for a temporary one, and a full disk is reported without any name.
    """
    try:
        yield
    except OSError as error:
        name = error.filename2 or error.filename
        beside = os.path.abspath(path.parent / f".{path.name}.")  # noqa: PTH100 - resolve() would follow links
        absolute = beside if name is None else os.path.abspath(name)  # noqa: PTH100
        if not absolute.startswith(beside):
            raise
        inside = absolute.removeprefix(beside).partition(os.sep)[2]
        raise OSError(error.errno, error.strerror, str(path / inside)) from None


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def _umask() -> int:
    # The only portable way to read the umask is to set it.
    current = os.umask(0)
    os.umask(current)
    return current
