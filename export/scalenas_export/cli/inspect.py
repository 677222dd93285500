"""`inspect`: what a bundle, a spec file or a weights file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalenas_export.cli.common import emit, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle, EngineStatus


@verb("inspect")
@click.argument("path", metavar="BUNDLE | SPEC.json | W.safetensors", type=click.Path(path_type=Path))
def command(*, path: Path, as_json: bool) -> None:
    """Show what a bundle, a spec file or a weights file holds.

    Of a bundle every checksum is verified first, and each engine is told whether it fits this machine. Nothing is
    loaded or compiled.
    """
    if path.suffix == ".safetensors":
        value, text = _weights(path)
    elif path.suffix == ".json" and path.is_file():
        value, text = _spec(path)
    else:
        value, text = _bundle(path)
    emit(value, text, as_json=as_json)


def _bundle(path: Path) -> tuple[dict[str, Json], str]:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.bundle.readme import parity_rows
    from scalenas_runtime.records import to_plain

    bundle = Bundle.open(path)
    engines, parity = bundle.engines(), bundle.parity()
    value: dict[str, Json] = {
        "kind": "bundle",
        "path": str(path),
        "manifest": to_plain(bundle.manifest),
        "engines": [_engine(status) for status in engines],
        "parity": None if parity is None else to_plain(parity),
    }
    files = [[entry.path, str(entry.size), entry.sha256[:16]] for entry in bundle.manifest.files]
    parts = [_summary(bundle), "files (all checksums hold)\n" + table(("path", "bytes", "sha256"), files)]
    if engines:
        rows = [[s.name, s.entry.kind, s.entry.version, "yes" if s.fits else f"no: {s.reason}"] for s in engines]
        parts.append("engines\n" + table(("folder", "kind", "version", "fits here"), rows))
    else:
        parts.append("engines\nnone; `scalenas-export build` adds one")
    if parity is not None:
        parts.append("parity\n" + table(("step", "max abs", "relative", "agreement", "verdict"), parity_rows(parity)))
    parts.append("recipe\n" + _pairs(to_plain(bundle.recipe)))
    return value, "\n\n".join(parts)


def _summary(bundle: Bundle) -> str:
    manifest = bundle.manifest
    weights = manifest.provenance.weights
    graphs = [f"{item.file} (batch {item.batch}, io {item.io})" for item in manifest.models]
    rows: dict[str, Json] = {
        "name": manifest.name,
        "schema": manifest.schema,
        "made by": manifest.provenance.tool,
        "graphs": ", ".join(graphs),
        "golden": f"{manifest.golden.count} pictures, {manifest.golden.source}",
        "weights": weights.source,
        "licence": weights.licence,
        **{f"{name} digest": digest for name, digest in sorted(manifest.digests.items())},
    }
    return _pairs(rows)


def _engine(status: EngineStatus) -> dict[str, Json]:
    from scalenas_runtime.records import to_plain

    return {
        "folder": status.name,
        "fits": status.fits,
        "trusted": status.trusted,
        "reason": status.reason,
        "build": to_plain(status.entry),
    }


def _spec(path: Path) -> tuple[dict[str, Json], str]:
    from scalenas.overview import detail_text, net_detail
    from scalenas.spec import SubnetSpec

    detail = net_detail(SubnetSpec.read(path))
    return {"kind": "spec", "path": str(path), **detail}, detail_text(str(path), detail, "published")


def _weights(path: Path) -> tuple[dict[str, Json], str]:
    from scalenas_runtime.bundle.manifest import parse_json
    from scalenas_runtime.safetensors_header import read_safetensors_header

    if not path.is_file():
        raise UserError(f"{path} is not a file")
    header = read_safetensors_header(path)
    size = path.stat().st_size
    metadata: dict[str, Json] = {}
    for key, text in sorted(header.metadata.items()):
        # Our own entries are JSON texts; those of other programs may be anything.
        try:
            parsed = parse_json(text, what=key)
        except UserError:
            parsed = text
        metadata[key] = parsed if isinstance(parsed, dict | list) else text
    tensors: list[Json] = [
        {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)} for tensor in header.tensors
    ]
    value: dict[str, Json] = {
        "kind": "weights",
        "path": str(path),
        "bytes": size,
        "parameters": header.parameters,
        "metadata": metadata,
        "tensors": tensors,
    }
    dtypes = sorted({tensor.dtype for tensor in header.tensors})
    summary: dict[str, Json] = {
        "tensors": len(header.tensors),
        "values": header.parameters,
        "bytes": size,
        "dtypes": ", ".join(dtypes),
    }
    own = metadata.get("scalenas")
    details = own if isinstance(own, dict) else metadata
    return value, f"{_pairs(summary)}\n\nmetadata\n{_pairs(details)}"


def _pairs(values: dict[str, Json]) -> str:
    from scalenas_runtime.canonical import canonical_json

    width = max((len(key) for key in values), default=0)
    lines = [
        f"{key.ljust(width)}  {value if isinstance(value, str) else canonical_json(value)}"
        for key, value in values.items()
    ]
    return "\n".join(lines) or "none"
