"""Random search: the floor that every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scalenas.search.samplers.base import Context, Proposal, Sampler
from scalenas.search.samplers.variation import check_switch, draw_choices
from scalenas_runtime.canonical import Json


@dataclass(frozen=True, slots=True)
class RandomSampler(Sampler):
    """Draws every candidate anew.

    Attributes:
        stratified: Visit the family's groups in turn, so that small and large nets are as frequent as middling ones;
            otherwise, or in a family without groups, every gene is drawn uniformly.

    Raises:
        UserError: `stratified` is no truth value.
    """

    name: ClassVar[str] = "random"

    stratified: bool = True

    def __post_init__(self) -> None:
        check_switch(stratified=self.stratified)

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal:
        """Returns a random candidate."""
        groups = list(context.space.groups(context.settings).values()) if self.stratified else []
        group = groups[context.number % len(groups)] if groups else None
        spec = context.space.sample(rng, settings=context.settings, inputs=context.inputs, group=group)
        return Proposal(spec, draw_choices(context, rng), "random")

    def options(self) -> dict[str, Json]:
        """Returns the options."""
        return {"stratified": self.stratified}
