"""Writes leave the whole file or folder, or nothing."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scalenas_runtime.canonical import pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256, named_errors, new_directory, utf8_path, write_bytes, write_text


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


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def build() -> None:
        with new_directory(out) as folder:
            write_text(folder / "new.txt", "x")
            write_text(out / "other.txt", "x")

    with pytest.raises(UserError, match=r"out exists already; name another folder"):
        build()
    assert names(tmp_path) == ["out"]
    assert names(out) == ["other.txt"]


def test_an_overwrite_that_fails_at_the_end_puts_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "out", Path.rename
    write_text(out / "old.txt", "x")

    def fails(self: Path, target: Path) -> Path:
        if target == out and self.parent == tmp_path:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output error"), new_directory(out, overwrite=True) as folder:
        write_text(folder / "new.txt", "x")
    assert names(tmp_path) == ["out"]
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


@pytest.mark.parametrize("held", [None, "results.json"], ids=["empty", "of the same kind"])
def test_a_folder_of_the_same_kind_is_replaced(held: str | None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if held is not None:
        write_text(out / held, "old")
    with new_directory(out, overwrite=True, holds="results.json", sources=[tmp_path / "a.png"]) as folder:
        write_text(folder / "results.json", "new")
    assert (out / "results.json").read_text() == "new"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda out: write_text(out / "thesis.txt", "x"),
            r"out cannot be replaced: it holds other files, and no results",
        ),
        (lambda out: write_text(out, "x"), r"out cannot be replaced by a folder: it is none; name another folder"),
    ],
    ids=["other files", "a file"],
)
def test_what_is_no_folder_of_the_same_kind_stays(
    prepare: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare(out)
    before = [path.name for path in tmp_path.rglob("*")]
    with pytest.raises(UserError, match=message):
        new_directory(out, overwrite=True, holds="results.json").__enter__()
    assert [path.name for path in tmp_path.rglob("*")] == before


@pytest.mark.parametrize("source", ["out", "out/a.png", "out/link.png", "link/a.png"])
def test_a_folder_that_holds_a_source_stays(source: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_text(out / "results.json", "old")
    write_text(out / "a.png", "picture")
    write_text(tmp_path / "b.png", "picture")
    (out / "link.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(UserError, match=rf"out cannot be replaced: .*{source}, which is read, lies in it"):
        new_directory(out, overwrite=True, holds="results.json", sources=[tmp_path / source]).__enter__()
    assert names(out) == ["a.png", "link.png", "results.json"]


def test_names_that_are_no_utf8_are_escaped_in_files_and_refused_for_libraries(tmp_path: Path) -> None:
    name = os.fsdecode(b"shot\xff.png")
    write_text(tmp_path / "a.json", pretty_json({"name": name}))
    assert json.loads((tmp_path / "a.json").read_text()) == {"name": name}
    assert utf8_path(tmp_path / "ä.png") == str(tmp_path / "ä.png")
    with pytest.raises(UserError, match=r"shot\\udcff\.png: its name is no UTF-8.*; rename it"):
        utf8_path(name)
