"""Writes leave the whole file or folder, or nothing."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256, named_errors, new_directory, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    write_text(target, "old")
    write_text(target, "néw")
    assert target.read_bytes() == "néw".encode()
    assert names(target.parent) == ["a.txt"]


def test_a_written_file_has_the_users_permissions(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_place_that_cannot_be_written_is_named_as_asked_for(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250)  # the temporary name is longer than file systems take
    with pytest.raises(OSError, match=r"x{250}'$"):
        write_bytes(target, b"new")
    assert names(tmp_path) == []


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    with new_directory(tmp_path / "out") as folder:
        write_text(folder / "a.txt", "x")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_a_failed_directory_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with new_directory(tmp_path / "out") as folder:
            write_text(folder / "a.txt", "x")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == []


def test_an_existing_directory_is_kept_unless_overwrite_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_text(out / "old.txt", "x")
    with pytest.raises(UserError, match=r"out exists already; name another folder or pass --overwrite"):
        new_directory(out).__enter__()
    with new_directory(out, overwrite=True) as folder:
        write_text(folder / "new.txt", "x")
    assert names(out) == ["new.txt"]
    assert names(tmp_path) == ["out"]


def test_a_failed_overwrite_keeps_the_old_directory(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_text(out / "old.txt", "x")
    with pytest.raises(RuntimeError, match="no"), new_directory(out, overwrite=True):
        raise RuntimeError("no")
    assert names(out) == ["old.txt"]


def test_file_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    write_bytes(tmp_path / "a", data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ((), "out"),
        ((".out.x1y2",), "out"),
        ((".out.x1y2/deep/a.txt",), "out/deep/a.txt"),
        ((".out.x1y2", None, "out"), "out"),
        (("other/a.txt",), "other/a.txt"),
    ],
    ids=["no name", "the temporary", "inside it", "a move", "another file"],
)
def test_errors_name_the_file_that_was_asked_for(seen: tuple[str | None, ...], told: str, tmp_path: Path) -> None:
    names = [name and str(tmp_path / name) for name in seen]
    with pytest.raises(OSError, match="No space left") as caught, named_errors(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *names)
    assert (caught.value.filename2 or caught.value.filename) == str(tmp_path / told)
