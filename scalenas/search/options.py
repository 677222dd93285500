"""The options of a search, and the head of a study: what must agree when it is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scalenas.search.candidates import Trial
from scalenas.search.objectives import Constraint, Direction, Goal, Objective
from scalenas.search.samplers.base import Proposal, Sampler
from scalenas.space import Inputs, SearchSpace, Settings
from scalenas_runtime.canonical import Json, canonical_json, digest
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import Record, read_record, to_plain

if TYPE_CHECKING:
    from scalenas.search.study import Study

HEAD_SCHEMA = "scalenas.study/1"
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How to search.

    Attributes:
        settings: Settings of the supernet that are not the family's default.
        inputs: Input shapes, the family's own if None.
        choices: Choices of deployment that are searched too, with their values, such as
            `{"precision": ("fp32", "bf16")}`.
        name: Name of the study in its storage.
        seed: Of all random choices; trial n draws from (seed, n).
        n_trials: Trials the study has in the end, those of earlier runs and of other workers included; None: no limit.
        timeout: Seconds after which this call starts no further candidate; None: no limit.
        identity: What else must agree when the study is resumed, such as digests of weights and data, and the target.
        enqueue: Measured first, in this order; a spec's own inputs give way to `inputs`.
        warm_start: Storage of an earlier study, whose front is measured anew after `enqueue`.
        warm_start_study: Name of that study; None where the storage has only one (besides the one that is searched).
        replay: A `records.jsonl` whose figures are taken in place of measuring.
        predict: Names of measures that a predictor learns, for samplers that rank what they propose.
        on_trial: Called after every trial that this call finished.
        stop: Asked before every candidate; true ends the search.
        lease: Seconds after which a worker that gave no sign of life counts as dead.
        max_tries: A candidate that took this many workers down is recorded as failed.

    Raises:
        UserError: a number is out of range, or a choice has no values.
    """

    settings: Settings | None = None
    inputs: Inputs | None = None
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = "search"
    seed: int = 0
    n_trials: int | None = None
    timeout: float | None = None
    identity: Mapping[str, Json] = field(default_factory=dict)
    enqueue: Sequence[Proposal] = ()
    warm_start: str | Path | None = None
    warm_start_study: str | None = None
    replay: Path | None = None
    predict: tuple[str, ...] = ()
    on_trial: Callable[[Study, Trial], None] | None = None
    stop: Callable[[], bool] | None = None
    lease: float = 60.0
    max_tries: int = 5

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("the name of the study is empty; needed is a name such as 'search'")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; needed is a whole number from 0")
        for name, value, least in (("n_trials", self.n_trials, 1), ("max_tries", self.max_tries, 1)):
            if value is not None and value < least:
                raise UserError(f"{name} is {value}; needed is a whole number from {least}")
        for name, seconds in (("timeout", self.timeout), ("lease", self.lease)):
            if seconds is not None and not seconds > 0:
                raise UserError(f"{name} is {seconds} s; needed is a time above 0")
        for name, values in self.choices.items():
            if not values or len(set(values)) != len(values):
                raise UserError(
                    f"choice {name!r} has the values {list(values)}; needed are different ones, at least one"
                )


class StudyHead(Record, frozen=True):
    """What a study is about: two runs that differ in it are two studies.

    Attributes:
        space: Name of the family.
        settings: All settings, canonical.
        inputs: All input shapes, canonical.
        choices: Choices of deployment with their values.
        goals: (name, direction, unit) of the objectives.
        limits: (name, upper limit, unit) of the constraints.
        sampler: Name of the sampler.
        sampler_options: Its options.
        seed: Of all random choices.
        predict: Names of the measures that are predicted.
        identity: What the caller added.
        planned: Trials that the search which made the study was to have; samplers take their sizes from it, so a study
            that is resumed with more keeps them. It may differ.
        schema: Version of this record.
    """

    space: str
    settings: dict[str, object]
    inputs: dict[str, list[int | str]]
    choices: dict[str, list[str]]
    goals: list[tuple[str, Direction, str]]
    limits: list[tuple[str, float, str]]
    sampler: str
    sampler_options: dict[str, object]
    seed: int
    predict: list[str]
    identity: dict[str, object]
    planned: int | None = None
    schema: str = HEAD_SCHEMA

    @property
    def digest(self) -> str:
        """Digest of what a figure depends on: `identity` alone, as sampler and limits do not change a figure."""
        return digest(self.identity)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Json]:
        """Returns the head as plain JSON values."""
        return to_plain(self)

    def check_same(self, stored: StudyHead, place: str) -> None:
        """Accepts the head of a stored study that this run may go on with.

        Raises:
            UserError: something differs; the text names it with both values.
        """
        mine = msgspec.structs.replace(self, planned=stored.planned)
        differing = _differences(mine.to_json(), stored.to_json())
        if differing:
            raise UserError(
                f"study in {place} is about something else: {'; '.join(differing)}. "
                "Resume it with what it has, or give this search a name of its own (--study-name)"
            )


def make_head(
    space: SearchSpace,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    sampler: Sampler,
    options: SearchOptions,
) -> StudyHead:
    """Returns the head of the study that a search with these arguments makes.

    Raises:
        UserError: settings or inputs are not valid, or a measure to predict is unknown.
    """
    settings = space.settings(options.settings)
    names = [*(item.name for item in constraints), *(item.name for item in objectives)]
    for name in options.predict:
        if name not in names:
            raise UserError(f"cannot predict {name!r}; this search measures {', '.join(names)}")
    return read_head(
        {
            "space": space.name,
            "settings": settings,
            "inputs": space.inputs(settings, options.inputs),
            "choices": {name: list(values) for name, values in options.choices.items()},
            "goals": [(item.name, item.direction, item.unit) for item in objectives],
            "limits": [(item.name, float(item.upper), item.unit) for item in constraints],
            "sampler": sampler.name,
            "sampler_options": sampler.options(),
            "seed": options.seed,
            "predict": list(options.predict),
            "identity": dict(options.identity),
            "planned": options.n_trials,
        }
    )


def read_head(value: object) -> StudyHead:
    """Returns the head that plain JSON values describe.

    Raises:
        UserError: a key is unknown or missing, a value has the wrong type, or the schema is another one.
    """
    head = read_record(StudyHead, value, what="study")
    if head.schema != HEAD_SCHEMA:
        raise UserError(f"study: schema is {head.schema!r}, this version reads {HEAD_SCHEMA!r}")
    return head


def goals_of(head: StudyHead) -> tuple[Goal, ...]:
    """Returns what a study improves."""
    return tuple(Goal(name, direction) for name, direction, _ in head.goals)


def _differences(mine: Mapping[str, Json], theirs: Mapping[str, Json]) -> list[str]:
    found = chain.from_iterable(_unlike(mine[key], theirs[key], () if key == "identity" else (key,)) for key in mine)
    return [f"{place} is {one} here and {other} there" for place, one, other in found]


def _unlike(one: Json, other: Json, place: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Gives the innermost values that differ: their place, and both as short text."""
    if canonical_json(one) == canonical_json(other):
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys([*one, *other]):
            yield from _unlike(one.get(name), other.get(name), (*place, name))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _unlike(first, second, (*place, str(index)))
    else:
        yield (".".join(place), *_shortened(one, other))


def _shortened(one: Json, other: Json) -> tuple[str, str]:
    """Returns both values as text, cut so that it shows where they begin to differ."""
    texts = ["nothing" if value is None else canonical_json(value) for value in (one, other)]
    same = next(
        (place for place, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts))
    )
    start = 0 if same <= _SHOWN // 2 else same - _SHOWN // 4
    first, second = (
        f"{'...' if start else ''}{text[start : start + _SHOWN]}{'...' if len(text) > start + _SHOWN else ''}"
        for text in texts
    )
    return first, second
