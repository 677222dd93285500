"""How well accuracy inherited from a supernet ranks nets by the accuracy they reach when trained alone.

    python benchmarks/evaluate_members.py pose-w16 ... --nets max,min,A.json,B.json --out S.json
    python benchmarks/evaluate_members.py runs/alone-max/weights.safetensors ... --out A1.json    (for each net)
    python benchmarks/bench_inheritance.py S.json A1.json A2.json A3.json A4.json [--out FILE.json]

Nets are matched by the digest of their spec; all files must be about the same part of the same data. Prints both
accuracies of each net and Kendall's tau with n and a 95 % bootstrap interval over nets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scalenas_runtime.canonical import pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text
from scalenas_runtime.metrics import kendall_tau, tau_interval

SAME = ("data", "part", "limit")


def pairs(inherited: Mapping[str, Any], alone: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns name, inherited and stand-alone accuracy of each net that both kinds of files have.

    Raises:
        UserError: a file is about other data, or a net that was trained alone was not judged in the supernet.
    """
    rows = {row["spec_digest"]: row for row in inherited["rows"]}
    found = []
    for document in alone:
        for key in SAME:
            if document[key] != inherited[key]:
                raise UserError(f"{key} is {document[key]!r} for a net alone and {inherited[key]!r} for the supernet")
        for row in document["rows"]:
            known = rows.get(row["spec_digest"])
            if known is None:
                raise UserError(f"the supernet's file has no net of the spec {row['spec_digest'][:12]}")
            found.append({"name": known["name"], "inherited": known["value"], "alone": row["value"]})
    if len(found) < 2:
        raise UserError(f"a ranking needs two nets or more, got {len(found)}")
    return found


def ranking(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns Kendall's tau, its interval (None for fewer than four nets), and n."""
    first, second = ([row[key] for row in found] for key in ("inherited", "alone"))
    bounds = tau_interval(first, second, np.random.default_rng(0))
    return {"tau": kendall_tau(first, second), "interval": None if bounds is None else list(bounds), "n": len(found)}


def main() -> None:
    """Compares, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inherited", type=Path, help="What evaluate_members.py wrote of the supernet.")
    parser.add_argument("alone", type=Path, nargs="+", help="What it wrote of each net trained alone.")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    try:
        found = pairs(
            json.loads(arguments.inherited.read_text()), [json.loads(path.read_text()) for path in arguments.alone]
        )
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    result = ranking(found)
    print(f"{'net':24}{'inherited %':>12}{'alone %':>10}{'difference':>12}")
    for row in found:
        print(
            f"{row['name']:24}{100 * row['inherited']:12.1f}{100 * row['alone']:10.1f}"
            f"{100 * (row['inherited'] - row['alone']):12.1f}"
        )
    bounds = result["interval"]
    shown = "no interval for fewer than 4 nets" if bounds is None else f"95 % {bounds[0]:.2f} .. {bounds[1]:.2f}"
    print(f"Kendall's tau {result['tau']:.2f} over {result['n']} nets ({shown})")
    if arguments.out is not None:
        write_text(arguments.out, pretty_json({"nets": found, **result}))


if __name__ == "__main__":
    main()
