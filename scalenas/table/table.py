"""`Table`: figures of nets by looking them up, in place of measuring them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalenas.search import pareto
from scalenas.search.candidates import Candidate
from scalenas.search.objectives import Goal, Objective
from scalenas.space import unknown
from scalenas.spaces.scalenas import SPACE as SCALENAS
from scalenas.spec import SubnetSpec
from scalenas.table.record import SUFFIX, Column, TableRecord, read_table
from scalenas.table.space import SPACE, TableSpace
from scalenas.table.surrogate import predict
from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.errors import UserError

# A reference point this share of a column's range beyond its worst value lets the extreme nets count too.
MARGIN = 0.1
_NOISE = 1


class Table:
    """A closed table: every member of a `TableSpace` with its measured figures.

    A member's figures are looked up; those of other specs of the family `scalenas` come from the table's surrogate,
    whose held-out error is in `record.fits`. With a seed, figures carry the noise of a single measurement.

    Attributes:
        record: What the file holds.
        name: What messages call the table.
        space: The enumerated space.
    """

    def __init__(self, record: TableRecord, *, name: str = "table") -> None:
        self.record = record
        self.name = name
        self.space: TableSpace = SPACE
        self._columns = {column.name: column for column in record.columns}
        self._values = {column.name: np.array(column.values) for column in record.columns}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the figures."""
        return tuple(self._columns)

    def column(self, name: str) -> Column:
        """Returns a column.

        Raises:
            UserError: there is none of that name; the text lists them.
        """
        if name not in self._columns:
            raise unknown(f"column of {self.name}", name, self._columns)
        return self._columns[name]

    def values(self, name: str) -> NDArray[np.float64]:
        """Returns a column's figures (N,) by `TableSpace.index`; the array is the caller's.

        Raises:
            UserError: there is no such column.
        """
        self.column(name)
        return self._values[name].copy()

    def query(self, spec: SubnetSpec, seed: int | None = None) -> dict[str, float]:
        """Returns the figures of a net by column: all of a member, those with a surrogate of another net.

        A spec of the family `scalenas` that computes what a member computes is that member.

        Args:
            spec: A member, or any spec of the family `scalenas` with the table's settings.
            seed: Of the noise: the same spec and seed give the same figures. None gives the figures without noise.

        Raises:
            UserError: the spec is of another family, other settings or another input size, or the table has no
                surrogate.
        """
        self._check(spec)
        index = SPACE.index(spec) if spec.space == SPACE.name else self._members.get(SCALENAS.live(spec).digest)
        if index is None:
            figures, salt = self._predicted(spec), int(spec.digest[:12], 16)
        else:
            figures, salt = {name: float(values[index]) for name, values in self._values.items()}, index
        return figures if seed is None else self._noisy(figures, (seed, salt))

    def goals(self, latency: str | None = None) -> tuple[Goal, Goal]:
        """Returns the two goals of a race: less latency and more accuracy.

        Args:
            latency: Name of a latency's column, or its target; the first one if None.

        Raises:
            UserError: there is no such latency, or the table has no accuracy.
        """
        latencies = [column.name for column in self.record.columns if column.kind == "latency"]
        accuracies = [column.name for column in self.record.columns if column.kind == "accuracy"]
        if not latencies or not accuracies:
            raise UserError(f"{self.name} has no {'accuracy' if latencies else 'latency'}: {', '.join(self.columns)}")
        chosen = latencies[0] if latency is None else latency
        if chosen not in latencies:
            chosen = f"latency {chosen}"
        if chosen not in latencies:
            targets = [name.removeprefix("latency ") for name in latencies]
            raise unknown(f"latency of {self.name}", str(latency), targets)
        return Goal(chosen, "minimize"), Goal(accuracies[0], "maximize")

    def objectives(self, latency: str | None = None, *, seed: int | None = None) -> tuple[Objective, Objective]:
        """Returns the goals as objectives of `scalenas.search.search`, looked up here.

        Args:
            latency: As in `goals`.
            seed: Of the noise, None for none.
        """
        first, second = (self._objective(goal, seed) for goal in self.goals(latency))
        return first, second

    def points(self, goals: tuple[Goal, ...]) -> NDArray[np.float64]:
        """Returns the figures (N, K) of all members such that less is better, without noise."""
        return np.stack([[goal.cost(float(value)) for value in self.values(goal.name)] for goal in goals], axis=1)

    def front(self, goals: tuple[Goal, ...]) -> list[int]:
        """Returns the indices of the members of the true front."""
        return pareto.front(self.points(goals))

    def reference(self, goals: tuple[Goal, ...]) -> NDArray[np.float64]:
        """Returns the fixed reference point (K,) of hypervolumes: a tenth of the range beyond the worst members."""
        points = self.points(goals)
        worst, best = points.max(axis=0), points.min(axis=0)
        reference: NDArray[np.float64] = worst + MARGIN * (worst - best)
        return reference

    def _objective(self, goal: Goal, seed: int | None) -> Objective:
        def measure(candidate: Candidate) -> float:
            return self.query(candidate.spec, seed)[goal.name]

        return Objective(goal.name, measure, goal.direction, self.column(goal.name).unit)

    def _predicted(self, spec: SubnetSpec) -> dict[str, float]:
        if not self.record.fits:
            raise UserError(f"{self.name} has no surrogate, so it answers its own members alone; build it with --full")
        return {fit.column: predict(fit, spec) for fit in self.record.fits}

    def _noisy(self, figures: Mapping[str, float], seed: tuple[int, int]) -> dict[str, float]:
        # Searches draw from (seed, number) too; their numbers shall not be the noise's.
        rng = np.random.default_rng((*seed, _NOISE))
        result = {}
        for name, value in figures.items():
            deviations = self._columns[name].noise
            # Every figure takes its number from the sequence, so that columns do not move each other's noise.
            place = rng.random()
            result[name] = value * (1 + deviations[int(place * len(deviations))]) if deviations else value
        return result

    def _check(self, spec: SubnetSpec) -> None:
        if spec.space not in (SPACE.name, SCALENAS.name):
            raise UserError(f"{self.name} answers specs of {SPACE.name} and {SCALENAS.name}, not of {spec.space!r}")
        image, own = list(spec.inputs["image"]), list(self.record.inputs["image"])
        if image != own:
            raise UserError(
                f"{self.name} is of nets that take pictures {own[1]}x{own[2]}; the spec's are {image[1]}x{image[2]}"
            )
        given = SCALENAS.settings(spec.settings)
        for key, value in self._settings.items():
            if canonical_json(given.get(key)) != canonical_json(value):
                raise UserError(f"{self.name} is of nets with {key} {value!r}; the spec has {given.get(key)!r}")

    @cached_property
    def _members(self) -> dict[str, int]:
        """Index of every member by the digest of what it computes, in terms of the family `scalenas`."""
        specs = self.space.specs(self.record.settings, self.record.inputs)
        return {SCALENAS.live(self.space.expand(spec)).digest: index for index, spec in enumerate(specs)}

    @cached_property
    def _settings(self) -> dict[str, Json]:
        return SCALENAS.settings(self.record.settings)


def load(text: str | Path) -> Table:
    """Returns the table in a file, or the shipped one of a name.

    Raises:
        UserError: there is none (the text lists the shipped ones), or the file is damaged.
    """
    path = Path(text)
    if str(text).endswith(SUFFIX) or path.is_file():
        return Table(read_table(path), name=path.name.removesuffix(SUFFIX))
    shipped = shipped_tables()
    if str(text) not in shipped:
        raise UserError(
            f"no table is called {str(text)!r}; shipped ones lie in the checkout's benchmarks/tables, here: "
            f"{', '.join(shipped) or 'none'}; or give a file (T{SUFFIX}), which `table build` makes"
        )
    return Table(read_table(shipped[str(text)]), name=str(text))


def shipped_tables() -> dict[str, Path]:
    """Returns the tables' files that go by a name, by name."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "tables"
    return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}
