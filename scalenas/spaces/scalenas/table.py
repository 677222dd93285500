"""The cost of a spec by looking up its parts: costs are additive, so no graph is built."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

from scalenas.cost import Cost, Counting, blocks, total
from scalenas.operators import Shape
from scalenas.spaces.scalenas.plan import Depth, Fuse, Module, plan
from scalenas.spaces.scalenas.settings import ScaleNasSettings

# Parameters and MACs; plain tuples, since a cost adds some 150 of them.
_Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ModuleTable:
    """Costs in one module.

    Attributes:
        blocks: [branch][depth]: all blocks of the branch together.
        fusions: [destination][step][bits]: all fusions into the destination after that step together.
    """

    blocks: tuple[tuple[_Pair, ...], ...]
    fusions: tuple[tuple[dict[str, _Pair], ...], ...]


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs of all parts that the subnets of one supernet have, at one input size and under one counting.

    Attributes:
        fixed: Stem, stage 1, transitions and head.
        modules: Table of each module by name.
        nodes: Cost of every node of the supernet by name.
    """

    fixed: Cost
    modules: Mapping[str, ModuleTable]
    nodes: Mapping[str, Cost]

    def cost(self, genes: Mapping[str, tuple[Depth, Fuse]]) -> Cost:
        """Returns the cost of a net; dead blocks and fusions count as far as `genes` has them."""
        params, macs = self.fixed.params, self.fixed.macs
        for name, (depth, fuse) in genes.items():
            table = self.modules[name]
            for branch, own in enumerate(depth):
                pair = table.blocks[branch][own]
                params += pair[0]
                macs += pair[1]
                for costs, bits in zip(table.fusions[branch][:own], fuse[branch], strict=False):
                    pair = costs[bits]
                    params += pair[0]
                    macs += pair[1]
        return Cost(params, macs)


@functools.lru_cache(maxsize=64)
def cost_table(settings: ScaleNasSettings, image: Shape, counting: Counting) -> CostTable:
    """Returns the table for an image of shape (channels, height, width).

    It counts what genes say: for `counting.live` the caller looks up the live form.
    """
    whole = plan(settings)
    counted = replace(counting, live=False)
    records = blocks(whole.everything(), {"image": image}, counted)
    nodes = {**dict.fromkeys(whole.operators, Cost()), **{record.id: record.cost for record in records}}
    modules = {module.name: _module_table(module, nodes) for module in whole.modules}
    searched = {
        name
        for module in whole.modules
        for rows in (*module.blocks, *module.sums, *(names for rows in module.fusions for names in rows))
        for name in rows
    }
    fixed = total(cost for name, cost in nodes.items() if name not in searched)
    return CostTable(fixed, modules, nodes)


def _module_table(module: Module, nodes: Mapping[str, Cost]) -> ModuleTable:
    return ModuleTable(
        blocks=tuple(tuple(_pair(names[:depth], nodes) for depth in range(len(names) + 1)) for names in module.blocks),
        fusions=tuple(tuple(_by_bits(names, nodes) for names in rows) for rows in module.fusions),
    )


def _by_bits(names: tuple[str, ...], nodes: Mapping[str, Cost]) -> dict[str, _Pair]:
    patterns = ("".join(bits) for bits in product("01", repeat=len(names)))
    return {
        bits: _pair(tuple(name for name, bit in zip(names, bits, strict=True) if bit == "1"), nodes)
        for bits in patterns
    }


def _pair(names: tuple[str, ...], nodes: Mapping[str, Cost]) -> _Pair:
    cost = total(nodes[name] for name in names)
    return cost.params, cost.macs
