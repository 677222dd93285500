"""How a ScaleNAS spec looks: in one line, and on a grid of branches and steps."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scalenas.graph import Graph, Node
from scalenas.layout import Layout, Place, edges
from scalenas.spaces.scalenas.plan import Depth, Fuse, Plan

_IN_MODULE = re.compile(
    r"(stage[234]\.\d+)\.(?:branch(\d)\.block(\d+)|step(\d+)\.branch(\d)(?:_from_branch(\d)|\.sum))"
)
_TRANSITION = re.compile(r"transition(\d)\.branch(\d)")
# Columns of one block step: blocks, fusions, sums.
_STEP = 3


def summary(plan: Plan, genes: Mapping[str, tuple[Depth, Fuse]]) -> str:
    """Returns the depths of all branches, module by module, and the numbers of blocks and fusions.

    The form is that of the ScaleNAS tables: `34 | 334 443 443 443 | 3433 3444 3433   91 blocks, 130 fusions`.
    """
    joint = "" if plan.settings.depths[-1] < 10 else ","
    stages: dict[int, list[str]] = {}
    for module in plan.modules:
        stages.setdefault(module.stage, []).append(joint.join(map(str, genes[module.name][0])))
    blocks, fusions = counts(genes)
    text = " | ".join(" ".join(words) for words in stages.values())
    return f"{text}   {blocks} blocks, {fusions} fusions"


def counts(genes: Mapping[str, tuple[Depth, Fuse]]) -> tuple[int, int]:
    """Returns the numbers of blocks and of fusions in stages 2 to 4, dead ones included."""
    blocks = sum(sum(depth) for depth, _ in genes.values())
    fusions = sum(bits.count("1") for _, fuse in genes.values() for rows in fuse for bits in rows)
    return blocks, fusions


def layout(plan: Plan, graph: Graph) -> Layout:
    """Returns the drawing of a net: a row per branch, time from left to right, fusions between the rows.

    The steps of a module stand at the same columns for every spec of a supernet, so drawings can be compared.
    """
    starts = _module_columns(plan)
    alive = {node.name for node in graph.live()}
    places = [Place("image", "Input", 0.0, 0.0)]
    places += [_place(node, starts, live=node.name in alive) for node in graph]
    return Layout(tuple(places), edges(graph))


def _module_columns(plan: Plan) -> dict[str, int]:
    columns = {}
    column = 3 + plan.settings.stage1_blocks
    for module in plan.modules:
        if module.index == 0:
            columns[f"transition{module.stage - 1}"] = column
            column += 1
        columns[module.name] = column
        column += plan.settings.steps * _STEP
    columns["head"] = column
    return columns


def _place(node: Node, starts: Mapping[str, int], *, live: bool) -> Place:
    column, row, labels = _position(node.name, starts)
    return Place(node.name, type(node.operator).__name__, float(column), row, labels, live)


def _position(name: str, starts: Mapping[str, int]) -> tuple[int, float, tuple[tuple[str, str], ...]]:
    found = _IN_MODULE.fullmatch(name)
    if found:
        module, block_branch, block_step, step, branch, source = found.groups()
        labels = [("stage", module[5]), ("module", module)]
        if block_branch is not None:
            labels += [("branch", block_branch), ("step", block_step)]
            return starts[module] + int(block_step) * _STEP, float(block_branch), tuple(labels)
        labels += [("branch", branch), ("step", step)]
        column = starts[module] + int(step) * _STEP
        if source is None:
            return column + 2, float(branch), tuple(labels)
        return column + 1, (int(branch) + int(source)) / 2, (*labels, ("source", source))
    found = _TRANSITION.fullmatch(name)
    if found:
        labels = [("stage", str(int(found[1]) + 1)), ("branch", found[2])]
        return starts[f"transition{found[1]}"], float(found[2]), tuple(labels)
    if name == "head":
        return starts["head"], 0.0, (("stage", "head"),)
    stage, _, part = name.partition(".")
    number = int(re.sub(r"\D", "", part))
    if stage == "stem":
        return number, 0.0, (("stage", "stem"),)
    return 3 + number, 0.0, (("stage", "1"), ("step", str(number)))
