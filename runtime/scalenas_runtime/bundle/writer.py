"""Writing a bundle: whole or not at all, as a directory or as one zip, the same bytes for the same content."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scalenas_runtime.bundle.engines import Place, file_entry, place_of
from scalenas_runtime.bundle.manifest import (
    MANIFEST,
    SCHEMA,
    GoldenEntry,
    IoForm,
    Manifest,
    ModelEntry,
    Provenance,
    TensorEntry,
    parse_manifest,
)
from scalenas_runtime.bundle.names import check_name
from scalenas_runtime.bundle.places import check_place
from scalenas_runtime.bundle.readme import readme_text
from scalenas_runtime.canonical import Json, digest, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256, named_errors, new_directory, write_text
from scalenas_runtime.golden import PARTS, Golden, save_golden
from scalenas_runtime.parity import ParityRecord
from scalenas_runtime.records import to_plain
from scalenas_runtime.session import TensorSpec
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import Recipe

_OWN_FOLDERS = ("golden", "engines", "records")
# The earliest date a zip can hold; the permissions of a plain file.
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One graph to put into a bundle.

    Attributes:
        path: The ONNX file.
        batch: Pictures in one inference.
        io: `raw` or `end2end`.
        inputs, outputs: Tensors of the graph.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: int = 1
    io: IoForm = "raw"

    @property
    def name(self) -> str:
        """Its name inside the bundle: `model.onnx`, `model-b8.onnx`, `model-end2end.onnx`, ..."""
        batch = f"-b{self.batch}" if self.batch != 1 else ""
        form = f"-{self.io}" if self.io != "raw" else ""
        return f"model{batch}{form}.onnx"

    def place(self, config: EngineConfig) -> Place:
        """Returns what `build_engine` needs to build an engine of this graph for this machine.

        Raises:
            UserError: the target is not possible here.
        """
        return place_of(config, self.name, file_sha256(self.path))


@dataclass(frozen=True, slots=True)
class BundleContents:
    """What goes into a bundle.

    Attributes:
        name: What the net is called.
        recipe: The task recipe.
        models: The graphs; one has batch 1 and form `raw`.
        golden: Pictures with the outputs of the fp32 reference.
        golden_source: Where those pictures come from, in words, and `golden_reference` what made the outputs.
        provenance: How the bundle was made.
        spec: The subnet's spec as JSON; None for a net that no space describes.
        digests: SHA-256 of what the bundle was made from; the recipe's is added.
        engines: Engine folders made by `build_engine`, which keep their names.
        parity: The ladder, for `records/parity.json`.
        records: Other records by file name, such as {"export.json": {...}}: times, hosts, latencies.
        files: Further files by their name in the bundle, such as {"licence.txt": Path(...)}.
        extra: The user's own keys.
    """

    name: str
    recipe: Recipe
    models: tuple[ModelFile, ...]
    golden: Golden
    provenance: Provenance
    golden_source: str = "synthetic scenes"
    golden_reference: str = "the fp32 net"
    spec: Mapping[str, Json] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    engines: tuple[Path, ...] = ()
    parity: ParityRecord | None = None
    records: Mapping[str, Json] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)


def write_bundle(out: Path, contents: BundleContents, *, overwrite: bool = False) -> Path:
    """Returns `out`, now a bundle: a zip where its name ends with `.zip`, else a directory.

    `manifest.json`, the graphs and the golden files are the same bytes for the same contents; so is a whole zip
    without engines and records.

    Raises:
        UserError: `out` exists already and `overwrite` is false, holds something else than a bundle or
            one of the files to be put in, or the contents do not fit together.
        OSError: the place is read-only or the disk is full; nothing is left behind then.
    """
    contents.golden.check(contents.recipe)
    check_place(out, overwrite=overwrite)
    if out.suffix != ".zip":
        sources = [model.path for model in contents.models] + [*contents.files.values(), *contents.engines]
        with new_directory(out, overwrite=overwrite, holds=MANIFEST, sources=sources) as folder:
            _fill(folder, contents)
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with named_errors(out), tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        _fill(folder, contents)
        archive = Path(temporary) / "bundle.zip"
        pack(folder, archive)
        check_place(out, overwrite=overwrite)
        archive.replace(out)
    return out


def pack(folder: Path, archive: Path) -> None:
    """Writes all files of `folder` into a new zip: stored, in order of their names, with one fixed date.

    Raises:
        OSError: the place is read-only or the disk is full.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with archive.open("wb") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as output:
            for name in sorted(names, key=lambda name: (name != MANIFEST, name)):
                info = zipfile.ZipInfo(name, _DATE)
                info.external_attr = _MODE
                info.create_system = 3
                info.file_size = (folder / name).stat().st_size
                with (folder / name).open("rb") as source, output.open(info, "w") as entry:
                    shutil.copyfileobj(source, entry, 1 << 20)
        stream.flush()
        os.fsync(stream.fileno())


def _fill(folder: Path, contents: BundleContents) -> None:
    for model in contents.models:
        shutil.copyfile(model.path, folder / model.name)
    (folder / "golden").mkdir()
    save_golden(contents.golden, folder / "golden")
    for name, path in contents.files.items():
        destination = folder / check_name(name, what="files")
        if destination.exists() or name in (MANIFEST, "README.md") or name.split("/")[0] in _OWN_FOLDERS:
            raise UserError(f"files: {name} is a name of the bundle's own")
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination)
    manifest = _manifest(folder, contents)
    text = manifest.to_text()
    parse_manifest(text, what=contents.name)
    write_text(folder / MANIFEST, text)
    write_text(folder / "README.md", readme_text(manifest, contents.parity))
    records = dict(contents.records)
    if contents.parity is not None:
        records["parity.json"] = to_plain(contents.parity)
    for name, record in records.items():
        write_text(folder / "records" / check_name(name, what="records"), pretty_json(record))
    for engine in contents.engines:
        shutil.copytree(engine, folder / "engines" / engine.name)


def _manifest(folder: Path, contents: BundleContents) -> Manifest:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    recipe = to_plain(contents.recipe)
    return Manifest(
        schema=SCHEMA,
        name=contents.name,
        recipe=recipe,
        models=tuple(_model_entry(model) for model in contents.models),
        golden=GoldenEntry(
            **{part: f"golden/{part}.npy" for part in PARTS},
            output=contents.models[0].outputs[0].name,
            count=len(contents.golden.inputs),
            source=contents.golden_source,
            reference=contents.golden_reference,
        ),
        provenance=contents.provenance,
        files=tuple(file_entry(folder, name) for name in names),
        spec=None if contents.spec is None else dict(contents.spec),
        digests={**contents.digests, "recipe": digest(recipe)},
        extra=dict(contents.extra),
    )


def _model_entry(model: ModelFile) -> ModelEntry:
    return ModelEntry(
        file=model.name,
        batch=model.batch,
        io=model.io,
        inputs=tuple(_tensor_entry(spec) for spec in model.inputs),
        outputs=tuple(_tensor_entry(spec) for spec in model.outputs),
    )


def _tensor_entry(spec: TensorSpec) -> TensorEntry:
    return TensorEntry(name=spec.name, dtype=spec.dtype, shape=spec.shape)
