"""Backend names and the modules that hold them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import PurePosixPath

from scalenas_runtime.backends.base import Backend
from scalenas_runtime.errors import UserError

BACKENDS = {
    "onnxruntime": "scalenas_runtime.backends.onnxruntime",
    "openvino": "scalenas_runtime.backends.openvino",
}


def get_backend(name: str) -> Backend:
    """Returns the backend called `name`.

    Raises:
        UserError: there is no such backend; the text lists the known ones.
    """
    if name not in BACKENDS:
        raise UserError(f"unknown backend {name!r}; known: {', '.join(BACKENDS)}")
    backend = importlib.import_module(BACKENDS[name]).BACKEND
    assert isinstance(backend, Backend)
    return backend


def holds_machine_code(names: Iterable[str]) -> bool:
    """Returns whether one of these engine files is a native file of any backend; folders and case do not matter."""
    native = {file.casefold() for name in BACKENDS for file in get_backend(name).native_files}
    return any(PurePosixPath(name).name.casefold() in native for name in names)
