"""Families by name: the built-in one, and those that other packages register as entry points `scalenas.spaces`."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points

from scalenas.space import SearchSpace, unknown
from scalenas_runtime.errors import UserError

GROUP = "scalenas.spaces"
BUILT_IN = {"scalenas": "scalenas.spaces.scalenas"}


def list_spaces() -> list[str]:
    """Returns the names of all families, built-in ones first; none is imported."""
    return list(dict.fromkeys([*BUILT_IN, *sorted(_entry_points())]))


def get_space(name: str) -> SearchSpace:
    """Returns the family called `name`; a built-in family goes before an entry point of the same name.

    Raises:
        UserError: there is no such family (the text lists the known ones), or its package cannot be imported or
            gives no `SearchSpace`.
    """
    if name in BUILT_IN:
        found = importlib.import_module(BUILT_IN[name]).SPACE
    else:
        points = _entry_points()
        if name not in points:
            raise unknown("family", name, list_spaces())
        try:
            found = points[name].load()
        except Exception as error:
            # Whatever another package's code raises: its name belongs beside it.
            raise UserError(f"family {name!r} ({points[name].value}) cannot be loaded: {error}") from error
    if not isinstance(found, SearchSpace):
        raise UserError(f"family {name!r} must be a scalenas.space.SearchSpace instance, got {found!r}")
    if found.name != name:
        raise UserError(f"family {name!r} calls itself {found.name!r}; its `name` must be that of its entry point")
    return found


def usable_spaces() -> tuple[list[SearchSpace], list[str]]:
    """Returns all families that can be loaded, built-in ones first, and a line about each of the others."""
    found, broken = [], []
    for name in list_spaces():
        try:
            found.append(get_space(name))
        except UserError as error:
            if name in BUILT_IN:
                raise
            broken.append(str(error))
    return found, broken


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
