"""What the README and the other pages say is true: code runs, verbs and options exist, links resolve."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from click import Context

from scalenas_export.cli import app as application
from scalenas_runtime.scenes import person_scene
from tests.small_exports import SmallExport

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def python_block(word: str) -> str:
    (block,) = [text for text in blocks("python") if word in text]
    return block


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_spec_becomes_a_module_as_the_readme_shows(tmp_path: Path) -> None:
    printed = run_python(python_block("extract"), tmp_path)
    assert "6.948" in printed or "6.94" in printed


def test_the_runtime_runs_as_the_readme_shows(small_pose: SmallExport, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.jpg"), person_scene(0, 0, size=(640, 320)).picture)
    (tmp_path / "w32.bundle").symlink_to(small_pose.bundle)
    # The small bundle has 14 joints, and an fp32 engine that every machine can run.
    code = python_block("PoseEstimator").replace("openvino:cpu/bf16", "openvino:cpu/fp32")
    assert run_python(code, tmp_path) == "(1, 14, 2) (1, 14)\n"


def commands() -> list[list[str]]:
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    lines = [line.partition("  #")[0] for line in text.splitlines() if line.startswith("scalenas-export ")]
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("words", commands(), ids=[words[0] for words in commands()])
def test_every_command_of_the_readme_parses(words: list[str]) -> None:
    command = application.app.get_command(Context(application.app), words[0])
    assert command is not None
    context = command.make_context(words[0], words[1:])
    assert context.params


def test_the_table_of_verbs_names_them_all() -> None:
    named = {
        word for cell in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE) for word in re.findall(r"`(\S+?)[ `]", cell)
    }
    assert set(application.VERBS) <= named


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_named_files_and_links_are_there(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    files = re.findall(r"`((?:scalenas|export|runtime|tests|benchmarks|docs|examples|tools|configs)/[\w./-]+)`", text)
    # Paths that name a place a user fills in, or one that a command makes.
    made = ("benchmarks/results",)
    for name in [*links, *files]:
        assert (ROOT / name).exists() or (page.parent / name).exists() or name.startswith(made), name
