"""`SearchSpace`: what a family offers, and all that search, export and the command line may know of it."""

from __future__ import annotations

import difflib
import functools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from scalenas.cost import PUBLISHED, BlockRecord, Cost, Counting, graph_cost
from scalenas.cost import blocks as graph_blocks
from scalenas.genes import UNIFORM, Gene, Group, Sampler, Scalar, Values, check_probability, crossed, mutated
from scalenas.graph import Graph, merge
from scalenas.layout import Layout, layered
from scalenas.operators import Shape
from scalenas.spec import FrozenMap, SubnetSpec, plain
from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas.importing import Importer
    from scalenas.static import StaticNet
    from scalenas.supernet import Supernet

Settings = Mapping[str, Json]
Inputs = Mapping[str, Sequence[int | str]]


class SearchSpace(ABC):
    """A family of nets: settings, genes, and how a spec becomes a graph.

    A family gives `name`, `defaults`, `gene_table` and `build`, and `layers` if it has operators of its own; everything
    else has a default that is derived from them. `scalenas.testing.check_space` is the contract suite that every family
    passes.

    Attributes:
        name: Name of the family, the `space` of its specs.
        title: One line about the family.
        tasks: Tasks its nets are for; the setting `task` is one of them.
        defaults: Every setting with its default value; `task` need not be among them.
        image: Default input (channels, height, width).
        size_step: Heights and widths are multiples of this.
        rates: Probability of a change in `mutate` by kind of gene, where it is not the call's `probability`.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    tasks: ClassVar[tuple[str, ...]] = ("pose", "segmentation")
    defaults: ClassVar[Settings] = {}
    image: ClassVar[tuple[int, int, int]] = (3, 256, 256)
    size_step: ClassVar[int] = 32
    rates: ClassVar[Mapping[str, float]] = {}

    def layers(self) -> None:  # noqa: B027 - most families need none
        """Imports the module in which the family's own operators get their torch layers and ONNX emitters.

        It is called before a net is built, so that a family itself need not import torch.
        """

    @abstractmethod
    def gene_table(self, settings: Settings) -> tuple[Gene, ...]:
        """Returns all genes of the family under complete `settings`, in the order of `read_genes`."""

    @abstractmethod
    def build(self, spec: SubnetSpec) -> Graph:
        """Returns the graph of a normalised spec, dead compute included; `graph` is what callers use."""

    def settings(self, settings: Settings | None = None) -> dict[str, Json]:
        """Returns all settings in canonical form: those given, and defaults for the others.

        Raises:
            UserError: a setting is unknown or has a value of the wrong type.
        """
        defaults = {"task": self.tasks[0], **self.defaults}
        given = {} if settings is None else dict(settings)
        for key, value in given.items():
            if key not in defaults:
                raise unknown(f"setting of {self.name}", key, defaults)
            if type(plain(value)) is not type(plain(defaults[key])):
                raise UserError(f"setting {key} of {self.name} is {value!r}; needed is a value like {defaults[key]!r}")
        complete = plain({**defaults, **given})
        assert isinstance(complete, dict)
        if complete["task"] not in self.tasks:
            raise UserError(f"setting task is {complete['task']!r}; {self.name} has {', '.join(self.tasks)}")
        return complete

    def default_inputs(self, settings: Settings) -> dict[str, tuple[int | str, ...]]:
        """Returns the inputs that specs under complete `settings` have when none are given."""
        return {"image": self.image}

    def inputs(self, settings: Settings, inputs: Inputs | None = None) -> dict[str, tuple[int | str, ...]]:
        """Returns the inputs in canonical form, the defaults when none are given.

        Raises:
            UserError: a name is unknown or missing, the channels differ, or a size is no multiple of `size_step`.
        """
        expected = self.default_inputs(settings)
        if inputs is None:
            return expected
        if set(inputs) != set(expected):
            raise UserError(f"inputs are {', '.join(inputs) or 'none'}; {self.name} takes {', '.join(expected)}")
        return {name: self._checked_shape(name, inputs[name], expected[name]) for name in expected}

    def read_genes(self, settings: Settings, genes: Mapping[str, Json]) -> list[Scalar]:
        """Returns the gene values of a spec in the table's order.

        Raises:
            UserError: a gene is unknown, missing, or has a value that is not allowed; the gene is named.
        """
        table = self.gene_table(settings)
        names = [gene.name for gene in table]
        for name in genes:
            if name not in names:
                raise unknown("gene", name, names)
        for name in names:
            if name not in genes:
                raise UserError(f"gene {name} is missing")
        return [gene.check(genes[gene.name]) for gene in table]

    def write_genes(self, settings: Settings, values: Values) -> dict[str, Json]:
        """Returns gene values in the form of a spec, canonical: choices without meaning take one fixed value."""
        return {gene.name: value for gene, value in zip(self.gene_table(settings), values, strict=True)}

    def make(self, values: Values, *, settings: Settings | None = None, inputs: Inputs | None = None) -> SubnetSpec:
        """Returns the spec with these gene values, in the table's order."""
        complete = self.settings(settings)
        shapes = self.inputs(complete, inputs)
        return SubnetSpec(self.name, complete, shapes, self.write_genes(complete, values))

    def normalise(self, spec: SubnetSpec) -> SubnetSpec:
        """Returns `spec` in canonical form: settings complete, choices without meaning at their fixed value.

        Raises:
            UserError: as `validate`.
        """
        settings, values = self._read(spec)
        return self.make(values, settings=settings, inputs=spec.inputs)

    def validate(self, spec: SubnetSpec) -> None:
        """Accepts a spec of this family whose settings, inputs and genes are allowed.

        Raises:
            UserError: anything else; the text names the gene, setting or input, the value seen and what would work.
        """
        settings, _ = self._read(spec)
        self.inputs(settings, spec.inputs)

    def sample(
        self,
        rng: np.random.Generator,
        *,
        settings: Settings | None = None,
        inputs: Inputs | None = None,
        group: str | Group | None = None,
    ) -> SubnetSpec:
        """Returns a random spec.

        Args:
            rng: Where the randomness comes from; the same state gives the same spec.
            settings: Settings that are not the default.
            inputs: Input shapes, the family's default if None.
            group: A group or its name (see `group`), None for uniform choices.
        """
        frame = _frame(self, _text(settings), _text(inputs), group)
        genes = self.write_genes(frame.settings, frame.sampler.draw(rng))
        return SubnetSpec(self.name, frame.settings, frame.inputs, genes)

    def mutate(
        self,
        spec: SubnetSpec,
        rng: np.random.Generator,
        *,
        probability: float = 0.2,
        rates: Mapping[str, float] | None = None,
    ) -> SubnetSpec:
        """Returns a new spec where every gene took another of its choices with a probability.

        Args:
            spec: The parent, left as it is.
            rng: Where the randomness comes from.
            probability: For kinds of genes that neither `rates` nor the family's own `rates` name.
            rates: Probability by kind of gene; goes before the family's own.
        """
        check_probability("probability", probability)
        settings, values = self._read(spec)
        table = self.gene_table(settings)
        known = {**self.rates, **(rates or {})}
        for kind, rate in known.items():
            check_probability(f"rate of {kind}", rate)
            if kind not in {gene.kind for gene in table}:
                raise unknown("kind of gene", kind, {gene.kind for gene in table})
        per_gene = np.array([known.get(gene.kind, probability) for gene in table])
        changed = mutated(table, values, rng, rates=per_gene)
        return self.make(changed, settings=settings, inputs=spec.inputs)

    def crossover(
        self, a: SubnetSpec, b: SubnetSpec, rng: np.random.Generator, *, probability: float = 0.25
    ) -> SubnetSpec:
        """Returns a new spec: `a`, with each group of genes (a module) taken from `b` with `probability`.

        Raises:
            UserError: the parents have different settings.
        """
        check_probability("probability", probability)
        settings, values = self._read(a)
        others, other_values = self._read(b)
        if canonical_json(settings) != canonical_json(others):
            different = [key for key in settings if settings[key] != others.get(key)]
            raise UserError(f"parents of a crossover need the same settings; {', '.join(different)} differ")
        table = self.gene_table(settings)
        child = crossed(table, (values, other_values), rng, probability=probability)
        return self.make(child, settings=settings, inputs=a.inputs)

    def live(self, spec: SubnetSpec) -> SubnetSpec:
        """Returns the spec without dead compute: specs that compute the same way have the same live form."""
        return self.normalise(spec)

    def max(self, settings: Settings | None = None, inputs: Inputs | None = None) -> SubnetSpec:
        """Returns the largest subnet: the last choice of every gene."""
        table = self.gene_table(self.settings(settings))
        return self.make([gene.choices[-1] for gene in table], settings=settings, inputs=inputs)

    def min(self, settings: Settings | None = None, inputs: Inputs | None = None) -> SubnetSpec:
        """Returns the smallest subnet: the first choice of every gene."""
        table = self.gene_table(self.settings(settings))
        return self.make([gene.choices[0] for gene in table], settings=settings, inputs=inputs)

    def groups(self, settings: Settings | None = None) -> dict[str, Group]:
        """Returns the groups that training samples from in turn, by name."""
        return {}

    def cycle(self, settings: Settings | None = None) -> tuple[Group, ...]:
        """Returns the groups in the order in which training visits them, one a step."""
        return tuple(self.groups(settings).values()) or (UNIFORM,)

    def group(self, name: str, settings: Settings | None = None) -> Group:
        """Returns the group called `name`: one of `groups`, of `cycle`, or `uniform`.

        Raises:
            UserError: there is no such group; the text lists the known ones.
        """
        known = {group.name: group for group in (UNIFORM, *self.groups(settings).values(), *self.cycle(settings))}
        if name not in known:
            raise unknown("group", name, known)
        return known[name]

    def log10_size(self, settings: Settings | None = None) -> float:
        """Returns the decimal logarithm of the number of distinct canonical specs under `settings`."""
        return sum(math.log10(len(gene.choices)) for gene in self.gene_table(self.settings(settings)))

    def size_formula(self, settings: Settings | None = None) -> str:
        """Returns how `log10_size` counts, in words or as a formula."""
        return "product over genes of the number of choices"

    def graph(self, spec: SubnetSpec) -> Graph:
        """Returns the net of `spec` as published, with dead compute; `graph(spec).live()` is what is built."""
        return self.build(self.normalise(spec))

    def supergraph(self, settings: Settings | None = None, inputs: Inputs | None = None) -> Graph:
        """Returns a graph with every node that any spec under `settings` has: what a supernet holds.

        The default merges the largest and smallest subnet and, for every choice of every gene, the largest subnet
        with that one choice. A family whose nodes need two particular choices at once gives its own.
        """
        table = self.gene_table(self.settings(settings))
        largest: list[Scalar] = [gene.choices[-1] for gene in table]
        variants = [
            [*largest[:row], choice, *largest[row + 1 :]]
            for row, gene in enumerate(table)
            for choice in gene.choices[:-1]
        ]
        specs = [self.make(values, settings=settings, inputs=inputs) for values in (largest, *variants)]
        return merge(self.graph(spec) for spec in [*specs, self.min(settings, inputs)])

    def cost(self, spec: SubnetSpec, workload: Inputs | None = None, *, counting: Counting = PUBLISHED) -> Cost:
        """Returns parameters and MACs of `spec` for one picture.

        Args:
            spec: A spec of this family.
            workload: Input shapes to count for, in place of the spec's own.
            counting: What counts; the published convention by default.

        Raises:
            UserError: the spec is not valid, or a size is symbolic and no workload says how large it is.
        """
        graph = self.graph(self.live(spec) if counting.live else spec)
        return graph_cost(graph, self.shapes(spec, workload), counting)

    def blocks(
        self, spec: SubnetSpec, workload: Inputs | None = None, *, counting: Counting = PUBLISHED
    ) -> tuple[BlockRecord, ...]:
        """Returns one record per node that counts: id, kind, shapes, parameters, MACs; they add up to `cost`."""
        return graph_blocks(self.graph(spec), self.shapes(spec, workload), counting)

    def shapes(self, spec: SubnetSpec, workload: Inputs | None = None) -> dict[str, Shape]:
        """Returns the input shapes (channels, height, width) as numbers, those of `workload` if given.

        Raises:
            UserError: a size is symbolic.
        """
        settings = self.settings(spec.settings)
        result: dict[str, Shape] = {}
        for name, shape in self.inputs(settings, workload or spec.inputs).items():
            symbols = [size for size in shape if isinstance(size, str)]
            if symbols:
                raise UserError(f"size {symbols[0]!r} of input {name!r} is symbolic; give a workload with numbers")
            channels, height, width = (int(size) for size in shape)
            result[name] = (channels, height, width)
        return result

    def named(self) -> dict[str, SubnetSpec]:
        """Returns the published architectures of the family by name, at their published input size."""
        return {}

    def named_spec(self, name: str, *, settings: Settings, size: tuple[int, int] | None = None) -> SubnetSpec | None:
        """Returns the architecture called `name`, or None if the family has none of that name.

        Args:
            name: One of `named`, `max`, `min`, or what the family understands besides.
            settings: Settings to change.
            size: Height and width of the input, the published one if None.
        """
        if name in ("max", "min"):
            return self.adapt(self.max(settings) if name == "max" else self.min(settings), settings={}, size=size)
        spec = self.named().get(name)
        return None if spec is None else self.adapt(spec, settings=settings, size=size)

    def pattern(
        self, settings: Settings | None = None, size: tuple[int, int] | None = None
    ) -> tuple[str, SubnetSpec] | None:
        """Returns the well-known net that the family grew from, under any settings, with its name; None without one.

        Args:
            settings: Settings that are not the default.
            size: Height and width of the input, the family's default if None.
        """
        return None

    def members(self, settings: Settings | None = None, size: tuple[int, int] | None = None) -> dict[str, SubnetSpec]:
        """Returns the nets that every search measures first, by name: the well-known one, others of its kind, `min`.

        Args:
            settings: Settings that are not the default.
            size: Height and width of the input, the family's default if None.
        """
        known = self.pattern(settings, size)
        smallest = {"min": self.adapt(self.min(settings), settings={}, size=size)}
        return {**({} if known is None else dict([known])), **smallest}

    def adapt(self, spec: SubnetSpec, *, settings: Settings, size: tuple[int, int] | None = None) -> SubnetSpec:
        """Returns `spec` with some settings and the input size changed, in canonical form.

        Raises:
            UserError: the result is not valid.
        """
        inputs = dict(spec.inputs)
        if size is not None:
            inputs = {name: (*shape[:-2], *size) for name, shape in inputs.items()}
        return self.normalise(SubnetSpec(self.name, {**spec.settings, **settings}, inputs, spec.genes))

    def summary(self, spec: SubnetSpec) -> str:
        """Returns the choices of `spec` in one line for people."""
        return canonical_json(self.normalise(spec).to_json()["genes"])

    def layout(self, spec: SubnetSpec) -> Layout:
        """Returns where the nodes of `spec` stand in a drawing."""
        return layered(self.graph(spec))

    def importers(self) -> Mapping[str, Importer]:
        """Returns how public checkpoints map into this family, by recipe name."""
        return {}

    def supernet(self, settings: Settings | None = None, inputs: Inputs | None = None) -> Supernet:
        """Returns a supernet that shares weights between all subnets under `settings`. Needs torch."""
        from scalenas.supernet import Supernet

        shapes = None if inputs is None else self.inputs(self.settings(settings), inputs)
        return Supernet(self, self.settings(settings), inputs=shapes)

    def static(self, spec: SubnetSpec) -> StaticNet:
        """Returns a static net of `spec` with fresh weights. Needs torch."""
        from scalenas.static import static_net

        return static_net(spec, space=self)

    def _read(self, spec: SubnetSpec) -> tuple[dict[str, Json], list[Scalar]]:
        if spec.space != self.name:
            raise UserError(f"the spec is of family {spec.space!r}, not {self.name!r}")
        settings = self.settings(spec.settings)
        return settings, self.read_genes(settings, spec.genes)

    def _checked_shape(
        self, name: str, shape: Sequence[int | str], expected: Sequence[int | str]
    ) -> tuple[int | str, ...]:
        if len(shape) != len(expected) or shape[0] != expected[0]:
            raise UserError(f"input {name!r} is {list(shape)}; {self.name} takes [{expected[0]}, height, width]")
        for size in shape[1:]:
            if isinstance(size, bool) or not isinstance(size, int | str):
                raise UserError(f"input {name!r} is {list(shape)}; sizes are whole numbers or names")
            if isinstance(size, int) and (size < 1 or size % self.size_step):
                near = max(1, round(size / self.size_step)) * self.size_step
                text = "x".join(str(value) for value in shape[1:])
                raise UserError(
                    f"input size {text} (height x width): {size} is not a positive multiple of "
                    f"{self.size_step}; {near} would work"
                )
        return tuple(shape)


def unknown(what: str, name: str, known: Sequence[str] | Mapping[str, object] | set[str]) -> UserError:
    """Returns the error for a name that is not known; it lists the nearest names, or all if there are few."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.7)
    shown = names if len(names) <= 12 else near or [*names[:8], "..."]
    hint = f" (did you mean {near[0]!r}?)" if near and len(names) <= 12 else ""
    return UserError(f"unknown {what} {name!r}{hint}; known: {', '.join(shown)}")


@dataclass(frozen=True, slots=True)
class _Frame:
    settings: FrozenMap
    inputs: dict[str, tuple[int | str, ...]]
    sampler: Sampler


def _text(value: Mapping[str, object] | None) -> str | None:
    return None if value is None else canonical_json(plain(FrozenMap(value)))


@functools.lru_cache(maxsize=256)
def _frame(space: SearchSpace, settings: str | None, inputs: str | None, group: str | Group | None) -> _Frame:
    # What all draws from one supernet and group share; a search draws many thousands.
    complete = space.settings(None if settings is None else json.loads(settings))
    shapes = space.inputs(complete, None if inputs is None else json.loads(inputs))
    if not isinstance(group, Group):
        group = UNIFORM if group is None else space.group(group, complete)
    return _Frame(FrozenMap(complete), shapes, Sampler(space.gene_table(complete), group))
