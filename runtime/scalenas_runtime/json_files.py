"""Reading of JSON files that other programs wrote."""

from __future__ import annotations

import json
from pathlib import Path

from scalenas_runtime.errors import UserError


def read_json(path: Path) -> object:
    """Returns the parsed file.

    Raises:
        UserError: no such file, one that cannot be read, or not JSON.
    """
    try:
        value: object = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    return value
