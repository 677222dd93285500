"""The published architectures: JSON files in the folder `named`, found by name."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import msgspec

from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.records import Record, read_record

WIDTH = "{width}"


class PublishedNet(Record, frozen=True, kw_only=True):
    """One data file.

    Attributes:
        schema: Version of the form.
        name: Name of the net; `{width}` in it stands for a number, the setting `width`.
        title: What it is, in one line.
        source: Where the architecture was published.
        widths: The published widths, for a name with `{width}`.
        siblings: Name of the net that stands in for this one under another task.
        settings: Settings that are not the family's default.
        image: Published input, (channels, height, width).
        genes: Genes in the form of a spec.
    """

    schema: str
    name: str
    title: str
    source: str
    settings: dict[str, object]
    image: tuple[int, int, int]
    genes: dict[str, object]
    widths: tuple[int, ...] = ()
    siblings: dict[str, str] = msgspec.field(default_factory=dict)

    def names(self) -> list[str]:
        """Returns the published names."""
        return [self.name.replace(WIDTH, str(width)) for width in self.widths] or [self.name]

    def spec(self, width: int | None = None) -> SubnetSpec:
        """Returns the architecture as published, with the width that its name says."""
        settings = {**self.settings, **({} if width is None else {"width": width})}
        return SubnetSpec("scalenas", _json(settings), {"image": self.image}, _json(self.genes))


@dataclass(frozen=True, slots=True)
class Match:
    """A published net that goes by a name; `width` is the number in the name, None if the name has none."""

    net: PublishedNet
    width: int | None

    def spec(self) -> SubnetSpec:
        """Returns the architecture as published."""
        return self.net.spec(self.width)


@functools.lru_cache(maxsize=1)
def published() -> tuple[PublishedNet, ...]:
    """Returns all published nets in the order of their files' names."""
    found = [item for item in files(__package__).joinpath("named").iterdir() if item.name.endswith(".json")]
    return tuple(
        read_record(PublishedNet, json.loads(item.read_text(encoding="utf-8")), what=item.name)
        for item in sorted(found, key=lambda item: item.name)
    )


def find(name: str) -> Match | None:
    """Returns the net called `name`; for a name with `{width}` any number fits. None if there is no such net."""
    for net in published():
        pattern = re.escape(net.name).replace(re.escape(WIDTH), r"(0|-?[1-9]\d{0,5})")
        found = re.fullmatch(pattern, name)
        if found:
            return Match(net, int(found[1]) if found.groups() else None)
    return None


def _json(value: dict[str, object]) -> Mapping[str, Json]:
    return value  # type: ignore[return-value]
