"""`manifest.json`: what a bundle says about itself (`scalenas.bundle/1.0`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from scalenas_runtime.bundle.names import check_name
from scalenas_runtime.canonical import digest, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import Record, read_record, to_plain
from scalenas_runtime.tasks import Recipe, read_recipe

FAMILY = "scalenas.bundle"
MAJOR, MINOR = 1, 0
SCHEMA = f"{FAMILY}/{MAJOR}.{MINOR}"
MANIFEST = "manifest.json"
MAX_MANIFEST = 16 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")

IoForm = Literal["raw", "end2end"]


class FileEntry(Record, frozen=True):
    """One file of the bundle: its path inside, SHA-256 as 64 hexadecimal digits, and size in bytes."""

    path: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 of {self.path} is not 64 lower-case hexadecimal digits: {self.sha256!r}")
        if self.size < 0:
            raise ValueError(f"size of {self.path} is negative: {self.size}")


class TensorEntry(Record, frozen=True):
    """One input or output of a model: name, NumPy dtype name, static shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ModelEntry(Record, frozen=True):
    """One ONNX graph of the net.

    Attributes:
        file: Path inside the bundle.
        batch: Pictures in one inference.
        io: `raw` (heatmaps or logits out) or `end2end` (decoded results out).
        inputs, outputs: Tensors of the graph.
    """

    file: str
    batch: int
    io: IoForm
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]


class GoldenEntry(Record, frozen=True):
    """The golden pictures and what the fp32 model makes of them.

    Attributes:
        inputs: Path of the pictures, uint8 (n, H, W, 3), BGR.
        outputs: Path of the undecoded outputs, float32 (n, ...).
        decoded: Path of the decoded results: keypoints float32 (n, K, 3) or class maps uint8 (n, H, W).
        output: Name of the output that was recorded.
        count: Number of pictures.
        source: Where the pictures come from, in words.
        reference: What made the outputs, in words.
    """

    inputs: str
    outputs: str
    decoded: str
    output: str
    count: int
    source: str
    reference: str


class WeightsEntry(Record, frozen=True):
    """Where the weights come from and under which terms they may be used.

    Attributes:
        digest: Weights digest, or None where only a graph was given.
        source: File, name or address, in words; "random" for weights that were never trained.
        licence: SPDX identifier or a short text; "unknown" where nobody said.
        notice: Attribution or further terms.
    """

    source: str
    licence: str
    digest: str | None = None
    notice: str = ""


class CalibrationEntry(Record, frozen=True):
    """The pictures that BN statistics or quantisation were taken from: kind, number and digest."""

    kind: str
    pictures: int
    digest: str


class Provenance(Record, frozen=True):
    """How the bundle was made.

    Attributes:
        tool: Name and version of what wrote it.
        weights: Origin and terms of the weights.
        calibration: Pictures that took part; None where none did.
        export: Settings and package versions of the export, as the exporter names them.
    """

    tool: str
    weights: WeightsEntry
    calibration: CalibrationEntry | None = None
    export: dict[str, Any] = msgspec.field(default_factory=dict)


class Manifest(Record, frozen=True):
    """Everything that is the same whenever the same net is exported in the same way.

    Attributes:
        name: What the net is called.
        recipe: The task recipe, as JSON; `Manifest.task` reads it.
        models: The graphs; one of batch 1 and form `raw` is always `model.onnx`.
        golden: The golden files.
        provenance: How the bundle was made.
        files: Every file outside `engines/`, `records/` and `README.md`, sorted by path.
        spec: The subnet's spec; None for a net that no space describes.
        digests: SHA-256 of what the bundle was made from (`spec`, `live_spec`, `weights`, `recipe`, `calibration`).
        requires: Keys of a newer minor that a reader must understand; empty in 1.0.
        extra: The user's own.
    """

    name: str
    recipe: dict[str, Any]
    models: tuple[ModelEntry, ...]
    golden: GoldenEntry
    provenance: Provenance
    files: tuple[FileEntry, ...]
    schema: str
    spec: dict[str, Any] | None = None
    digests: dict[str, str] = msgspec.field(default_factory=dict)
    requires: tuple[str, ...] = ()
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.files]
        folded = {path.casefold() for path in paths}
        if len(folded) != len(paths):
            raise UserError("files holds a path twice")
        listed = set(paths)
        golden = (self.golden.inputs, self.golden.outputs, self.golden.decoded)
        for name in (*(model.file for model in self.models), *golden):
            if name not in listed:
                raise UserError(f"{name!r} is used but not listed in files")
        forms = [(model.batch, model.io) for model in self.models]
        if len(set(forms)) != len(forms):
            raise UserError(f"models holds a form twice: {forms}")
        if (1, "raw") not in forms:
            raise UserError(f"models lacks the graph of batch 1 and io raw, got {forms}")

    @property
    def task(self) -> Recipe:
        """The task recipe.

        Raises:
            UserError: the recipe is not one this version knows.
        """
        return read_recipe(self.recipe)

    def to_text(self) -> str:
        """Returns the text of `manifest.json`: sorted keys, two spaces of indent, a final newline."""
        return pretty_json(to_plain(self))


def parse_manifest(text: str | bytes, *, what: str) -> Manifest:
    """Returns the manifest that the text of a `manifest.json` describes.

    A minor version newer than this reader's may hold keys that are unknown here: they are passed over unless
    the manifest names them in `requires`.

    Args:
        text: The JSON.
        what: The bundle's path, for the error text.

    Raises:
        UserError: not JSON, another major version, a required key that is unknown here, a missing, surplus or
            wrong-typed key, a path that leads out of the bundle, or a recipe other than the one its digest is of.
    """
    value = parse_json(text, what=f"{what}: {MANIFEST}")
    if not isinstance(value, dict):
        raise UserError(f"{what}: {MANIFEST} must be a JSON object, got {type(value).__name__}")
    minor = _minor(value.get("schema"), what)
    required = value.get("requires", [])
    unknown: list[str] = []
    known = _known_part(value, Manifest, "", unknown)
    if minor > MINOR:
        missing = [key for key in required if key in unknown or not _is_key(key)] if _is_strings(required) else []
        if missing:
            raise UserError(
                f"{what}: its keys {', '.join(missing)} must be understood (schema {value['schema']}), and this "
                f"version knows {SCHEMA}; update scalenas-export"
            )
        value = known
    elif required:
        raise UserError(f"{what}: requires {required!r}, which {SCHEMA} does not have; it must be empty there")
    manifest = read_record(Manifest, value, what=f"{what}: {MANIFEST}")
    for entry in manifest.files:
        check_name(entry.path, what=what)
    read_recipe(manifest.recipe)
    stated = manifest.digests.get("recipe")
    if stated is not None and stated != digest(manifest.recipe):
        raise UserError(
            f"{what}: {MANIFEST}: the recipe was changed: its digest is not digests.recipe, {stated[:16]}...; export "
            "the bundle again with the recipe you want"
        )
    return manifest


def parse_json(text: str | bytes, *, what: str) -> object:
    """Returns parsed JSON, more strictly than the standard library: no repeated keys, no NaN or infinities.

    Raises:
        UserError: anything that is not such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in names if names.count(key) > 1)!r} stands twice")
    return result


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not a JSON number")


def _minor(schema: object, what: str) -> int:
    found = re.fullmatch(rf"{re.escape(FAMILY)}/(\d{{1,6}})\.(\d{{1,6}})", schema) if isinstance(schema, str) else None
    if found is None:
        raise UserError(f"{what}: {MANIFEST}: schema is {schema!r}, expected {SCHEMA!r} or a newer minor")
    if int(found[1]) != MAJOR:
        raise UserError(f"{what}: {MANIFEST}: schema {schema} has major version {found[1]}, this version reads {MAJOR}")
    return int(found[2])


def _known_part(value: object, kind: object, path: str, unknown: list[str]) -> object:
    """Returns `value` without the keys that records of type `kind` lack, which are added to `unknown`."""
    if isinstance(kind, type) and issubclass(kind, Record) and isinstance(value, Mapping):
        types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        unknown.extend(f"{path}{key}" for key in value if key not in types)
        return {
            key: _known_part(item, types[key], f"{path}{key}.", unknown) for key, item in value.items() if key in types
        }
    arguments = getattr(kind, "__args__", ())
    if isinstance(value, Sequence) and not isinstance(value, str) and arguments:
        return [_known_part(item, arguments[0], path, unknown) for item in value]
    records = [item for item in arguments if isinstance(item, type) and issubclass(item, Record)]
    return _known_part(value, records[0], path, unknown) if records else value


def _is_key(dotted: str) -> bool:
    kind: object = Manifest
    for name in dotted.split("."):
        if not (isinstance(kind, type) and issubclass(kind, Record)) or name not in kind.__struct_fields__:
            return False
        field = next(item for item in msgspec.structs.fields(kind) if item.encode_name == name)
        candidates = (field.type, *getattr(field.type, "__args__", ()))
        kind = next((item for item in candidates if isinstance(item, type) and issubclass(item, Record)), None)
    return True


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
