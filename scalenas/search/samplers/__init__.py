"""Ways to choose candidates, by name: built-in ones, and entry points `scalenas.samplers` of other packages."""

from __future__ import annotations

import dataclasses
import importlib
from importlib.metadata import EntryPoint, entry_points

from scalenas.search.samplers.base import Context, Proposal, Sampler
from scalenas.space import unknown
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

__all__ = ["Context", "Proposal", "Sampler", "get_sampler", "list_samplers"]

GROUP = "scalenas.samplers"
BUILT_IN = {
    "topology": "scalenas.search.samplers.topology:TopologySampler",
    "aging": "scalenas.search.samplers.aging:AgingSampler",
    "random": "scalenas.search.samplers.random:RandomSampler",
    "nsga2": "scalenas.search.samplers.nsga2:Nsga2Sampler",
}


def list_samplers() -> list[str]:
    """Returns the names of all samplers, built-in ones first; none is imported."""
    return list(dict.fromkeys([*BUILT_IN, *sorted(_entry_points())]))


def get_sampler(name: str, **options: Json) -> Sampler:
    """Returns the sampler called `name`; a built-in one goes before an entry point of the same name.

    Args:
        name: One of `list_samplers`.
        options: What the sampler's class takes; its default where an option is left out.

    Raises:
        UserError: there is no such sampler, it cannot be imported, or an option is unknown or out of range.
    """
    kind = _load(name)
    known = [entry.name for entry in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else None
    for option in options:
        if known is not None and option not in known:
            raise unknown(f"option of sampler {name}", option, known)
    try:
        made = kind(**options)
    except TypeError as error:
        raise UserError(f"sampler {name!r} does not take these options: {error}") from None
    if not isinstance(made, Sampler):
        raise UserError(f"sampler {name!r} must be a scalenas.search.samplers.base.Sampler, got {made!r}")
    return made


def _load(name: str) -> type:
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: object = getattr(importlib.import_module(module), attribute)
    else:
        points = _entry_points()
        if name not in points:
            raise unknown("sampler", name, list_samplers())
        try:
            found = points[name].load()
        except Exception as error:
            # Whatever another package's code raises: its name belongs beside it.
            raise UserError(f"sampler {name!r} ({points[name].value}) cannot be loaded: {error}") from error
    if not isinstance(found, type):
        raise UserError(f"sampler {name!r} must be a class, got {found!r}")
    own = getattr(found, "name", None)
    if own != name:
        raise UserError(f"sampler {name!r} calls itself {own!r}; its `name` must be that of its entry point")
    return found


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
