"""Identity of records and weights: canonical JSON and SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def canonical_json(value: Json) -> str:
    """Returns `value` as JSON with sorted keys, no spaces, UTF-8 characters as they are.

    Equal values give equal text on every machine, so the text can be hashed. Floats print in Python's shortest
    form that reads back to the same number.

    Raises:
        ValueError: for NaN or an infinity, which JSON does not have.
        TypeError: for keys that are not strings and for values JSON does not have.
    """
    _check_keys(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pretty_json(value: Json) -> str:
    """Returns `value` as indented JSON with sorted keys and a final newline, for files that people read."""
    _check_keys(value)
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def digest(value: Json) -> str:
    """Returns the SHA-256 of the canonical JSON of `value`, as 64 hexadecimal digits."""
    return text_digest(canonical_json(value))


def text_digest(text: str) -> str:
    """Returns the SHA-256 of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def weights_digest(tensors: Iterable[tuple[str, str, Sequence[int], bytes]]) -> str:
    """Returns the SHA-256 over (name, dtype, shape, bytes) of all tensors, sorted by name.

    Args:
        tensors: (name, dtype such as `float32`, shape, little-endian C-order bytes) of each tensor.
    """
    total = hashlib.sha256()
    for name, dtype, shape, data in sorted(tensors, key=lambda tensor: tensor[0]):
        header = canonical_json([name, dtype, list(shape), len(data)])
        total.update(header.encode() + b"\n")
        total.update(data)
    return total.hexdigest()


def _check_keys(value: object) -> None:
    # json.dumps would turn the key 1 into "1" and so give two different records one identity.
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"keys of canonical JSON are strings, got {key!r}")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)
