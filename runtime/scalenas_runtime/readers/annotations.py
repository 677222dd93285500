"""Checking of annotation entries with errors that name the file and the entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from scalenas_runtime.errors import UserError

T = TypeVar("T")


def entries(value: object, key: str, kind: type[T], path: Path) -> list[T]:
    """Returns the list under `key` (or the value itself for an empty key), each entry checked against `kind`.

    Raises:
        UserError: no such list, or an entry that does not fit; the text gives its number.
    """
    found = value.get(key) if key and isinstance(value, Mapping) else (None if key else value)
    where = f"`{key}`" if key else "the file"
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise UserError(f"{path}: {where} must be a list, got {type(found).__name__}")
    checked = []
    for number, entry in enumerate(found):
        try:
            checked.append(msgspec.convert(entry, kind))
        except msgspec.ValidationError as error:
            raise UserError(f"{path}: entry {number} of {where}: {error}") from None
    return checked
