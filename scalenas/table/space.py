"""`TableSpace`: ScaleNAS with one depth and one fusion pattern per stage, small enough to measure every member."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from scalenas.cost import PUBLISHED, Cost, Counting
from scalenas.genes import Gene, Group, Scalar
from scalenas.graph import Graph
from scalenas.layout import Layout
from scalenas.space import Inputs, SearchSpace, Settings
from scalenas.spaces.scalenas import SPACE as SCALENAS
from scalenas.spaces.scalenas.plan import Module, plan
from scalenas.spaces.scalenas.settings import ScaleNasSettings
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json

# Each pattern holds the fusions of the one before it, except that `up` and `down` do not hold each other's.
PATTERNS = ("last", "up", "down", "all")
FUSE_ODDS = (0.2, 0.5, 0.8)
STAGES = (2, 3, 4)


class TableSpace(SearchSpace):
    """ScaleNAS in five genes: the depth of all branches per stage, and the fusion pattern of stages 3 and 4.

    The patterns: all fusions after the last step alone (`last`, HRNet's own), besides those also the ones from coarse
    to fine (`up`) or from fine to coarse (`down`) after every step, or all of them (`all`). Stage 2, with two branches
    and one module, keeps `last`. With depths 2 to 5 that makes 1,024 nets, no two of which compute the same.
    Settings, inputs and nets are those of the family `scalenas`; `expand` gives a member in that family's own terms.
    """

    name = "scalenas-table"
    title = "ScaleNAS with one depth and one fusion pattern per stage: 1,024 nets"
    rates: ClassVar[Mapping[str, float]] = {}

    def settings(self, settings: Settings | None = None) -> dict[str, Json]:
        """Returns all settings in canonical form: those of the family `scalenas`."""
        return SCALENAS.settings(settings)

    def default_inputs(self, settings: Settings) -> dict[str, tuple[int | str, ...]]:
        """Returns the inputs of the family `scalenas`."""
        return SCALENAS.default_inputs(settings)

    def gene_table(self, settings: Settings) -> tuple[Gene, ...]:
        """Returns per stage its depth and, from stage 3 on, its fusion pattern."""
        depths = ScaleNasSettings.from_json(settings).depths
        genes: list[Gene] = []
        for stage in STAGES:
            group = f"stage{stage}"
            genes.append(Gene(f"{group}.depth", depths, group=group, kind="depth"))
            if stage > STAGES[0]:
                genes.append(Gene(f"{group}.fusion", PATTERNS, group=group, kind="fuse"))
        return tuple(genes)

    def expand(self, spec: SubnetSpec) -> SubnetSpec:
        """Returns the same net as a spec of the family `scalenas`, canonical.

        Raises:
            UserError: the spec is not a valid one of this family.
        """
        normal = self.normalise(spec)
        genes: dict[str, Json] = {}
        for module in plan(ScaleNasSettings.from_json(normal.settings)).modules:
            depth = normal.genes[f"stage{module.stage}.depth"]
            assert isinstance(depth, int)
            pattern = str(normal.genes.get(f"stage{module.stage}.fusion", PATTERNS[0]))
            genes[module.name] = _entry(module, depth, pattern)
        return SCALENAS.normalise(SubnetSpec(SCALENAS.name, normal.settings, normal.inputs, genes))

    def specs(self, settings: Settings | None = None, inputs: Inputs | None = None) -> Iterator[SubnetSpec]:
        """Yields every spec under `settings` once, in the order of `index`."""
        complete = self.settings(settings)
        for values in itertools.product(*(gene.choices for gene in self.gene_table(complete))):
            yield self.make(values, settings=complete, inputs=inputs)

    def size(self, settings: Settings | None = None) -> int:
        """Returns the number of specs under `settings`."""
        return math.prod(len(gene.choices) for gene in self.gene_table(self.settings(settings)))

    def index(self, spec: SubnetSpec) -> int:
        """Returns the place of a spec among `specs`.

        Raises:
            UserError: the spec is not a valid one of this family.
        """
        table = self.gene_table(self.settings(spec.settings))
        place = 0
        for gene, value in zip(table, self.read_genes(spec.settings, spec.genes), strict=True):
            place = place * len(gene.choices) + gene.choices.index(value)
        return place

    def build(self, spec: SubnetSpec) -> Graph:
        """Returns the graph of a normalised spec."""
        return SCALENAS.graph(self.expand(spec))

    def supergraph(self, settings: Settings | None = None, inputs: Inputs | None = None) -> Graph:
        """Returns the graph of the family `scalenas`, so that its supernets serve this space too."""
        return SCALENAS.supergraph(settings, inputs)

    def cost(self, spec: SubnetSpec, workload: Inputs | None = None, *, counting: Counting = PUBLISHED) -> Cost:
        """Returns parameters and MACs; see `SearchSpace.cost`."""
        return SCALENAS.cost(self.expand(spec), workload, counting=counting)

    def groups(self, settings: Settings | None = None) -> dict[str, Group]:
        """Returns the groups of the family `scalenas`: neighbouring depths x odds of a fusion direction."""
        found = (
            _group(pairs, odds) for odds in FUSE_ODDS for pairs in _pairs(ScaleNasSettings.from_json(settings or {}))
        )
        return {group.name: group for group in found}

    def pattern(
        self, settings: Settings | None = None, size: tuple[int, int] | None = None
    ) -> tuple[str, SubnetSpec] | None:
        """Returns HRNet's pattern, depth 4 and `last` in every stage; None without depth 4."""
        known = SCALENAS.pattern(settings, size)
        if known is None:
            return None
        name, whole = known
        genes = {gene.name: 4 if gene.kind == "depth" else PATTERNS[0] for gene in self.gene_table(whole.settings)}
        return name, SubnetSpec(self.name, whole.settings, whole.inputs, genes)

    def summary(self, spec: SubnetSpec) -> str:
        """Returns the genes in one line: `depths 4 4 3, fusions last up`."""
        genes = self.normalise(spec).genes
        depths = " ".join(str(genes[f"stage{stage}.depth"]) for stage in STAGES)
        return f"depths {depths}, fusions {' '.join(str(genes[f'stage{stage}.fusion']) for stage in STAGES[1:])}"

    def layout(self, spec: SubnetSpec) -> Layout:
        """Returns the drawing of the family `scalenas`."""
        return SCALENAS.layout(self.expand(spec))


def _entry(module: Module, depth: int, pattern: str) -> Json:
    rows = [[_bits(module, branch, pattern)] * (depth - 1) for branch in range(module.branches)]
    last = "1" * (module.branches - 1)
    # Steps that no branch of this depth reaches are zeros, as `normalise` would make them.
    steps = [[*row, last, *["0" * len(last)] * _missing(module, depth)] for row in rows]
    return {"depth": [depth] * module.branches, "fuse": steps}


def _missing(module: Module, depth: int) -> int:
    return len(module.blocks[0]) - depth


def _bits(module: Module, branch: int, pattern: str) -> str:
    """Returns which sources a branch reads after a step that is not the last."""
    up, down = pattern in ("up", "all"), pattern in ("down", "all")
    return "".join("1" if (up if source > branch else down) else "0" for source in module.sources[branch])


def _pairs(settings: ScaleNasSettings) -> Sequence[tuple[int, ...]]:
    depths = settings.depths
    return list(itertools.pairwise(depths)) if len(depths) > 1 else [depths]


def _group(depths: tuple[int, ...], odds: float) -> Group:
    """Returns a group that draws the two directions of fusion apart from each other, each with the same odds."""
    one = odds * (1 - odds)
    patterns: tuple[tuple[Scalar, float], ...] = (
        ("last", (1 - odds) ** 2), ("up", one), ("down", one), ("all", odds**2),
    )  # fmt: skip
    weights: tuple[tuple[Scalar, float], ...] = tuple((depth, 1.0) for depth in depths)
    return Group(f"depth{'-'.join(map(str, depths))}_fuse{odds:g}", (("depth", weights), ("fuse", patterns)))


SPACE = TableSpace()
