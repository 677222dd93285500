"""Names of files inside a bundle: relative, with forward slashes, never leading out of it."""

from __future__ import annotations

import re

from scalenas_runtime.errors import UserError

MAX_NAME = 255
# No backslash, colon (drive letters, NTFS streams), quotes, wildcards or control characters: such names
# mean another file, or none, on some system.
_PART = re.compile(r"[^\\/:*?\"<>|\x00-\x1f\x7f]+")


def check_name(name: str, *, what: str) -> str:
    """Returns `name` if it is a safe path inside a bundle, such as `golden/inputs.npy`.

    Raises:
        UserError: the path is absolute, leads upwards, or would mean something else on another system.
    """
    parts = name.split("/")
    safe = all(_PART.fullmatch(part) and part not in (".", "..") and part[-1] not in ". " for part in parts)
    if not safe or len(name) > MAX_NAME:
        raise UserError(
            f"{what}: path {name!r} leads out of the bundle or is not portable; use names like golden/a.npy"
        )
    return name
