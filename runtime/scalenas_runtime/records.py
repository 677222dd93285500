"""Strict reading of JSON into frozen records: an unknown key or a wrong type is an error that names the place."""

from __future__ import annotations

import difflib
import re
from typing import Any, TypeVar

import msgspec

from scalenas_runtime.errors import UserError


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records that are read from files: frozen, keyword-only, unknown keys refused."""


R = TypeVar("R")


def read_record(kind: type[R], value: object, *, what: str) -> R:
    """Returns `value`, as parsed from JSON or YAML, as a record of type `kind`.

    Args:
        kind: A `Record` class, or any type that `msgspec.convert` knows.
        value: The parsed data.
        what: What the data is, for the error text ("manifest", "pose recipe", ...).

    Raises:
        UserError: for a missing, unknown or wrong-typed key; the text names the key and the nearest known one.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{what}: {error}{_nearest(str(error), kind)}") from None


def to_plain(record: object) -> dict[str, Any]:
    """Returns a record as plain dicts, lists, strings and numbers, ready for JSON."""
    plain = msgspec.to_builtins(record)
    assert isinstance(plain, dict)
    return plain


def _nearest(message: str, kind: object) -> str:
    found = re.search(r"unknown field `([^`]*)`", message)
    fields = _field_names(kind)
    close = difflib.get_close_matches(found.group(1), fields, n=1) if found else []
    return f" (did you mean `{close[0]}`?)" if close else ""


def _field_names(kind: object) -> list[str]:
    """Returns the keys of a record type and of the record types inside it, the outer ones first."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        names = [field.encode_name for field in fields]
        return names + [name for field in fields for name in _field_names(field.type)]
    return [name for part in getattr(kind, "__args__", ()) for name in _field_names(part)]
