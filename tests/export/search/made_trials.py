"""Trials with figures that are chosen, of real specs."""

from __future__ import annotations

import numpy as np

from scalenas.registry import get_space
from scalenas.search.candidates import State, Trial, make_candidate
from scalenas_export.search.progress import Front, Plan
from scalenas_runtime.canonical import Json

SPACE = get_space("scalenas")
SETTINGS = SPACE.settings({"width": 4, "modules": [1, 1, 1], "depths": [2, 4], "stage1_blocks": 1, "joints": 14})
FRONT = Front("openvino:cpu/fp32", "latency", "accuracy")


def made(number: int, latency: float, accuracy: float | None, *, state: State = "complete", failure: str = "") -> Trial:
    """Trial 0 is HRNet's pattern, the others are sampled; the interval of the latency is 2 %, of the accuracy 0.03."""
    pattern = SPACE.pattern(SETTINGS)
    assert pattern is not None
    spec = pattern[1] if number == 0 else SPACE.sample(np.random.default_rng(number), settings=SETTINGS)
    candidate = make_candidate(SPACE, number, spec, {}, identity="made")
    values, details = {"latency": latency}, {"latency": _details(latency, 0.02 * latency)}
    details["latency"] |= {"ratio": latency / 10, "drift": number / 1000}
    if accuracy is not None:
        values["accuracy"] = accuracy
        details["accuracy"] = _details(accuracy, 0.03)
    origin = "enqueued" if number == 0 else "offspring"
    predicted = {} if number == 0 else {"latency": 1.1 * latency}
    return Trial(candidate, state, values, details, origin, {"latency": 1.5}, predicted, failure)


def plan(trials: list[Trial], **changed: object) -> Plan:
    """A plan whose one member is trial 0's net."""
    given: dict[str, object] = {
        "title": "a search",
        "fronts": (FRONT,),
        "columns": ("latency", "accuracy"),
        "limits": {"latency": 12.0},
        "units": {"latency": "ms", "accuracy": "%"},
        "members": {trials[0].candidate.digest: "hrnet-w4"},
        "notes": ("accuracy on pictures drawn here",),
    }
    return Plan(**{**given, **changed})  # type: ignore[arg-type]


def five() -> list[Trial]:
    """A member, two nets of the front, one that both beat, and one over the budget."""
    return [
        made(0, 10.0, 0.50),
        made(1, 8.0, 0.45),
        made(2, 9.0, 0.52),
        made(3, 9.5, 0.40),
        made(4, 13.0, None, state="infeasible"),
    ]


def _details(value: float, reach: float) -> dict[str, Json]:
    return {"interval": [value - reach, value + reach]}
