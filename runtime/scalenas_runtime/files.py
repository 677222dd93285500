"""Writing that leaves either the whole file or folder, or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
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
    """Writes `text` as UTF-8 to `path` in one step; see `write_bytes`."""
    write_bytes(path, text.encode())


@contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `path` that becomes `path` when the block ends without an error.

    Raises:
        UserError: `path` exists already and `overwrite` is false.
        OSError: the parent is read-only or the disk is full; nothing is left behind then.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; name another folder or pass --overwrite")
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            if path.is_dir():
                retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
                path.rename(retired / path.name)
                temporary.rename(path)
                shutil.rmtree(retired)
            else:
                temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


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
