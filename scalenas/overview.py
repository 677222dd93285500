"""Tables of families and nets, as data and as text; MACs stand in both units, each named in the header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scalenas.cost import PUBLISHED, Cost, Counting, total
from scalenas.names import full_name
from scalenas.registry import get_space, usable_spaces
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec, plain
from scalenas_runtime.canonical import Json

COST_HEADER = ("params (M)", "MACs/2^30 (G)", "MACs/10^9")


def families() -> list[dict[str, Json]]:
    """Returns name, title, tasks and number of subnets (decimal logarithm, with the formula) of every usable family."""
    rows: list[dict[str, Json]] = []
    for space in usable_spaces()[0]:
        sizes: list[Json] = [
            {
                "task": task,
                "log10_subnets": round(space.log10_size({"task": task}), 2),
                "formula": space.size_formula({"task": task}),
            }
            for task in space.tasks
        ]
        rows.append({"name": space.name, "title": space.title, "tasks": list(space.tasks), "sizes": sizes})
    return rows


def named_nets(*, size: tuple[int, int] | None = None, counting: Counting = PUBLISHED) -> list[dict[str, Json]]:
    """Returns one row per published net, and the largest and smallest subnet of each task under default settings.

    Args:
        size: Input height and width for all nets, None for each net's published size.
        counting: What the cost includes.
    """
    rows = []
    for space in usable_spaces()[0]:
        nets = list(space.named().items())
        for task in space.tasks:
            nets += [("max", space.max({"task": task})), ("min", space.min({"task": task}))]
        rows += [_row(space, name, space.adapt(spec, settings={}, size=size), counting) for name, spec in nets]
    return rows


def net_detail(spec: SubnetSpec, *, counting: Counting = PUBLISHED) -> dict[str, Json]:
    """Returns the spec, its digests, its cost by part and in all, and one row per block."""
    space = get_space(spec.space)
    records = space.blocks(spec, counting=counting)
    parts: dict[str, list[Cost]] = {}
    for record in records:
        parts.setdefault(record.id.partition(".")[0], []).append(record.cost)
    blocks: list[Json] = [
        {
            "id": record.id,
            "kind": record.kind,
            "inputs": [list(shape) for shape in record.inputs],
            "output": list(record.output),
            "params": record.params,
            "macs": record.macs,
        }
        for record in records
    ]
    return {
        "spec": spec.to_json(),
        "digest": spec.digest,
        "live_digest": space.live(spec).digest,
        "summary": space.summary(spec),
        "parts": [{"part": name, **_cost(total(costs))} for name, costs in parts.items()],
        "total": _cost(space.cost(spec, counting=counting)),
        "live": _cost(space.cost(spec, counting=replace(counting, live=True))),
        "blocks": blocks,
    }


def list_text(family_rows: Sequence[Mapping[str, Json]], nets: Sequence[Mapping[str, Json]], counting: str) -> str:
    """Returns the families and their nets as text."""
    lines = []
    for family in family_rows:
        lines.append(f"{family['name']}: {family['title'] or 'no title'}")
        for size in _mappings(family["sizes"]):
            lines.append(f"  {size['task']}: 10^{size['log10_subnets']} subnets = {size['formula']}")
    header = ["net", "task", "width", "input (HxW)", *COST_HEADER]
    cells = [[str(net[key] or "-") for key in ("name", "task", "width", "size")] + _figures(net) for net in nets]
    lines += ["", *table(header, cells, left=2), "", f"Counting: {counting} ({_COUNTINGS[counting]})."]
    lines.append("hrnet-wN and hrnet-wN-seg take any even N; max and min take --task and --width.")
    return "\n".join(lines)


def detail_text(name: str, detail: Mapping[str, Json], counting: str) -> str:
    """Returns one net's choices and its cost by part as text."""
    spec = detail["spec"]
    assert isinstance(spec, Mapping)
    cells = [[str(part["part"]), *_figures(part)] for part in _mappings(detail["parts"])]
    whole, live = detail["total"], detail["live"]
    assert isinstance(whole, Mapping)
    assert isinstance(live, Mapping)
    cells.append(["total", *_figures(whole)])
    if counting == "published" and whole != live:
        cells.append(["total, live", *_figures(live)])
    lines = [
        f"{name}: {spec['space']}, {_pairs(spec['settings'])}",
        f"inputs: {_pairs(spec['inputs'])} (channels, height, width)",
        f"{detail['summary']}",
        f"digest {detail['digest']}",
        "",
        *table(["part", *COST_HEADER], cells, left=1),
        "",
        f"Counting: {counting} ({_COUNTINGS[counting]}).",
    ]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Returns the lines of a table; the first `left` columns are aligned left, the others right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


_COUNTINGS = {
    "published": "as the papers' tables: dead blocks and fusions included, MACs of convolutions",
    "live": "what is built: dead blocks and fusions left out, MACs of convolutions",
}


def _row(space: SearchSpace, name: str, spec: SubnetSpec, counting: Counting) -> dict[str, Json]:
    shape = spec.inputs.get("image", ())
    return {
        "name": full_name(space.name, name),
        "family": space.name,
        "task": spec.settings.get("task"),
        "width": spec.settings.get("width"),
        "size": "x".join(str(side) for side in shape[1:]),
        "summary": space.summary(spec),
        "digest": spec.digest,
        **_cost(space.cost(spec, counting=counting)),
    }


def _cost(cost: Cost) -> dict[str, Json]:
    return {
        "params": cost.params,
        "macs": cost.macs,
        "gmacs_2_30": round(cost.gmacs, 6),
        "gmacs_1e9": round(cost.gmacs_decimal, 6),
    }


def _figures(row: Mapping[str, Json]) -> list[str]:
    params, macs = row["params"], row["macs"]
    assert isinstance(params, int)
    assert isinstance(macs, int)
    cost = Cost(params, macs)
    return [f"{cost.mparams:.3f}", f"{cost.gmacs:.3f}", f"{cost.gmacs_decimal:.3f}"]


def _mappings(value: Json) -> list[Mapping[str, Json]]:
    assert isinstance(value, list)
    return value


def _pairs(value: Json) -> str:
    assert isinstance(value, Mapping)
    return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
