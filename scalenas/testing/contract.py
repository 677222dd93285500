"""What every family must keep, without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from scalenas.cost import LIVE, PUBLISHED, graph_cost, total
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec, plain
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError


@dataclass(frozen=True, slots=True)
class Case:
    """A family under some settings.

    Attributes:
        space: The family.
        settings: Settings that are not the default.
        count: How many random specs each check draws.
        seed: Of the draws.
    """

    space: SearchSpace
    settings: Mapping[str, Json] = field(default_factory=dict)
    count: int = 20
    seed: int = 0

    def specs(self) -> list[SubnetSpec]:
        """Returns the largest and the smallest subnet and `count` random ones."""
        rng = np.random.default_rng(self.seed)
        drawn = [self.space.sample(rng, settings=self.settings) for _ in range(self.count)]
        return [self.space.max(self.settings), self.space.min(self.settings), *drawn]


def check_space(case: Case) -> None:
    """Runs all of `SPACE_CHECKS`.

    Raises:
        AssertionError: a check does not hold; the text says which and for which spec.
    """
    for check in SPACE_CHECKS:
        check(case)


def gene_table_is_sound(case: Case) -> None:
    """Names are distinct, and every gene has distinct choices."""
    genes = case.space.gene_table(case.space.settings(case.settings))
    expect(len(genes) > 0, "the gene table is empty")
    expect(len({gene.name for gene in genes}) == len(genes), "two genes have one name")
    for gene in genes:
        expect(len(set(gene.choices)) == len(gene.choices) > 0, f"choices of {gene.name}: {gene.choices}")
    size = case.space.log10_size(case.settings)
    expect(math.isfinite(size) and size >= 0, f"log10_size is {size}")


def specs_are_canonical_and_round_trip(case: Case) -> None:
    """Samples are valid and canonical, survive JSON, and depend on the seed alone."""
    space = case.space
    for spec in case.specs():
        space.validate(spec)
        expect(space.normalise(spec) == spec, f"a sample is not canonical: {spec}")
        again = SubnetSpec.from_json(json.loads(json.dumps(spec.to_json())))
        expect(again == spec and again.digest == spec.digest, f"JSON changes {spec}")
    expect(case.specs() == case.specs(), "the same seed gives other specs")


def wrong_specs_are_refused(case: Case) -> None:
    """Unknown genes, settings, families and inputs, and a gene value that is none of the choices, are errors."""
    spec = case.space.max(case.settings)
    genes, settings = dict(spec.genes), dict(spec.settings)
    name = next(iter(genes))
    wrong = {
        "unknown gene": SubnetSpec(spec.space, settings, spec.inputs, {**genes, "no such gene": 1}),
        "missing gene": SubnetSpec(spec.space, settings, spec.inputs, {k: v for k, v in genes.items() if k != name}),
        "wrong gene value": SubnetSpec(spec.space, settings, spec.inputs, {**genes, name: "no such choice"}),
        "unknown setting": SubnetSpec(spec.space, {**settings, "no such setting": 1}, spec.inputs, genes),
        "other family": SubnetSpec("no such family", settings, spec.inputs, genes),
        "unknown input": SubnetSpec(spec.space, settings, {"no such input": (3, 64, 64)}, genes),
    }
    for what, bad in wrong.items():
        try:
            case.space.validate(bad)
        except UserError:
            continue
        raise AssertionError(f"validate accepts a spec with: {what}")


def variation_keeps_specs_valid(case: Case) -> None:
    """Mutation and crossover give canonical specs, leave parents as they are, and do nothing with probability 0."""
    space, rng = case.space, np.random.default_rng(case.seed)
    specs = case.specs()
    before = [spec.digest for spec in specs]
    kinds = {gene.kind for gene in space.gene_table(space.settings(case.settings))}
    for first, second in zip(specs, reversed(specs), strict=True):
        still = space.mutate(first, rng, probability=0.0, rates=dict.fromkeys(kinds, 0.0))
        expect(still == first, f"mutation with probability 0 changes {first}")
        expect(space.crossover(first, second, rng, probability=0.0) == first, "crossover 0 is not the first parent")
        expect(space.crossover(first, second, rng, probability=1.0) == second, "crossover 1 is not the second parent")
        for child in (space.mutate(first, rng), space.crossover(first, second, rng)):
            expect(space.normalise(child) == child, f"a child is not canonical: {child}")
    expect([spec.digest for spec in specs] == before, "variation changed a parent")


def live_form_computes_the_same(case: Case) -> None:
    """The live form is canonical, is its own live form, and has the same live graph."""
    for spec in case.specs():
        live = case.space.live(spec)
        expect(case.space.normalise(live) == live, f"the live form of {spec} is not canonical")
        expect(case.space.live(live) == live, f"the live form of {spec} has another live form")
        same = case.space.graph(live).live() == case.space.graph(spec).live()
        expect(same, f"the live form of {spec} computes something else")


def supergraph_holds_every_node(case: Case) -> None:
    """Each node of each subnet is in the supergraph, with the same operator."""
    whole = {node.name: node.operator for node in case.space.supergraph(case.settings)}
    for spec in case.specs():
        for node in case.space.graph(spec):
            expect(whole.get(node.name) == node.operator, f"node {node.name} of {spec} is not in the supergraph")


def cost_is_that_of_the_graph(case: Case) -> None:
    """Cost equals the sum over the graph's operators and over `blocks`, published and live."""
    for spec in case.specs():
        graph, shapes = case.space.graph(spec), case.space.shapes(spec)
        for counting in (PUBLISHED, LIVE):
            cost = case.space.cost(spec, counting=counting)
            expect(cost == graph_cost(graph, shapes, counting), f"cost of {spec} is not that of its graph")
            records = case.space.blocks(spec, counting=counting)
            expect(cost == total(record.cost for record in records), f"blocks of {spec} do not add up to its cost")


def groups_can_be_sampled(case: Case) -> None:
    """Every group and every slot of the cycle gives valid specs, by name and as an object."""
    space, rng = case.space, np.random.default_rng(case.seed)
    for group in (*space.groups(case.settings).values(), *space.cycle(case.settings)):
        space.validate(space.sample(rng, settings=case.settings, group=group))
        space.validate(space.sample(rng, settings=case.settings, group=group.name))


def layout_shows_every_node(case: Case) -> None:
    """A drawing has each input and node once, no two at one position and kind, and edges between them."""
    for spec in case.specs()[:4]:
        graph, layout = case.space.graph(spec), case.space.layout(spec)
        names = [place.id for place in layout.places]
        expect(len(set(names)) == len(names), f"the drawing of {spec} has a node twice")
        expect(set(names) == {*graph.inputs, *(node.name for node in graph)}, f"the drawing of {spec} lacks nodes")
        expected = {(source, node.name) for node in graph for source in node.inputs}
        expect(set(layout.edges) == expected, f"the edges of the drawing of {spec} are not the graph's")


def named_nets_are_valid(case: Case) -> None:
    """Published architectures are canonical and can be had by name."""
    for name, spec in case.space.named().items():
        expect(case.space.normalise(spec) == spec, f"{name} is not canonical")
        found = case.space.named_spec(name, settings={})
        expect(found == spec, f"{name} by name is not {name}")
    largest = case.space.named_spec("max", settings=case.settings)
    expect(largest is not None and plain(largest.genes) == plain(case.space.max(case.settings).genes), "max by name")


def expect(condition: bool, text: str) -> None:
    """Accepts a true condition.

    Raises:
        AssertionError: the condition is false.
    """
    if not condition:
        raise AssertionError(text)


SPACE_CHECKS: tuple[Callable[[Case], None], ...] = (
    gene_table_is_sound,
    specs_are_canonical_and_round_trip,
    wrong_specs_are_refused,
    variation_keeps_specs_valid,
    live_form_computes_the_same,
    supergraph_holds_every_node,
    cost_is_that_of_the_graph,
    groups_can_be_sampled,
    layout_shows_every_node,
    named_nets_are_valid,
)
