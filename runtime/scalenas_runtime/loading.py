"""What loading a bundle into a wrapper means for every task: the right kind of bundle, and a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import Recipe

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle

R = TypeVar("R", bound=Recipe)

WRAPPERS = {"pose": "PoseEstimator", "segmentation": "Segmenter"}


def open_for(kind: type[R], bundle: str | Path | Bundle, *, trust: bool) -> tuple[Bundle, R]:
    """Returns the opened bundle and its recipe, which is of the wanted kind.

    Raises:
        UserError: not a bundle, or one of another task; the text names the wrapper that takes it.
    """
    from scalenas_runtime.bundle import Bundle

    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle), trust=trust)
    recipe = opened.recipe
    if not isinstance(recipe, kind):
        wanted, found = (item.__struct_config__.tag for item in (kind, type(recipe)))
        raise UserError(f"{opened.path} is a bundle for {found}, not {wanted}; load it with {WRAPPERS[str(found)]}")
    return opened, recipe


def default_target(bundle: Bundle) -> str:
    """Returns the first target that the bundle has an engine for that fits this machine.

    Raises:
        UserError: it has none; the text names the command that builds one.
    """
    targets = bundle.targets()
    if not targets:
        raise UserError(
            f"{bundle.path} has no engine that fits here; name a target, for example onnxruntime:cpu/fp32, "
            f"and build it with: scalenas-export build {bundle.path} --target onnxruntime:cpu/fp32"
        )
    return targets[0]
