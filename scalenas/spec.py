"""`SubnetSpec`: the record that names one subnet of one family, with its identity."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import cast

from scalenas_runtime.canonical import Json, canonical_json, pretty_json, text_digest
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text

SCHEMA = "scalenas.spec/1"
_ATOMS = frozenset({str, int, bool, type(None)})
_LISTS = frozenset({list, tuple})
_KEYS = ("schema", "space", "settings", "inputs", "genes")


class FrozenMap(Mapping[str, Json]):
    """A mapping of JSON values that nothing can change: lists in it are tuples, mappings are frozen too."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, object], place: str = "mapping") -> None:
        for key in items:
            if not isinstance(key, str):
                raise UserError(f"spec: keys of {place} must be strings, got {key!r}")
        self._items = {key: _frozen(item, f"{place}[{key!r}]") for key, item in items.items()}

    def __getitem__(self, key: str) -> Json:
        return cast(Json, self._items[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"FrozenMap({plain(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return FrozenMap, (plain(self),)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SubnetSpec:
    """One subnet: frozen all the way down, equal and hashed by its canonical JSON.

    The record is strict about its form; whether family, settings and genes make sense is for
    `scalenas.space.SearchSpace.validate`.

    Attributes:
        space: Name of the family.
        settings: What is fixed for a whole supernet (width, modules, task, ...), as JSON values.
        inputs: Named inputs; each shape is (channels, height, width), and a size may be a string: a symbolic size.
        genes: The choices, as JSON values in the form of the family.

    Raises:
        UserError: a value has the wrong type; the text names the key.
    """

    space: str
    settings: Mapping[str, Json]
    inputs: Mapping[str, tuple[int | str, ...]]
    genes: Mapping[str, Json]
    _text: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.space, str) or not self.space:
            raise UserError(f"spec: space must be the name of a family, got {self.space!r}")
        for key in ("settings", "inputs", "genes"):
            value = getattr(self, key)
            if not isinstance(value, Mapping):
                raise UserError(f"spec: {key} must be an object of names and values, got {value!r}")
            object.__setattr__(self, key, _frozen(value, key))
        for name, shape in self.inputs.items():
            if not isinstance(shape, tuple) or not shape or not all(_is_size(size) for size in shape):
                raise UserError(
                    f"spec: inputs[{name!r}] must be a list of positive sizes such as [3, 256, 192] "
                    f"(a name in place of a number is a symbolic size), got {plain(shape)!r}"
                )

    def __eq__(self, other: object) -> bool:
        return self.canonical == other.canonical if isinstance(other, SubnetSpec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __reduce__(self) -> tuple[object, ...]:
        plain = self.to_json()
        return SubnetSpec, tuple(plain[key] for key in _KEYS[1:])

    def __repr__(self) -> str:
        plain = self.to_json()
        return f"SubnetSpec({', '.join(repr(plain[key]) for key in _KEYS[1:])})"

    @property
    def canonical(self) -> str:
        """The canonical JSON text."""
        text = self._text
        if text is None:
            text = canonical_json(self.to_json())
            object.__setattr__(self, "_text", text)
        return text

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON as 64 hexadecimal digits: the same in every process and on every machine."""
        return text_digest(self.canonical)

    def to_json(self) -> dict[str, Json]:
        """Returns the spec as plain dicts and lists, with the key `schema`."""
        return {
            "schema": SCHEMA,
            "space": self.space,
            "settings": plain(self.settings),
            "inputs": plain(self.inputs),
            "genes": plain(self.genes),
        }

    @classmethod
    def from_json(cls, value: object) -> SubnetSpec:
        """Returns the spec that parsed JSON describes.

        Raises:
            UserError: unknown or missing key, unknown schema version, or a value of the wrong type.
        """
        if not isinstance(value, Mapping):
            raise UserError(f"spec: must be a JSON object with the keys {', '.join(_KEYS)}, got {value!r}")
        for key in value:
            if key not in _KEYS:
                raise UserError(f"spec: unknown key {key!r}; known: {', '.join(_KEYS)}")
        for key in _KEYS:
            if key not in value:
                raise UserError(f"spec: the key {key!r} is missing; needed: {', '.join(_KEYS)}")
        if value["schema"] != SCHEMA:
            raise UserError(f"spec: schema is {value['schema']!r}, this version reads {SCHEMA!r}")
        return cls(value["space"], value["settings"], value["inputs"], value["genes"])

    @classmethod
    def read(cls, path: Path) -> SubnetSpec:
        """Returns the spec in a JSON file.

        Raises:
            UserError: the file is not UTF-8 JSON, or not a spec; the text names the file.
            OSError: the file cannot be read.
        """
        try:
            return cls.from_json(json.loads(path.read_bytes().decode(), object_pairs_hook=_object))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not a spec file: it is not JSON ({error})") from None

    def write(self, path: Path) -> None:
        """Writes the spec as indented JSON, in one step.

        Raises:
            OSError: the folder is read-only or the disk is full; nothing is left behind then.
        """
        write_text(path, pretty_json(self.to_json()))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"spec: the key {twice!r} stands twice in one object")
    return value


def _is_size(size: object) -> bool:
    if isinstance(size, str):
        return size.isidentifier()
    return isinstance(size, int) and not isinstance(size, bool) and size > 0


def plain(value: object) -> Json:
    """Returns frozen JSON values as the dicts and lists that `json.dumps` takes."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return cast(Json, value)


def _frozen(value: object, place: str) -> object:
    if type(value) in _ATOMS or type(value) is FrozenMap:
        return value
    if isinstance(value, list | tuple):
        # Most lists are short rows of strings or numbers, or lists of such: those are checked without recursion.
        if _ATOMS.issuperset(map(type, value)):
            return tuple(value)
        if _LISTS.issuperset(map(type, value)) and _ATOMS.issuperset(map(type, chain.from_iterable(value))):
            return tuple(map(tuple, value))
        return tuple([_frozen(item, place) for item in value])
    if isinstance(value, Mapping):
        return FrozenMap(value, place)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"spec: {place} is {value}, which JSON does not have")
        return value
    raise UserError(f"spec: {place} must hold JSON values, got {value!r} of type {type(value).__name__}")
