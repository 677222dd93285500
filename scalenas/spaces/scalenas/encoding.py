"""The genes of a ScaleNAS spec: JSON per module on one side, a flat list of depths and bits on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scalenas.genes import Scalar, Values
from scalenas.space import unknown
from scalenas.spaces.scalenas.plan import Depth, Fuse, Module, Plan, gene_path
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

_KEYS = ("depth", "fuse")


def read(plan: Plan, genes: Mapping[str, Json]) -> list[Scalar]:
    """Returns the values of the gene table.

    Raises:
        UserError: a module or gene is unknown or missing, or a value is not allowed; the gene is named.
    """
    names = [module.name for module in plan.modules]
    for name in genes:
        if name not in names:
            raise unknown("module in genes", name, names)
    values: list[Scalar] = []
    for module in plan.modules:
        entry = genes.get(module.name)
        if not isinstance(entry, Mapping):
            raise UserError(f"gene {module.name} is {_shown(entry)}; needed is {{'depth': [...], 'fuse': [...]}}")
        for key in entry:
            if key not in _KEYS:
                raise unknown(f"gene in {module.name}", key, _KEYS)
        values += _depths(plan, module, entry.get("depth"))
        for branch, rows in enumerate(_list(module, "fuse", entry.get("fuse"), module.branches, "destinations")):
            steps = plan.settings.steps
            for step, bits in enumerate(_list(module, f"fuse[{branch}]", rows, steps, "steps")):
                values += _bits(module, branch, step, bits)
    return values


def write(plan: Plan, values: Values) -> dict[str, Json]:
    """Returns the genes in the form of a spec, canonical.

    Bits of finished branches are zeros. In the last module of a pose net only branch 0 leaves, so at each branch's
    own last step branch 0 takes all sources and the others none (the sampler of the released code forces the same).
    """
    genes: dict[str, Json] = {}
    steps = plan.settings.steps
    start = 0
    for module in plan.modules:
        bits = module.branches - 1
        depth = values[start : start + module.branches]
        start += module.branches
        text = "".join(values[start : start + module.branches * steps * bits])  # type: ignore[arg-type]
        start += module.branches * steps * bits
        fuse = []
        for branch, own in enumerate(depth):
            assert isinstance(own, int)
            first = branch * steps * bits
            rows = [text[at : at + bits] for at in range(first, first + own * bits, bits)]
            if module.forced:
                rows[-1] = ("0" if branch else "1") * bits
            fuse.append(rows + ["0" * bits] * (steps - own))
        genes[module.name] = {"depth": list(depth), "fuse": fuse}
    return genes


def typed(genes: Mapping[str, Json]) -> dict[str, tuple[Depth, Fuse]]:
    """Returns depths and fusion bits of each module of a normalised spec."""
    return {name: (entry["depth"], entry["fuse"]) for name, entry in genes.items()}  # type: ignore[index,call-overload,misc]


def _depths(plan: Plan, module: Module, value: object) -> list[int]:
    allowed = plan.settings.depths
    depths = _list(module, "depth", value, module.branches, "branches")
    for branch, depth in enumerate(depths):
        if type(depth) is not int or depth not in allowed:
            name = gene_path(module.name, "depth", branch)
            raise UserError(f"gene {name} is {depth!r}; allowed: {', '.join(map(str, allowed))}")
    return list(depths)  # type: ignore[arg-type]


def _bits(module: Module, branch: int, step: int, bits: object) -> str:
    if isinstance(bits, str) and len(bits) == module.branches - 1 and not bits.strip("01"):
        return bits
    sources = ", ".join(map(str, module.sources[branch]))
    example = "1" * (module.branches - 1)
    raise UserError(
        f"gene {gene_path(module.name, 'fuse', branch, step)} is {_shown(bits)}; needed are {module.branches - 1} "
        f"characters 0 or 1, one for each source branch ({sources}), such as {example!r}"
    )


def _list(module: Module, place: str, value: object, length: int, what: str) -> Sequence[object]:
    if not isinstance(value, list | tuple) or len(value) != length:
        raise UserError(f"gene {module.name}.{place} is {_shown(value)}; needed is a list of {length} ({what})")
    return value


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    text = repr(list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value)
    return text if len(text) <= 80 else text[:77] + "..."
