from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scalenas_runtime.bundle import Bundle, BundleContents, stores, write_bundle
from scalenas_runtime.errors import UserError


@pytest.fixture
def packed(tmp_path: Path, contents: BundleContents) -> Path:
    return write_bundle(tmp_path / "net.zip", contents)


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def repack(path: Path, change: Callable[[zipfile.ZipFile], object], *, method: int = zipfile.ZIP_STORED) -> Path:
    """Writes the entries of `path` again, lets `change` add others, and replaces the file."""
    content = entries(path)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        change(archive)
    return path


def test_a_zip_holds_what_a_directory_holds(packed: Path, tmp_path: Path, contents: BundleContents) -> None:
    folder = write_bundle(tmp_path / "net", contents)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert entries(packed) == files
    zipped, plain = Bundle.open(packed), Bundle.open(folder)
    assert zipped.manifest == plain.manifest
    assert zipped.model().read_bytes() == plain.model().read_bytes()
    for part in ("inputs", "outputs", "decoded"):
        np.testing.assert_array_equal(getattr(zipped.golden(), part), getattr(plain.golden(), part))


def test_a_zip_is_the_same_bytes_each_time(packed: Path, tmp_path: Path, contents: BundleContents) -> None:
    again = write_bundle(tmp_path / "again.zip", contents)
    assert again.read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(again) as archive:
        infos = archive.infolist()
    assert infos[0].filename == "manifest.json"
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in infos} == {0o100644}


def test_a_zip_made_by_other_tools_opens(packed: Path) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        archive.writestr(zipfile.ZipInfo("records/"), b"")
        archive.writestr("__MACOSX/._model.onnx", b"x")
        archive.writestr("golden/.DS_Store", b"x")

    bundle = Bundle.open(repack(packed, add, method=zipfile.ZIP_DEFLATED))
    assert len(bundle.golden().inputs) == 16


def test_unpacked_files_lie_in_the_cache_and_are_checked_again(packed: Path, cache: Path) -> None:
    model = Bundle.open(packed).model()
    assert cache / "unpacked" in model.parents
    assert (cache / "unpacked").stat().st_mode & 0o077 == 0
    original = model.read_bytes()
    model.write_bytes(b"x" + original[1:])
    assert Bundle.open(packed).model().read_bytes() == original


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_zip_is_refused(packed: Path, share: float) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"net\.zip is not a readable zip"):
        Bundle.open(packed)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_damaged_data_is_found(packed: Path, method: int) -> None:
    repack(packed, lambda archive: None, method=method)
    with zipfile.ZipFile(packed) as archive:
        info = archive.getinfo("golden/inputs.npy")
    data = bytearray(packed.read_bytes())
    start = info.header_offset + 30 + len(info.filename)
    data[start + 2000 : start + 2100] = bytes(100)
    packed.write_bytes(data)
    with pytest.raises(UserError, match=r"golden/inputs\.npy (is damaged|has SHA-256|has)"):
        Bundle.open(packed)


def test_the_same_name_twice_is_refused(packed: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        repack(packed, lambda archive: archive.writestr("model.onnx", b"other"))
    with pytest.raises(UserError, match=r"holds 'model\.onnx' twice"):
        Bundle.open(packed)


def test_names_that_differ_in_case_are_refused(packed: Path) -> None:
    repack(packed, lambda archive: archive.writestr("records/A.json", b"1"))
    repack(packed, lambda archive: archive.writestr("records/a.json", b"2"))
    with pytest.raises(UserError, match=r"holds 'records/a\.json' twice"):
        Bundle.open(packed)


@pytest.mark.parametrize(
    "name", ["../evil", "records/../../evil", "/tmp/evil", "C:/evil", "records\\..\\..\\evil", "records/a\x01b"]
)
def test_a_name_that_leads_out_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    repack(packed, lambda archive: archive.writestr(name, b"evil"))
    with pytest.raises(UserError, match="leads out of the bundle"):
        Bundle.open(packed)
    assert not list(tmp_path.rglob("evil"))


def test_a_link_is_refused(packed: Path) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("records/link")
        info.create_system = 3
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")

    with pytest.raises(UserError, match="records/link is a symbolic link"):
        Bundle.open(repack(packed, add))


def test_a_file_that_is_not_listed_is_refused(packed: Path) -> None:
    repack(packed, lambda archive: archive.writestr("model.py", b"import os"))
    with pytest.raises(UserError, match=r"model\.py is not listed in manifest\.json"):
        Bundle.open(packed)


def set_flag(path: Path, name: str) -> None:
    """Sets the bit of encryption in both headers of an entry."""
    data = bytearray(path.read_bytes())
    for magic, flags, start in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
        place = 0
        while (place := data.find(magic, place)) >= 0:
            if data[place + start : place + start + len(name)] == name.encode():
                data[place + flags] |= 1
            place += 4
    path.write_bytes(data)


def test_an_encrypted_entry_is_refused(packed: Path) -> None:
    set_flag(packed, "model.onnx")
    with pytest.raises(UserError, match=r"model\.onnx is encrypted; bundles are not"):
        Bundle.open(packed)


def test_other_methods_of_packing_are_refused(packed: Path) -> None:
    repack(packed, lambda archive: None, method=zipfile.ZIP_BZIP2)
    with pytest.raises(UserError, match="is packed by method 12; use deflate"):
        Bundle.open(packed)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(packed: Path) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        with archive.open("records/zeros", "w", force_zip64=True) as entry:
            for _ in range(150):
                entry.write(bytes(1 << 20))

    with pytest.raises(UserError, match=r"claims to unpack to .* bytes from .*; that is no bundle but a zip bomb"):
        Bundle.open(repack(packed, add, method=zipfile.ZIP_DEFLATED))


def test_an_entry_longer_than_its_record_is_not_read_on(packed: Path) -> None:
    content = entries(packed)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data + bytes(1 << 22) if name == "model.onnx" else data)
    with pytest.raises(UserError, match=r"model\.onnx has \d+ bytes, its record says"):
        Bundle.open(packed)


def test_a_directory_that_lies_about_sizes_is_found_while_reading(packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        real = archive.getinfo("golden/inputs.npy").file_size
    repack(packed, lambda archive: None, method=zipfile.ZIP_DEFLATED)
    data = packed.read_bytes()
    # The central directory states 4 bytes less than the data unpack to.
    place = data.rindex(b"golden/inputs.npy") - 46
    changed = data[: place + 24] + struct.pack("<I", real - 4) + data[place + 28 :]
    packed.write_bytes(changed)
    with pytest.raises(UserError, match=r"golden/inputs\.npy has \d+ bytes, its record says"):
        Bundle.open(packed)


def test_too_many_entries_are_refused(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MAX_ENTRIES", 5)
    with pytest.raises(UserError, match="has 6 entries; a bundle has at most 5"):
        Bundle.open(packed)


def test_a_zipped_folder_says_what_to_do(packed: Path) -> None:
    content = entries(packed)
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"net/{name}", data)
    with pytest.raises(UserError, match=r"it is in net/manifest\.json: .* zip its content without the folder"):
        Bundle.open(packed)


def test_an_empty_zip_is_no_bundle(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(UserError, match=r"manifest\.json is missing$"):
        Bundle.open(tmp_path / "empty.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_any_damage_is_found_or_harmless(packed: Path, method: int) -> None:
    reference = Bundle.open(packed).golden()
    data = repack(packed, lambda archive: None, method=method).read_bytes()
    directory = data.index(b"PK\x01\x02")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        start = directory if rng.random() < 0.6 else 0
        changed = bytearray(data)
        changed[rng.integers(start, len(data))] = rng.integers(256)
        packed.write_bytes(changed)
        try:
            np.testing.assert_array_equal(Bundle.open(packed).golden().outputs, reference.outputs)
        except UserError:
            refused += 1
    assert refused > 100


def test_an_entry_outside_the_archive_is_refused(packed: Path) -> None:
    data = packed.read_bytes()
    place = data.rindex(b"golden/inputs.npy") - 46
    packed.write_bytes(data[: place + 42] + struct.pack("<I", len(data) + 1) + data[place + 46 :])
    with pytest.raises(UserError, match=rf"golden/inputs\.npy would begin at byte \d+ of {len(data)}"):
        Bundle.open(packed)
