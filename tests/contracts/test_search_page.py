"""What docs/search.md shows runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scalenas_export.cli.search import command

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "search.md").read_text()


def commands() -> list[list[str]]:
    text = "\n".join(re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    lines = [line.partition("  #")[0] for line in text.splitlines() if line.startswith("scalenas-export search")]
    return [shlex.split(line)[2:] for line in lines]


@pytest.mark.parametrize("words", commands())
def test_every_command_of_the_page_parses(words: list[str]) -> None:
    assert command.make_context("search", words).params


def test_the_options_that_the_page_names_are_there() -> None:
    known = {name for parameter in command.params for name in parameter.opts}
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= known


def test_the_samplers_that_the_page_names_are_there() -> None:
    from scalenas.search import list_samplers

    table = PAGE.partition("## Algorithms")[2].partition("##")[0]
    assert set(re.findall(r"^\| `([a-z0-9]+)` ", table, re.MULTILINE)) == set(list_samplers())


def test_the_python_of_the_page_runs(tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number, kept, count = done.stdout.split()
    assert (int(number) < 20, kept, count) == (True, "True", "20")
