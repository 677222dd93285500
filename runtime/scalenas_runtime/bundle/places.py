"""Where a bundle may be written: at a free place, or in place of another bundle."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from scalenas_runtime.bundle.manifest import FAMILY, MANIFEST, MAX_MANIFEST
from scalenas_runtime.errors import UserError


def check_place(out: Path, *, overwrite: bool) -> None:
    """Accepts a place for a bundle: a free one or, with `overwrite`, an empty folder or an older bundle of that kind.

    Args:
        out: A zip where its name ends with `.zip`, else a folder.
        overwrite: An older bundle may go.

    Raises:
        UserError: something is there, and it may not be replaced; the text says what and what would work.
    """
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise UserError(f"{out} exists already; name another place or pass --overwrite")
    reason = _zip_problem(out) if out.suffix == ".zip" else _folder_problem(out)
    if reason:
        raise UserError(f"{out} cannot be replaced by a bundle: {reason}; name another place, or delete it first")


def _folder_problem(out: Path) -> str:
    if not out.is_dir():
        return "it is no folder"
    if not any(out.iterdir()):
        return ""
    manifest = out / MANIFEST
    if not manifest.is_file():
        return f"it holds files, and no {MANIFEST}"
    with manifest.open("rb") as stream:
        return _manifest_problem(stream.read(MAX_MANIFEST))


def _zip_problem(out: Path) -> str:
    if not out.is_file():
        return "it is no file, and a name that ends with .zip means one"
    try:
        with zipfile.ZipFile(out) as archive, archive.open(MANIFEST) as stream:
            return _manifest_problem(stream.read(MAX_MANIFEST))
    except KeyError:
        return f"it holds no {MANIFEST}"
    except Exception:  # what zipfile raises for damaged archives has no common base
        return "it is no readable zip"


def _manifest_problem(text: bytes) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return f"its {MANIFEST} is not JSON"
    schema = value.get("schema") if isinstance(value, dict) else None
    known = isinstance(schema, str) and schema.startswith(f"{FAMILY}/")
    return "" if known else f"its {MANIFEST} is of schema {schema!r}, not of {FAMILY}"
