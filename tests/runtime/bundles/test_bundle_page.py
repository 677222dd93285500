from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalenas_runtime.bundle import EngineEntry, Manifest
from scalenas_runtime.records import Record

PAGE = (Path(__file__).parents[3] / "docs/bundle.md").read_text()


def check_keys(value: Any, kind: Any) -> None:
    """Accepts an example that has exactly the keys of a record, at every depth."""
    kinds = (kind, *getattr(kind, "__args__", ()))
    record = next((item for item in kinds if isinstance(item, type) and issubclass(item, Record)), None)
    if record is None or value is None:
        return
    for item in value if isinstance(value, list) else [value]:
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(record)}
        assert set(item) == set(fields)
        for key, inner in item.items():
            check_keys(inner, fields[key])


def test_the_example_has_the_keys_of_a_manifest() -> None:
    found = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    check_keys(json.loads(found.group(1)), Manifest)


@pytest.mark.parametrize("record", [Manifest, EngineEntry], ids=["manifest", "build"])
def test_the_page_names_every_key(record: type[Record]) -> None:
    rows = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) >= {field.encode_name for field in msgspec.structs.fields(record)}
