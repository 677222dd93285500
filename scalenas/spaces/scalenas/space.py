"""The ScaleNAS family behind the contract of `SearchSpace`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from scalenas.cost import PUBLISHED, Cost, Counting
from scalenas.genes import Gene, Group, Scalar, Values
from scalenas.graph import Graph, reaching
from scalenas.layout import Layout
from scalenas.space import Inputs, SearchSpace, Settings
from scalenas.spaces.scalenas import drawing, encoding
from scalenas.spaces.scalenas.plan import Depth, Fuse, Module, Plan, plan
from scalenas.spaces.scalenas.published import find, published
from scalenas.spaces.scalenas.settings import ScaleNasSettings
from scalenas.spaces.scalenas.table import cost_table
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas.importing import Importer

FUSE_ODDS = (0.2, 0.5, 0.8)
HRNET_DEPTH = 4
SIZES = {"pose": (256, 192), "segmentation": (1024, 2048)}


class ScaleNasSpace(SearchSpace):
    """HRNet's skeleton with an elastic depth per branch and module, and one bit per cross-scale fusion and step.

    HRNet itself is the member of depth 4 whose fusions are all on, after the fourth step only.
    """

    name = "scalenas"
    title = "HRNet with elastic depths and fusions per branch and module (ScaleNAS)"
    # The paper mutates fusions alone.
    rates: ClassVar[Mapping[str, float]] = {"depth": 0.0}

    def settings(self, settings: Settings | None = None) -> dict[str, Json]:
        """Returns all settings in canonical form; see `ScaleNasSettings`."""
        return _parsed(settings).to_json()

    def default_inputs(self, settings: Settings) -> dict[str, tuple[int | str, ...]]:
        """Returns one image: 256x192 for pose, 1024x2048 for segmentation."""
        return {"image": (3, *SIZES[_parsed(settings).task])}

    def gene_table(self, settings: Settings) -> tuple[Gene, ...]:
        """Returns per module its depths, then its fusion bits by destination, step and source."""
        return _plan(settings).genes

    def read_genes(self, settings: Settings, genes: Mapping[str, Json]) -> list[Scalar]:
        """Returns depths and bits of a spec in the table's order."""
        return encoding.read(_plan(settings), genes)

    def write_genes(self, settings: Settings, values: Values) -> dict[str, Json]:
        """Returns one entry per module: `depth` [branch], `fuse` [destination][step]; see `encoding.write`."""
        return encoding.write(_plan(settings), values)

    def build(self, spec: SubnetSpec) -> Graph:
        """Returns the graph of a normalised spec."""
        return _plan(spec.settings).graph(encoding.typed(spec.genes))

    def supergraph(self, settings: Settings | None = None, inputs: Inputs | None = None) -> Graph:
        """Returns the graph of all blocks and all fusions, also those that the pose rule never lets a net use."""
        return _plan(settings).everything()

    def live(self, spec: SubnetSpec) -> SubnetSpec:
        """Returns the spec without blocks and fusions that reach no output.

        A branch with fewer live blocks than the smallest allowed depth that holds them keeps that depth; the graph's
        own liveness drops the rest.
        """
        normal = self.normalise(spec)
        whole, genes = _plan(normal.settings), encoding.typed(normal.genes)
        alive = reaching(reversed(whole.edges(genes)), ["head"])
        kept: dict[str, Json] = {
            module.name: _live_entry(whole, module, genes[module.name], alive) for module in whole.modules
        }
        return SubnetSpec(self.name, normal.settings, normal.inputs, kept)

    def cost(self, spec: SubnetSpec, workload: Inputs | None = None, *, counting: Counting = PUBLISHED) -> Cost:
        """Returns parameters and MACs by table; see `SearchSpace.cost`."""
        counted = self.live(spec) if counting.live else self.normalise(spec)
        shape = self.shapes(counted, workload)["image"]
        table = cost_table(_parsed(counted.settings), shape, counting)
        return table.cost(encoding.typed(counted.genes))

    def groups(self, settings: Settings | None = None) -> dict[str, Group]:
        """Returns the paper's groups: pairs of neighbouring depths x odds of a fusion; nine for depths 2 to 5."""
        groups = [_group(depths, odds) for odds in FUSE_ODDS for depths in _depth_pairs(settings)]
        return {group.name: group for group in groups}

    def cycle(self, settings: Settings | None = None) -> tuple[Group, ...]:
        """Returns the slots of the released code: `smallest`, then the groups once round from the second, `largest`.

        The smallest slot still draws each fusion with probability 0.1.
        """
        depths = _parsed(settings).depths
        groups = list(self.groups(settings).values())
        smallest = replace(_group(depths[:1], 0.1), name="smallest")
        largest = replace(_group(depths[-1:], 1.0), name="largest")
        return (smallest, *groups[1:], groups[0], largest)

    def log10_size(self, settings: Settings | None = None) -> float:
        """Returns the decimal logarithm of the number of distinct canonical specs."""
        parsed = _parsed(settings)
        count = 1
        for module in plan(parsed).modules:
            # The forced last step of a pose net's last module leaves one step less to choose.
            free = [depth - module.forced for depth in parsed.depths]
            count *= sum(2 ** ((module.branches - 1) * steps) for steps in free) ** module.branches
        return math.log10(count)

    def size_formula(self, settings: Settings | None = None) -> str:
        """Returns how `log10_size` counts."""
        exponent = "product over modules of (sum over depths d of 2^((B-1) d))^B, B branches"
        return exponent + ("; d-1 in the last module" if _parsed(settings).task == "pose" else "")

    def named(self) -> dict[str, SubnetSpec]:
        """Returns the published HRNets and ScaleNets, as published."""
        specs = [
            (name, net.spec(width))
            for net in published()
            for name, width in zip(net.names(), net.widths or (None,), strict=True)
        ]
        return {name: self.normalise(spec) for name, spec in specs}

    def named_spec(self, name: str, *, settings: Settings, size: tuple[int, int] | None = None) -> SubnetSpec | None:
        """Returns a published net, `max` or `min`; `hrnet-wN` and `hrnet-wN-seg` take any even number.

        Raises:
            UserError: `settings` give a width other than the one in the name, or are not valid.
        """
        found = find(name)
        if found is None:
            return super().named_spec(name, settings=settings, size=size)
        if found.width is not None and settings.get("width", found.width) != found.width:
            better = found.net.name.replace("{width}", str(settings["width"]))
            raise UserError(f"{name} has width {found.width}, not {settings['width']!r}; use {better}")
        spec = found.spec()
        task = settings.get("task")
        if any(settings.get(key, spec.settings.get(key)) != spec.settings.get(key) for key in ("modules", "depths")):
            own = {"task": spec.settings["task"], "width": found.width}
            same = self.pattern({**own, **settings}, size) if found.width is not None else None
            if same is not None:
                return same[1]
        sibling = found.net.siblings.get(task) if isinstance(task, str) else None
        if sibling is not None:
            return self.named_spec(sibling.replace("{width}", str(found.width)), settings=settings, size=size)
        return self.adapt(spec, settings=settings, size=size)

    def pattern(
        self, settings: Settings | None = None, size: tuple[int, int] | None = None
    ) -> tuple[str, SubnetSpec] | None:
        """Returns HRNet's pattern: depth 4 everywhere, all fusions after the fourth step; None without depth 4."""
        parsed = _parsed(settings)
        if HRNET_DEPTH not in parsed.depths:
            return None
        name = f"hrnet-w{parsed.width}{'-seg' if parsed.task == 'segmentation' else ''}"
        return name, self._uniform(parsed, HRNET_DEPTH, size)

    def members(self, settings: Settings | None = None, size: tuple[int, int] | None = None) -> dict[str, SubnetSpec]:
        """Returns HRNet's pattern, its like at the other depths (`depth-3`: all fusions after step 3), and `min`."""
        parsed = _parsed(settings)
        found = self.pattern(settings, size)
        others = {
            f"depth-{depth}": self._uniform(parsed, depth, size) for depth in parsed.depths if depth != HRNET_DEPTH
        }
        smallest = super().adapt(self.min(settings), settings={}, size=size)
        return {**({} if found is None else dict([found])), **others, "min": smallest}

    def adapt(self, spec: SubnetSpec, *, settings: Settings, size: tuple[int, int] | None = None) -> SubnetSpec:
        """Returns `spec` with some settings and the input size changed; see `SearchSpace.adapt`.

        A change of task keeps the topology and takes that task's default head and input.
        """
        task = settings.get("task")
        if task is None or task == _parsed(spec.settings).task:
            return super().adapt(spec, settings=settings, size=size)
        shared = ("width", "modules", "stage1_blocks", "depths", "fuse_upsample")
        kept = {key: spec.settings[key] for key in shared if key in spec.settings}
        changed = self.settings({**kept, **settings})
        other = SubnetSpec(self.name, changed, self.default_inputs(changed), spec.genes)
        return super().adapt(other, settings={}, size=size)

    def summary(self, spec: SubnetSpec) -> str:
        """Returns the depths of all branches and the numbers of blocks and fusions, as the papers' tables do."""
        normal = self.normalise(spec)
        return drawing.summary(_plan(normal.settings), encoding.typed(normal.genes))

    def layout(self, spec: SubnetSpec) -> Layout:
        """Returns the drawing of a net: a row per branch, time from left to right, fusions between the rows."""
        return drawing.layout(_plan(spec.settings), self.graph(spec))

    def importers(self) -> Mapping[str, Importer]:
        """Returns how public HRNet checkpoints map into this family, by recipe name. Needs torch."""
        from scalenas.spaces.scalenas.importers import IMPORTERS

        return IMPORTERS

    def _uniform(self, parsed: ScaleNasSettings, depth: int, size: tuple[int, int] | None) -> SubnetSpec:
        """Returns the net with one depth everywhere and all fusions after its last step."""
        genes: dict[str, Json] = {}
        for module in plan(parsed).modules:
            steps = [("1" if step == depth - 1 else "0") * (module.branches - 1) for step in range(parsed.steps)]
            genes[module.name] = {"depth": [depth] * module.branches, "fuse": [steps] * module.branches}
        complete = parsed.to_json()
        spec = SubnetSpec(self.name, complete, self.default_inputs(complete), genes)
        return super().adapt(spec, settings={}, size=size)


def _parsed(settings: Settings | None) -> ScaleNasSettings:
    return ScaleNasSettings.from_json(settings or {})


def _plan(settings: Settings | None) -> Plan:
    return plan(_parsed(settings))


def _depth_pairs(settings: Settings | None) -> list[tuple[int, ...]]:
    depths = _parsed(settings).depths
    return list(pairwise(depths)) if len(depths) > 1 else [depths]


def _group(depths: tuple[int, ...], odds: float) -> Group:
    name = f"depth{'-'.join(map(str, depths))}_fuse{odds:g}"
    return Group(
        name,
        (
            ("depth", tuple((depth, 1.0) for depth in depths)),
            ("fuse", (("0", 1.0 - odds), ("1", odds))),
        ),
    )


def _live_entry(whole: Plan, module: Module, genes: tuple[Depth, Fuse], alive: set[str]) -> Json:
    _, fuse = genes
    depths: list[int] = []
    for names in module.blocks:
        used = sum(name in alive for name in names)
        depths.append(next(depth for depth in whole.settings.depths if depth >= used))
    kept = [
        [
            "".join("1" if bit == "1" and name in alive else "0" for name, bit in zip(names, bits, strict=True))
            for names, bits in zip(module.fusions[branch], rows, strict=True)
        ]
        for branch, rows in enumerate(fuse)
    ]
    return {"depth": depths, "fuse": kept}


SPACE = ScaleNasSpace()
