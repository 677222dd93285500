"""Candidates of a search, and the finished record of what became of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json, canonical_json, digest
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import Record, read_record

SCHEMA = "scalenas.trial/1"
State = Literal["complete", "infeasible", "failed"]
STATES: tuple[State, ...] = ("complete", "infeasible", "failed")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is measured: a subnet and how it is deployed.

    Attributes:
        number: Number of the trial, from 0.
        spec: The subnet, in canonical form.
        choices: Choices of deployment, such as `{"precision": "int8"}`; empty when the search has none.
        key: Digest of the live spec, the choices and the study's identity: no key is evaluated twice in a study.
        digest: Digest of the live spec alone: equal for specs that compute the same way.
    """

    number: int
    spec: SubnetSpec
    choices: Mapping[str, str]
    key: str
    digest: str

    @property
    def figure(self) -> str:
        """What recorded values are found by: the live spec and the choices, whatever the study."""
        return figure_key(self.digest, self.choices)


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate with what became of it.

    Attributes:
        candidate: The candidate.
        state: `complete`: all was measured; `infeasible`: a constraint is broken, and what came after it was not
            measured; `failed`: a measure gave up.
        values: Figure by name of the objective or constraint, as far as they were measured.
        details: Raw figures by the same names.
        origin: Where the candidate came from: `enqueued`, `warm-start`, or the sampler's word.
        seconds: Wall time of each measure.
        predicted: What the predictor said before the candidate was measured, by name; empty where it was not ready.
        failure: Why the state is `failed`.
    """

    candidate: Candidate
    state: State
    values: Mapping[str, float]
    details: Mapping[str, Mapping[str, Json]]
    origin: str
    seconds: Mapping[str, float]
    predicted: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""

    @property
    def number(self) -> int:
        """Number of the trial, from 0."""
        return self.candidate.number

    @property
    def spec(self) -> SubnetSpec:
        """The subnet."""
        return self.candidate.spec

    @property
    def choices(self) -> Mapping[str, str]:
        """The choices of deployment."""
        return self.candidate.choices

    def to_json(self) -> dict[str, Json]:
        """Returns the trial as plain JSON values, the spec whole: one line of a `records.jsonl`."""
        return {
            "schema": SCHEMA,
            "number": self.number,
            "key": self.candidate.key,
            "digest": self.candidate.digest,
            "spec": self.spec.to_json(),
            "choices": dict(self.choices),
            "state": self.state,
            "values": dict(self.values),
            "details": {name: dict(entry) for name, entry in self.details.items()},
            "origin": self.origin,
            "seconds": dict(self.seconds),
            "predicted": dict(self.predicted),
            "failure": self.failure,
        }

    @classmethod
    def from_json(cls, value: object) -> Trial:
        """Returns the trial that parsed JSON describes.

        Raises:
            UserError: a key is unknown or missing, or a value has the wrong type.
        """
        record = read_record(_TrialRecord, value, what="trial")
        if record.schema != SCHEMA:
            raise UserError(f"trial: schema is {record.schema!r}, this version reads {SCHEMA!r}")
        spec = SubnetSpec.from_json(record.spec)
        candidate = Candidate(record.number, spec, record.choices, record.key, record.digest)
        return cls(
            candidate,
            record.state,
            record.values,
            record.details,
            record.origin,
            record.seconds,
            record.predicted,
            record.failure,
        )


class _TrialRecord(Record, frozen=True):
    schema: str
    number: int
    key: str
    digest: str
    spec: dict[str, object]
    choices: dict[str, str]
    state: State
    values: dict[str, float]
    details: dict[str, dict[str, Any]]
    origin: str
    seconds: dict[str, float]
    predicted: dict[str, float] = msgspec.field(default_factory=dict)
    failure: str = ""


def figure_key(live_digest: str, choices: Mapping[str, str]) -> str:
    """Returns the text that names a live spec with its choices."""
    return f"{live_digest}{canonical_json(dict(choices))}"


def make_candidate(
    space: SearchSpace, number: int, spec: SubnetSpec, choices: Mapping[str, str], *, identity: str
) -> Candidate:
    """Returns the candidate of a proposal: its spec in canonical form, with its key.

    Args:
        space: The family.
        number: Number of the trial.
        spec: Any valid spec of the family.
        choices: Choices of deployment.
        identity: Digest of what the study is about.

    Raises:
        UserError: the spec is not valid.
    """
    normal = space.normalise(spec)
    live = space.live(normal).digest
    chosen = dict(sorted(choices.items()))
    key = digest({"spec": live, "choices": chosen, "study": identity})
    return Candidate(number, normal, chosen, key, live)


def read_trial_line(text: str) -> Trial:
    """Returns the trial of one line of a `records.jsonl`.

    Raises:
        UserError: the line is not JSON, or not a trial.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}") from None
    return Trial.from_json(value)
