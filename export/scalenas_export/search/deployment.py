"""What a candidate's choices of deployment mean: precision of the engine, size of the input."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scalenas_export.recipes import spec_recipe
from scalenas_runtime.errors import UserError
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import Recipe

if TYPE_CHECKING:
    from scalenas.space import SearchSpace
    from scalenas.spec import SubnetSpec

PRECISION, SIZE = "precision", "size"


@dataclass(frozen=True, slots=True)
class Deployed:
    """A subnet as it is deployed: its spec and recipe at one input size."""

    spec: SubnetSpec
    recipe: Recipe


def deployments(choices: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Returns every combination of the choices, the first values first; one without any is empty."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def deployed(space: SearchSpace, recipe: Recipe, spec: SubnetSpec, choices: Mapping[str, str]) -> Deployed:
    """Returns spec and recipe at the chosen input size, the spec's own where size is no choice.

    Raises:
        UserError: the size is not of the form HEIGHTxWIDTH, or not one the family takes.
    """
    spec = deployed_spec(space, spec, choices)
    return Deployed(spec, spec_recipe(spec, given=recipe))


def deployed_spec(space: SearchSpace, spec: SubnetSpec, choices: Mapping[str, str]) -> SubnetSpec:
    """Returns the spec at the chosen input size, itself where size is no choice.

    Raises:
        UserError: as `deployed`.
    """
    return space.adapt(spec, settings={}, size=parse_size(choices[SIZE])) if SIZE in choices else spec


def chosen_config(config: EngineConfig, choices: Mapping[str, str]) -> EngineConfig:
    """Returns the engine config at the chosen precision, the target's own where precision is no choice."""
    if PRECISION not in choices:
        return config
    return replace(config, target=replace(config.target, precision=choices[PRECISION]))


def parse_size(text: str) -> tuple[int, int]:
    """Returns height and width of a text such as `128x96`.

    Raises:
        UserError: the text has another form.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise UserError(f"size {text!r} is not of the form HEIGHTxWIDTH, such as 128x96")
    return int(found[1]), int(found[2])
