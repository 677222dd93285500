"""Which nets a table is made of: every member of the table's space, and random ones of the whole space."""

from __future__ import annotations

import numpy as np

from scalenas.space import Settings
from scalenas.spaces.scalenas import SPACE as SCALENAS
from scalenas.spec import SubnetSpec
from scalenas.table.space import SPACE as TABLE


def members(settings: Settings, size: tuple[int, int]) -> list[SubnetSpec]:
    """Returns every member of the table's space as a spec of the family `scalenas`, in the order of `TableSpace.index`.

    Args:
        settings: Settings of the supernet.
        size: Height and width of the input.
    """
    inputs = {"image": (3, *size)}
    return [TABLE.expand(spec) for spec in TABLE.specs(settings, inputs)]


def others(settings: Settings, size: tuple[int, int], count: int, *, seed: int = 0) -> list[SubnetSpec]:
    """Returns distinct random specs of the whole space in their live form, drawn from its groups in turn.

    The first `n` of them do not depend on `count`.

    Args:
        settings: Settings of the supernet.
        size: Height and width of the input.
        count: How many.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    groups = list(SCALENAS.groups(settings))
    inputs = {"image": (3, *size)}
    found: dict[str, SubnetSpec] = {}
    while len(found) < count:
        group = groups[len(found) % len(groups)]
        spec = SCALENAS.live(SCALENAS.sample(rng, settings=settings, inputs=inputs, group=group))
        found.setdefault(spec.digest, spec)
    return list(found.values())
