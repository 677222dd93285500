"""Small data sets that lie in a test's own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nets.data.small_data import PEOPLE_YAML, STREETS_YAML, write_people, write_streets, write_yaml


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """The description of people with four joints."""
    write_people(tmp_path)
    return write_yaml(tmp_path / "own.yaml", PEOPLE_YAML)


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """The description of streets with masks."""
    write_streets(tmp_path)
    return write_yaml(tmp_path / "own.yaml", STREETS_YAML)
