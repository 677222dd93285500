"""A search in a process of its own, to be killed: `python search_worker.py STORAGE OPTIONS-AS-JSON`.

Its objectives follow from the genes, so that every run measures the same; each measuring is a line in a log.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from examples.own_space import SPACE as TINY
from scalenas.registry import get_space
from scalenas.search import Candidate, Constraint, Objective, SearchOptions, Study, get_sampler, search
from scalenas.space import SearchSpace
from scalenas_runtime.canonical import Json

SETTINGS: dict[str, Json] = {"width": 16, "modules": [1, 1, 1], "joints": 14}


def space(name: str = "scalenas") -> SearchSpace:
    """Returns the family that is searched."""
    return TINY if name == "tiny" else get_space(name)


def cost(candidate: Candidate) -> float:
    """Returns a figure that grows with the net."""
    return space(candidate.spec.space).cost(candidate.spec).gmacs


def merit(candidate: Candidate) -> float:
    """Returns a figure that has nothing to do with the size."""
    return int(candidate.digest[:6], 16) / 16**6


def run(
    storage: str | None,
    *,
    sampler: str = "topology",
    options: SearchOptions | None = None,
    log: Path | None = None,
    pause: float = 0.0,
    upper: float | None = None,
) -> Study:
    """Returns the study after searching the small space."""

    def logged(candidate: Candidate) -> float:
        if log is not None:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{candidate.number} {candidate.key} {os.getpid()}\n")
        time.sleep(pause)
        return cost(candidate)

    constraints = [] if upper is None else [Constraint("cost", logged, upper)]
    objectives = [Objective("cost", logged, "minimize"), Objective("merit", merit, "maximize")]
    return search(
        space(),
        objectives if upper is None else objectives[1:],
        constraints,
        get_sampler(sampler),
        storage,
        options=options or SearchOptions(settings=SETTINGS, n_trials=20),
    )


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(
        sys.argv[1],
        sampler=given["sampler"],
        options=SearchOptions(settings=SETTINGS, **given["options"]),
        log=Path(given["log"]),
        pause=given["pause"],
    )
