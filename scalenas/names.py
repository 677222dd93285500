"""Nets by name: what SPEC means on the command line, and the list of names that work."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from scalenas.registry import BUILT_IN, get_space, list_spaces, usable_spaces
from scalenas.space import SearchSpace, Settings
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

EXTREMES = ("max", "min")


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of all published nets that match a shell pattern such as `*w32*`, and `max` and `min`.

    Nets of families from other packages are called `family/name`; a family that cannot be loaded is left out. Besides
    these, `hrnet-wN` and `hrnet-wN-seg` resolve for any even N.
    """
    families, _ = usable_spaces()
    names = (full_name(space.name, name) for space in families for name in (*space.named(), *EXTREMES))
    return [name for name in names if fnmatchcase(name, pattern)]


def full_name(family: str, name: str) -> str:
    """Returns what `resolve_spec` takes for the net `name` of a family: `family/name` for one of another package."""
    return name if family in BUILT_IN else f"{family}/{name}"


def resolve_spec(
    text: str | Path,
    *,
    task: str | None = None,
    size: tuple[int, int] | None = None,
    joints: int | None = None,
    classes: int | None = None,
    width: int | None = None,
) -> SubnetSpec:
    """Returns the spec that a name or a spec file means, in canonical form.

    Args:
        text: A name (see `list_models`), or the path of a spec file: a `Path`, text that ends in `.json`, or text that
            is no name but an existing file.
        task: The task, where it is not the one the net was published for; its head is that task's default.
        size: Input height and width, multiples of 32, in place of the net's own.
        joints: Heatmaps of a pose net.
        classes: Classes of a segmentation net.
        width: Channels of the first branch, for `max` and `min` or to rescale an architecture.

    Raises:
        UserError: there is no such name (the text lists near ones) or file, or the result is not a valid spec.
        OSError: the file cannot be read.
    """
    given: dict[str, Json] = {"task": task, "width": width, "joints": joints, "classes": classes}
    settings = {key: value for key, value in given.items() if value is not None}
    if isinstance(text, Path) or text.endswith(".json"):
        return _from_file(Path(text), settings, size)
    for space, name in _candidates(text):
        found = space.named_spec(name, settings=settings, size=size)
        if found is not None:
            return found
    if Path(text).is_file():
        return _from_file(Path(text), settings, size)
    names = list_models()
    near = difflib.get_close_matches(text, names, n=4, cutoff=0.5) or names
    raise UserError(f"unknown net {text!r}; near: {', '.join(near)}; or give a spec file (SPEC.json)")


def _from_file(path: Path, settings: Settings, size: tuple[int, int] | None) -> SubnetSpec:
    if not path.exists():
        some = ", ".join(list_models()[:4])
        raise UserError(f"there is no spec file {path}; a net can also be named: {some}, ...")
    spec = SubnetSpec.read(path)
    return get_space(spec.space).adapt(spec, settings=settings, size=size)


def _candidates(text: str) -> Iterator[tuple[SearchSpace, str]]:
    family, slash, name = text.partition("/")
    if slash:
        if family in list_spaces():
            yield get_space(family), name
        return
    for family in BUILT_IN:
        yield get_space(family), text
