"""The supernet: one module that holds the weights of every subnet of its settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn

from scalenas.graph import Graph
from scalenas.layers import build, initialise
from scalenas.space import Inputs, SearchSpace, Settings
from scalenas.spec import SubnetSpec, plain
from scalenas_runtime.errors import UserError

# One step: (module path, names it reads, names that nothing reads afterwards).
_Step = tuple[str, tuple[str, ...], tuple[str, ...]]


class Supernet(nn.Module):
    """All modules of a family under one setting; a subnet is a spec given to each call, never a state.

    Sharing falls out of names: a node has one name in every subnet that keeps it, and a module has its node's name.
    The weights that a call does not use get no gradient (`grad` stays None), so give optimisers
    `zero_grad(set_to_none=True)`, torch's default, or idle weights would decay.

    Args:
        space: The family.
        settings: What is fixed for all subnets; missing keys take the family's defaults.
        inputs: Named input shapes, the family's default if None. They fix nothing: a call takes any size that the
            family's nets take.
        seed: Seed of the initial weights; see `scalenas.layers.initialise`.

    Raises:
        UserError: the settings are not the family's.
    """

    def __init__(
        self, space: SearchSpace, settings: Settings | None = None, inputs: Inputs | None = None, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.space = space
        self.settings = space.settings(settings)
        space.layers()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for node in space.supergraph(self.settings, inputs):
                add_at(self, node.name, build(node.operator))
        initialise(self, seed)
        # Looking a dotted path up for every operator of every call is what a small net would notice. The containers
        # are kept and not the modules, so that a module that is replaced is found.
        self._places = dict(_places(self, ""))

    def forward(self, inputs: Tensor | Mapping[str, Tensor], spec: SubnetSpec) -> Tensor | tuple[Tensor, ...]:
        """Returns what the subnet `spec` computes: one tensor, or a tuple where the family has several outputs.

        Args:
            inputs: Normalised pictures (B, 3, H, W), or tensors by input name where the family has several.
            spec: A spec of this supernet's family and settings; only what it keeps alive is computed.

        Raises:
            UserError: the spec has another family or other settings, or is invalid.
        """
        self.check(spec)
        graph, steps = _schedule(self.space, spec)
        values = _named_inputs(graph, inputs)
        for name, sources, finished in steps:
            container, key = self._places[name]
            values[name] = cast(nn.Module, container[key])(*[values[source] for source in sources])
            for source in finished:
                del values[source]
        outputs = tuple(values[name] for name in graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def check(self, spec: SubnetSpec) -> None:
        """Accepts specs of this supernet's family and settings.

        Raises:
            UserError: any other spec; the text names the settings that differ, with both values.
        """
        if spec.space != self.space.name:
            raise UserError(f"the supernet is of family {self.space.name}, the spec of {spec.space}")
        if plain(spec.settings) == self.settings:
            return
        difference = differing_settings(("supernet", self.settings), ("spec", _settings(self.space, spec)))
        if difference:
            raise UserError(f"the spec does not fit the supernet: {difference}")


def differing_settings(ours: tuple[str, Settings], theirs: tuple[str, Settings]) -> str:
    """Returns "width is 32 in the supernet, 48 in the spec" for all settings that differ, or an empty text.

    Args:
        ours: What the first settings belong to, in words, and the settings.
        theirs: The same for the second.
    """
    (our_name, here), (their_name, there) = ours, theirs
    return "; ".join(
        f"{key} is {_shown(here, key)} in the {our_name}, {_shown(there, key)} in the {their_name}"
        for key in sorted({*here, *there})
        if _shown(here, key) != _shown(there, key)
    )


def add_at(root: nn.Module, path: str, module: nn.Module) -> None:
    """Puts `module` at a dotted path under `root`, making plain containers on the way."""
    *parents, last = path.split(".")
    for name in parents:
        child = getattr(root, name, None)
        if child is None:
            child = nn.Module()
            root.add_module(name, child)
        root = child
    root.add_module(last, module)


def _places(module: nn.Module, prefix: str) -> Iterator[tuple[str, tuple[dict[str, nn.Module | None], str]]]:
    """Yields every path under a module with the container that holds it and its key there."""
    for key, child in module.named_children():
        path = f"{prefix}{key}"
        yield path, (module._modules, key)
        yield from _places(child, f"{path}.")


@lru_cache(maxsize=256)
def _schedule(space: SearchSpace, spec: SubnetSpec) -> tuple[Graph, tuple[_Step, ...]]:
    graph = space.graph(spec).live()
    last_reader = {source: node.name for node in graph for source in node.inputs}
    kept = set(graph.outputs)
    steps = tuple(
        (
            node.name,
            node.inputs,
            tuple(
                source
                for source in dict.fromkeys(node.inputs)
                if last_reader[source] == node.name and source not in kept
            ),
        )
        for node in graph
    )
    return graph, steps


@lru_cache(maxsize=256)
def _settings(space: SearchSpace, spec: SubnetSpec) -> Settings:
    return space.settings(spec.settings)


def _named_inputs(graph: Graph, inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {graph.inputs[0]: inputs} if isinstance(inputs, Tensor) else dict(inputs)
    if set(named) != set(graph.inputs):
        raise UserError(f"the net takes the inputs {', '.join(graph.inputs)}, got {', '.join(named)}")
    return named


def _shown(settings: Settings, key: str) -> str:
    return json.dumps(settings[key], default=dict, sort_keys=True) if key in settings else "absent"
