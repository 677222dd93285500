"""Which subnets a step trains: a function of (seed, step) alone, so that all processes and all sittings agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalenas.genes import UNIFORM, Group
from scalenas.space import Inputs, SearchSpace, Settings
from scalenas.spec import SubnetSpec
from scalenas.training.config import SamplingConfig


@dataclass(frozen=True)
class Sampling:
    """Draws the subnets of each step of a supernet's training.

    Attributes:
        space: The family.
        settings: Settings of the supernet.
        inputs: Its inputs.
        config: The rule.
        seed: Seed of the run.
    """

    space: SearchSpace
    settings: Settings
    inputs: Inputs
    config: SamplingConfig
    seed: int

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that steps go through in turn (Cheng et al., AutoML 2022; released code for the cycle)."""
        if self.config.rule == "cycle":
            return self.space.cycle(self.settings)
        if self.config.rule == "groups":
            return tuple(self.space.groups(self.settings).values()) or (UNIFORM,)
        return (UNIFORM,)

    @property
    def passes(self) -> int:
        """Subnets a step."""
        return 2 + self.config.random if self.config.rule == "sandwich" else 1

    def specs(self, step: int) -> tuple[SubnetSpec, ...]:
        """Returns the subnets of a step, in the order in which they are trained."""
        groups = self.groups
        rng = np.random.default_rng([self.seed, step])

        def draw() -> SubnetSpec:
            group = groups[step % len(groups)]
            return self.space.sample(rng, settings=self.settings, inputs=self.inputs, group=group)

        if self.config.rule != "sandwich":
            return (draw(),)
        # Yu & Huang, ICCV 2019: the largest, the smallest, and random ones between.
        ends = (self.space.max(self.settings, self.inputs), self.space.min(self.settings, self.inputs))
        return (*ends, *(draw() for _ in range(self.config.random)))
