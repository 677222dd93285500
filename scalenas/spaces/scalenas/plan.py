"""Every name, operator and edge that the nets of one supernet can have, and how genes choose among them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scalenas.genes import Gene
from scalenas.graph import Graph, Node
from scalenas.operators import (
    AddReLU,
    BasicBlock,
    Bottleneck,
    ConvBN,
    FuseDown,
    FuseUp,
    Operator,
    PoseHead,
    SegmentationHead,
)
from scalenas.spaces.scalenas.settings import ScaleNasSettings

STEM_CHANNELS = 64
STAGE1_CHANNELS = 256

# Genes of one module: blocks per branch, and bits[destination][step] over the other branches, ascending.
Depth = Sequence[int]
Fuse = Sequence[Sequence[str]]
Edge = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Module:
    """One searchable module: its names, and which names its nodes have.

    Attributes:
        name: `stage3.1`: stage, then the 0-based number in the stage.
        stage: 2, 3 or 4.
        index: 0-based number in the stage.
        branches: Branches, as many as the stage's number.
        forced: True for the last module of a pose net, whose last fusions are fixed (only branch 0 leaves it).
        sources: The other branches of each destination, ascending.
        blocks: Node names [branch][step].
        fusions: Node names [destination][step][index into sources].
        sums: Node names [destination][step].
    """

    name: str
    stage: int
    index: int
    branches: int
    forced: bool
    sources: tuple[tuple[int, ...], ...]
    blocks: tuple[tuple[str, ...], ...]
    fusions: tuple[tuple[tuple[str, ...], ...], ...]
    sums: tuple[tuple[str, ...], ...]

    def edges(self, depth: Depth, fuse: Fuse, tensors: list[str]) -> Iterator[Edge]:
        """Yields (name, names it reads) of the module's nodes in order, and brings `tensors` to its outputs.

        Args:
            depth: Blocks per branch.
            fuse: Bits [destination][step], canonical.
            tensors: Name of each branch's tensor; changed in place.
        """
        for step in range(max(depth)):
            for branch in range(self.branches):
                if step < depth[branch]:
                    name = self.blocks[branch][step]
                    yield name, (tensors[branch],)
                    tensors[branch] = name
            # All fusions of a step read what the blocks gave, so the sums are kept apart until the step ends.
            after = list(tensors)
            for branch in range(self.branches):
                bits = fuse[branch][step]
                if "1" not in bits:
                    # Every tensor here has been through a ReLU, and a second one changes nothing.
                    continue
                terms = [tensors[branch]]
                chosen = zip(self.sources[branch], self.fusions[branch][step], bits, strict=True)
                for source, name, bit in chosen:
                    if bit == "1":
                        yield name, (tensors[source],)
                        terms.append(name)
                after[branch] = self.sums[branch][step]
                yield after[branch], tuple(terms)
            tensors[:] = after


@dataclass(frozen=True, slots=True)
class Plan:
    """The skeleton of one supernet.

    Attributes:
        settings: The settings.
        modules: Searchable modules in order.
        operators: Operator of every node that any subnet can have, by name.
        genes: Gene table: per module its depths, then its fusion bits by destination, step and source.
    """

    settings: ScaleNasSettings
    modules: tuple[Module, ...]
    operators: Mapping[str, Operator]
    genes: tuple[Gene, ...]

    def edges(self, genes: Mapping[str, tuple[Depth, Fuse]]) -> list[Edge]:
        """Returns (name, names it reads) of every node of a net in topological order; the last one is the head.

        Args:
            genes: Depths and canonical fusion bits of each module by name.
        """
        edges: list[Edge] = []
        last = "image"
        for name in _stem(self.settings):
            edges.append((name, (last,)))
            last = name
        tensors = [last]
        for module in self.modules:
            if module.index == 0:
                first, source = (0 if module.stage == 2 else module.stage - 1), tensors[-1]
                tensors[first:] = [
                    f"transition{module.stage - 1}.branch{branch}" for branch in range(first, module.branches)
                ]
                edges.extend((name, (source,)) for name in tensors[first:])
            depth, fuse = genes[module.name]
            edges.extend(module.edges(depth, fuse, tensors))
        outputs = tensors if self.settings.head_upsample else tensors[:1]
        edges.append(("head", tuple(outputs)))
        return edges

    def graph(self, genes: Mapping[str, tuple[Depth, Fuse]]) -> Graph:
        """Returns the graph of a net; see `edges`."""
        nodes = tuple(Node(name, self.operators[name], inputs) for name, inputs in self.edges(genes))
        return Graph(("image",), nodes, ("head",))

    def everything(self) -> Graph:
        """Returns the graph with all blocks and all fusions, also those that the pose rule never lets a net use."""
        steps = self.settings.steps
        return self.graph(
            {
                module.name: (
                    [steps] * module.branches,
                    [["1" * (module.branches - 1)] * steps] * module.branches,
                )
                for module in self.modules
            }
        )


@functools.lru_cache(maxsize=64)
def plan(settings: ScaleNasSettings) -> Plan:
    """Returns the skeleton of the supernet with these settings."""
    modules = tuple(
        _module(settings, stage, index)
        for stage, count in enumerate(settings.modules, start=2)
        for index in range(count)
    )
    genes = tuple(gene for module in modules for gene in _genes(settings, module))
    return Plan(settings, modules, dict(_operators(settings, modules)), genes)


def gene_path(module: str, kind: str, *indices: int) -> str:
    """Returns how errors and tables call a gene: `stage3.1.depth[2]`, `stage3.1.fuse[0][3]`."""
    return f"{module}.{kind}" + "".join(f"[{index}]" for index in indices)


def _module(settings: ScaleNasSettings, stage: int, index: int) -> Module:
    name, branches, steps = f"stage{stage}.{index}", stage, range(settings.steps)
    sources = tuple(tuple(k for k in range(branches) if k != i) for i in range(branches))
    return Module(
        name=name,
        stage=stage,
        index=index,
        branches=branches,
        forced=settings.task == "pose" and stage == 4 and index == settings.modules[-1] - 1,
        sources=sources,
        blocks=tuple(tuple(f"{name}.branch{i}.block{t}" for t in steps) for i in range(branches)),
        fusions=tuple(
            tuple(tuple(f"{name}.step{t}.branch{i}_from_branch{k}" for k in sources[i]) for t in steps)
            for i in range(branches)
        ),
        sums=tuple(tuple(f"{name}.step{t}.branch{i}.sum" for t in steps) for i in range(branches)),
    )


def _genes(settings: ScaleNasSettings, module: Module) -> Iterator[Gene]:
    for branch in range(module.branches):
        name = gene_path(module.name, "depth", branch)
        yield Gene(name, settings.depths, group=module.name, kind="depth")
    for branch in range(module.branches):
        for step in range(settings.steps):
            for index in range(module.branches - 1):
                name = gene_path(module.name, "fuse", branch, step, index)
                yield Gene(name, ("0", "1"), group=module.name, kind="fuse")


def _stem(settings: ScaleNasSettings) -> list[str]:
    return ["stem.conv1", "stem.conv2", *(f"stage1.block{index}" for index in range(settings.stage1_blocks))]


def _operators(settings: ScaleNasSettings, modules: Sequence[Module]) -> Iterator[tuple[str, Operator]]:
    width = settings.width
    yield "stem.conv1", ConvBN(3, STEM_CHANNELS, stride=2)
    yield "stem.conv2", ConvBN(STEM_CHANNELS, STEM_CHANNELS, stride=2)
    for index, name in enumerate(_stem(settings)[2:]):
        channels = STAGE1_CHANNELS if index else STEM_CHANNELS
        yield name, Bottleneck(channels, STEM_CHANNELS, STAGE1_CHANNELS)
    yield "transition1.branch0", ConvBN(STAGE1_CHANNELS, width)
    yield "transition1.branch1", ConvBN(STAGE1_CHANNELS, 2 * width, stride=2)
    yield "transition2.branch2", ConvBN(2 * width, 4 * width, stride=2)
    yield "transition3.branch3", ConvBN(4 * width, 8 * width, stride=2)
    for module in modules:
        for branch in range(module.branches):
            for step in range(settings.steps):
                yield module.blocks[branch][step], BasicBlock(width << branch)
                names = module.fusions[branch][step]
                for source, name in zip(module.sources[branch], names, strict=True):
                    yield name, _fusion(settings, source, branch)
                yield module.sums[branch][step], AddReLU()
    yield "head", _head(settings)


def _fusion(settings: ScaleNasSettings, source: int, destination: int) -> Operator:
    channels = settings.width << source, settings.width << destination
    if source < destination:
        return FuseDown(*channels, steps=destination - source)
    upsample = settings.fuse_upsample
    return FuseUp(*channels, 1 << (source - destination), upsample.mode, upsample.align_corners)


def _head(settings: ScaleNasSettings) -> Operator:
    if settings.head_upsample is None:
        return PoseHead(settings.width, settings.outputs)
    channels = tuple(settings.width << branch for branch in range(4))
    upsample = settings.head_upsample
    return SegmentationHead(channels, settings.outputs, upsample.mode, upsample.align_corners)
