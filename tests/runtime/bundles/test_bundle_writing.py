from __future__ import annotations

import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scalenas_runtime.bundle import Bundle, BundleContents, write_bundle
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.parity import ParityRecord, Rung, compare, judge, tolerance_of

NAMES = ("net", "net.zip")


def deterministic_part(folder: Path) -> dict[str, bytes]:
    names = ["manifest.json", *(path.relative_to(folder).as_posix() for path in (folder / "golden").iterdir())]
    return {name: (folder / name).read_bytes() for name in (*names, "model.onnx")}


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_twice_gives_the_same_bytes(tmp_path: Path, contents: BundleContents) -> None:
    first = write_bundle(tmp_path / "first", contents)
    later = replace(contents, records={"export.json": {"time": "later"}})
    second = write_bundle(tmp_path / "second", later)
    assert deterministic_part(first) == deterministic_part(second)
    assert (second / "records/export.json").read_text() == '{\n  "time": "later"\n}\n'


def test_another_process_gives_the_same_bytes(tmp_path: Path, contents: BundleContents) -> None:
    here = write_bundle(tmp_path / "here", contents)
    script = (
        "import sys; from pathlib import Path\n"
        "from dataclasses import replace\n"
        "from scalenas_runtime.bundle import *\n"
        "bundle = Bundle.open(sys.argv[1]); m = bundle.manifest; golden = bundle.golden()\n"
        "from scalenas_runtime.session import TensorSpec\n"
        "tensors = [tuple(TensorSpec(t.name, t.dtype, t.shape) for t in part)"
        " for part in (m.models[0].inputs, m.models[0].outputs)]\n"
        "write_bundle(Path(sys.argv[2]), BundleContents(m.name, m.task, (ModelFile(bundle.model(), *tensors),), golden,"
        " m.provenance, golden_source=m.golden.source))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", script, str(here), str(tmp_path / "there")]
    subprocess.run(command, check=True, env=environment)
    assert deterministic_part(tmp_path / "there") == deterministic_part(here)


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_result_is_kept_unless_told_otherwise(tmp_path: Path, contents: BundleContents, name: str) -> None:
    out = write_bundle(tmp_path / name, contents)
    with pytest.raises(UserError, match=r"exists already; name another .* or pass --overwrite"):
        write_bundle(out, contents)
    write_bundle(out, replace(contents, name="renamed"), overwrite=True)
    assert Bundle.open(out).manifest.name == "renamed"


def taken(path: Path, kind: str) -> Path:
    """Puts something that is no bundle at `path`."""
    if kind == "file":
        path.write_text("precious")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("thesis.txt", "precious")
    else:
        path.mkdir()
        (path / "thesis.txt").write_text("precious")
        if kind == "folder with a manifest":
            (path / "manifest.json").write_text('{"schema": "web.app/1"}')
    return path


PRECIOUS = {
    "folder": ("net", "folder", r"it holds files, and no manifest\.json"),
    "folder with a manifest": ("net", "folder with a manifest", r"manifest\.json is of schema 'web\.app/1', not of sc"),
    "file": ("net", "file", r"it is no folder"),
    "file named zip": ("net.zip", "file", r"it is no readable zip"),
    "other zip": ("net.zip", "zip", r"it holds no manifest\.json"),
    "folder named zip": ("net.zip", "folder", r"it is no file, and a name that ends with \.zip means one"),
}


@pytest.mark.parametrize(("name", "kind", "text"), PRECIOUS.values(), ids=PRECIOUS)
def test_overwrite_replaces_nothing_but_bundles(
    name: str, kind: str, text: str, tmp_path: Path, contents: BundleContents
) -> None:
    (tmp_path / "out").mkdir()
    out = taken(tmp_path / "out" / name, kind)
    before = leftovers(out) if out.is_dir() else out.read_bytes()
    with pytest.raises(
        UserError, match=rf"cannot be replaced by a bundle: (its )?{text}.*; name another place, or delete"
    ):
        write_bundle(out, contents, overwrite=True)
    assert (leftovers(out) if out.is_dir() else out.read_bytes()) == before
    assert leftovers(out.parent) == [name]


def test_overwrite_fills_an_empty_folder(tmp_path: Path, contents: BundleContents) -> None:
    (tmp_path / "net").mkdir()
    Bundle.open(write_bundle(tmp_path / "net", contents, overwrite=True))


class Interrupting(Mapping[str, Json]):
    """Records whose reading is interrupted, when graphs and golden files are already written."""

    def __getitem__(self, key: str) -> Json:
        raise KeyboardInterrupt

    def __iter__(self) -> Iterator[str]:
        raise KeyboardInterrupt

    def __len__(self) -> int:
        return 1


def test_a_zip_that_appears_meanwhile_is_kept(tmp_path: Path, contents: BundleContents) -> None:
    out = tmp_path / "net.zip"

    class Appearing(Interrupting):
        def __iter__(self) -> Iterator[str]:
            out.write_text("precious")
            return iter(())

    with pytest.raises(UserError, match=r"net\.zip exists already"):
        write_bundle(out, replace(contents, records=Appearing()))
    assert out.read_text() == "precious"


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupt_leaves_nothing(tmp_path: Path, contents: BundleContents, name: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_bundle(out / name, replace(contents, records=Interrupting()))
    assert leftovers(out) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupt_leaves_the_old_bundle(tmp_path: Path, contents: BundleContents, name: str) -> None:
    out = write_bundle(tmp_path / "out" / name, contents)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(out, replace(contents, records=Interrupting()), overwrite=True)
    assert leftovers(out.parent) == [name]
    Bundle.open(out)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_limit_leaves_nothing(tmp_path: Path, contents: BundleContents, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bundle(tmp_path / "out" / name, contents)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(tmp_path / "out") == []


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_nothing(small_disk: Path, contents: BundleContents, name: str) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        write_bundle(small_disk / name, contents)
    assert leftovers(small_disk) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write to, root included."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if os.geteuid() != 0:
        folder.chmod(0o500)
    elif subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("root can write everywhere but on a read-only mount, which cannot be made here")
    yield folder
    if os.geteuid() == 0:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_place_is_an_error(read_only: Path, contents: BundleContents, name: str) -> None:
    with pytest.raises(OSError, match=r"Read-only file system|Permission denied"):
        write_bundle(read_only / name, contents)
    assert leftovers(read_only) == []


def test_the_readme_says_what_it_is_and_under_which_terms(tmp_path: Path, contents: BundleContents) -> None:
    text = (write_bundle(tmp_path / "net", contents) / "README.md").read_text()
    for part in ("# tiny-pose", "top-down pose, 7 joints", "input 64x32", "`model.onnx`", "Licence: CC0-1.0", "verify"):
        assert part in text


def test_the_parity_record_is_kept_and_shown(tmp_path: Path, contents: BundleContents) -> None:
    outputs = contents.golden.outputs
    comparison = compare(outputs, outputs + np.float32(1), contents.recipe)
    tolerance = tolerance_of("bf16")
    rung = Rung(
        name="engine x",
        reference="fp32",
        candidate="x",
        inputs="noise",
        comparison=comparison,
        tolerance=tolerance,
        verdict=judge(comparison, tolerance),
    )
    decoded = msgspec.structs.replace(rung, comparison=msgspec.structs.replace(comparison, stage="decoded"))
    record = ParityRecord(rungs=(rung, decoded))
    out = write_bundle(tmp_path / "net", replace(contents, parity=record))
    assert Bundle.open(out).parity() == record
    text = (out / "README.md").read_text()
    assert f"| engine x | 1 | {comparison.relative:.2e} | shift p99 0 px, 112 joints | FAILED |" in text
    assert "| engine x, decoded | - | - | shift p99 0 px, 112 joints | FAILED |" in text


def test_overwrite_never_replaces_what_goes_in(tmp_path: Path, contents: BundleContents) -> None:
    out = write_bundle(tmp_path / "net", contents)
    own = replace(contents.models[0], path=out / "model.onnx")
    with pytest.raises(UserError, match=r"net cannot be replaced: .*model\.onnx, which is read, lies in it"):
        write_bundle(out, replace(contents, models=(own,)), overwrite=True)
    Bundle.open(out)
