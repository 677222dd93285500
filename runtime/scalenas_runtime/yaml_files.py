"""Reading YAML that people write: options, training configurations, descriptions of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scalenas_runtime.errors import UserError


def parse_yaml(text: str | bytes, *, what: str) -> Any:
    """Returns the value that a YAML text holds; only plain values, never objects.

    Raises:
        UserError: it is not YAML, or bytes that are no text; the error is one line and starts with `what`.
    """
    import yaml

    try:
        return yaml.safe_load(text.decode() if isinstance(text, bytes) else text)
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError) as error:
        # PyYAML's own constructors raise plain errors: for the date 2024-13-45, for `!!bool maybe`, for deep nesting.
        raise UserError(f"{what} is not YAML: {' '.join(str(error).split())}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the keys and values of a YAML file.

    Raises:
        UserError: it is not YAML, or holds something other than keys and values.
        OSError: it cannot be read.
    """
    value = parse_yaml(path.read_bytes(), what=str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold keys and values, got {type(value).__name__}")
    return value
