"""Who may import what: the runtime without any engine or torch, the command line without anything heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scalenas_runtime

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "scalenas",
    "scalenas_export",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "safetensors",
)

BLOCK = """
import importlib, importlib.abc, json, pkgutil, sys, traceback

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
"""


def run(code: str) -> str:
    """Returns what a fresh Python prints; its import path holds no more than that of an installed package."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd="/", env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    """Returns the top-level packages that are loaded after `code`."""
    names = run(f"{code}\nimport json, sys; print()\nprint(json.dumps(sorted(sys.modules)))").splitlines()[-1]
    return {name.split(".")[0] for name in json.loads(names)}


def test_every_module_of_the_runtime_imports_without_torch_and_engines() -> None:
    code = BLOCK.format(heavy=HEAVY) + (
        "import scalenas_runtime\n"
        "failed = {}\n"
        "names = [m.name for m in pkgutil.walk_packages(scalenas_runtime.__path__, 'scalenas_runtime.')]\n"
        "for name in names:\n"
        "    if name.endswith('__main__'):\n"
        "        continue\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError:\n"
        "        failed[name] = traceback.format_exc(limit=-2)\n"
        "print(json.dumps([names, failed]))"
    )
    names, failed = json.loads(run(code))
    assert not failed, "\n".join(failed.values())
    folder = ROOT / "runtime" / "scalenas_runtime"
    files = {path for path in folder.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")}
    assert len(files) <= len(names)
    assert {"scalenas_runtime.kernels", "scalenas_runtime.backends.openvino"} <= set(names)


def test_blocking_works() -> None:
    code = BLOCK.format(heavy=HEAVY) + "try:\n    import onnxruntime\nexcept ImportError as error:\n    print(error)"
    assert run(code).strip() == "onnxruntime is blocked"


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    loaded = loaded_by("import scalenas_runtime")
    assert not loaded & {*HEAVY, "cv2", "numpy", "yaml", "msgspec"}


@pytest.mark.parametrize("name", ["Target", "UserError", "EngineConfig"])
def test_small_names_stay_small(name: str) -> None:
    assert not loaded_by(f"from scalenas_runtime import {name}") & {*HEAVY, "cv2", "numpy"}


@pytest.mark.parametrize("module", ["spec", "space", "graph", "operators", "cost", "registry", "names"])
def test_specs_and_spaces_are_free_of_torch(module: str) -> None:
    assert not loaded_by(f"import scalenas.{module}") & {"torch", "safetensors", "onnx", "scalenas_export"}


def test_every_name_of_the_menu_is_there() -> None:
    assert scalenas_runtime.__all__ == sorted(scalenas_runtime.__all__)
    for name in scalenas_runtime.__all__:
        assert getattr(scalenas_runtime, name).__name__ == name
    assert set(scalenas_runtime.__all__) <= set(dir(scalenas_runtime))


def test_a_name_that_is_not_on_the_menu_is_refused_with_the_menu() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'PoseEstimater'; it offers Bundle, .*PoseEstimator"):
        scalenas_runtime.PoseEstimater  # noqa: B018


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_the_command_line_answers_without_anything_heavy(arguments: list[str]) -> None:
    code = f"from scalenas_export.cli.app import run; run({arguments!r})"
    assert not loaded_by(code) & ({*HEAVY, "cv2", "numpy", "yaml", "msgspec", "tqdm"} - {"scalenas_export"})
