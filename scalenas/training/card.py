"""The card of weights: one page of Markdown made of the report and the log, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from scalenas.training.start import Inheritance
from scalenas_runtime.canonical import Json

_POINTS = 12


def card(
    report: Mapping[str, Json], log: Sequence[Mapping[str, Json]], *, inheritance: Inheritance | None = None
) -> str:
    """Returns the card of a finished run.

    Args:
        report: What `finish` writes.
        log: Lines of the run's log.
        inheritance: What the net took from other weights.
    """
    known = cast(dict[str, Any], report)
    provenance = known["provenance"]
    parts = [
        f"# {provenance['source']}",
        "\n".join(
            [
                f"- Terms of the weights: {provenance['licence']}. {provenance['notice']}".rstrip(),
                *(f"- Data: {each['name']}: {each['what']}" for each in provenance["data"]),
                f"- Weights digest: `{known['digest']}`",
                *(f"- Learned from {role}: `{digest}`" for role, digest in provenance["parents"].items()),
                f"- Commit: {provenance['commit'] or 'unknown'}; seed {provenance['config']['seed']}",
                f"- Trained {provenance['steps']} steps in {known['seconds'] / 60:.1f} minutes on "
                f"{known['machine']['cpu']['model']}{_gpus(known['machine'])}",
            ]
        ),
    ]
    if inheritance is not None:
        parts.append(_inherited(inheritance))
    parts += [
        f"## Accuracy\n\nOn the {known['pictures']} pictures of the `{known['split']}` split, which no training saw. "
        "Intervals hold 95 %, by drawing pictures anew.\n\n" + _rows(known["rows"]),
        "## Curve\n\n" + _curve(log),
        f"## Command\n\n```\n{known['command']}\n```",
        "## Configuration\n\n```yaml\n" + _yaml(provenance["config"]) + "```",
    ]
    return "\n\n".join(parts) + "\n"


def _gpus(machine: Mapping[str, Any]) -> str:
    names = [gpu["name"] for gpu in machine["gpus"]]
    return f" with {', '.join(names)}" if names else ""


def _inherited(inheritance: Inheritance) -> str:
    text = f"Took {inheritance.copied} tensors from other weights; {len(inheritance.fresh)} started anew."
    if inheritance.rows:
        text += f" Outputs taken by name: {', '.join(inheritance.rows)}."
    return text


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| net | M params | MACs/2^30 (G) | metric | % | interval |", "|---|---|---|---|---|---|"]
    for row in rows:
        value = "-" if row["value"] is None else f"{100 * row['value']:.1f}"
        bounds = "-" if row["interval"] is None else " .. ".join(f"{100 * bound:.1f}" for bound in row["interval"])
        lines.append(
            f"| {row['name']} | {row['params'] / 1e6:.2f} | {row['gmacs']:.3f} | {row['metric']} | {value} | {bounds} |"
        )
    return "\n".join(lines)


def _curve(log: Sequence[Mapping[str, Json]]) -> str:
    """Returns a table of some ten lines of the log, the first and the last among them."""
    lines = [cast(Mapping[str, Any], line) for line in log if "task" in line]
    if not lines:
        return "The run logged no step."
    shown = [lines[round(index)] for index in _places(len(lines))]
    rows = ["| step | loss | distance to the teacher | pictures/s |", "|---|---|---|---|"]
    for line in shown:
        rows.append(
            f"| {line['step']} | {line['task']:.5g} | {line['distance']:.5g} | {line['pictures_per_second']:.1f} |"
        )
    return "\n".join(rows)


def _places(count: int) -> list[float]:
    points = min(_POINTS, count)
    return [index * (count - 1) / max(points - 1, 1) for index in range(points)]


def _yaml(value: Mapping[str, Json]) -> str:
    import yaml

    text = yaml.safe_dump(dict(value), sort_keys=True, allow_unicode=True)
    assert isinstance(text, str)
    return text
