"""The packages that exporting needs, asked for before anything is done."""

from __future__ import annotations

from importlib.util import find_spec

from scalenas_runtime.errors import missing_extra

NEEDED = ("torch", "safetensors", "onnx", "onnxscript", "onnxsim")


def need_export_extra() -> None:
    """Accepts an install that can export.

    Raises:
        MissingExtra: a package of the extra `export` is not installed; the text carries the pip line.
    """
    for package in NEEDED:
        if find_spec(package) is None:
            raise missing_extra(package, "export")


def need_search_extras() -> None:
    """Accepts an install that can search and export what was found.

    Raises:
        MissingExtra: a package of the extras `search` and `export` is not installed; the text carries the pip line.
    """
    need_export_extra()
    for package in ("optuna", "rich"):
        if find_spec(package) is None:
            raise missing_extra(package, "search")
