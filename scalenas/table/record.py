"""The file of a closed table: one compressed JSON, read strictly."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from scalenas.table.space import SPACE
from scalenas_runtime.canonical import Json, canonical_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_bytes
from scalenas_runtime.records import Record, read_record, to_plain

SCHEMA = "scalenas.table/1"
SUFFIX = ".json.gz"
Kind = Literal["latency", "accuracy"]


class Column(Record, frozen=True):
    """One figure of every member.

    Attributes:
        name: `latency openvino:cpu/bf16`, `accuracy`, ...
        kind: Less is better in a `latency`, more in an `accuracy`.
        unit: `ms`, or the metric of an accuracy, which is 0..1.
        values: By `TableSpace.index`.
        noise: Relative deviations of single measurements from the mean of their repeats, all members together; empty
            where the figure has no noise.
        about: How it was measured, as JSON values.
    """

    name: str
    kind: Kind
    unit: str
    values: list[float]
    noise: list[float] = msgspec.field(default_factory=list)
    about: dict[str, Any] = msgspec.field(default_factory=dict)


class Fit(Record, frozen=True):
    """A linear model of one column over the whole space, and how wrong it was on nets that it had not seen.

    Attributes:
        column: Name of the column.
        features: Which features: `blocks` or `genes` (`scalenas.table.surrogate`).
        intercept: Of the model.
        weights: By feature; features that are not here weigh nothing.
        count: Nets that the model was fitted to, the table's members among them.
        held_out: Nets of the whole space, no members, whose errors follow: each was guessed by a fit without it.
        mape: Their mean relative error, 0.05 is five percent.
        rmse: Their root mean squared error, in the column's unit.
        tau: Kendall's tau of their guesses.
    """

    column: str
    features: Literal["blocks", "genes"]
    intercept: float
    weights: dict[str, float]
    count: int
    held_out: int
    mape: float
    rmse: float
    tau: float


class TableRecord(Record, frozen=True):
    """What the file holds.

    Attributes:
        schema: Version of the form.
        space: Name of the enumerated space.
        settings, inputs: Of all members.
        columns: The figures.
        fits: The surrogate for the whole space; empty without one.
        about: Weights, data, machine, dates: JSON values.
    """

    schema: str
    space: str
    settings: dict[str, Any]
    inputs: dict[str, list[int]]
    columns: list[Column]
    fits: list[Fit] = msgspec.field(default_factory=list)
    about: dict[str, Any] = msgspec.field(default_factory=dict)


def read_table(path: Path) -> TableRecord:
    """Returns the record in a table's file.

    Raises:
        UserError: the file is missing, damaged, of another version, or does not hold every member.
    """
    try:
        value = json.loads(gzip.decompress(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path} cannot be read as a table: {error.strerror or error}") from None
    except (ValueError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a table, or damaged: {error}; get or build it again") from None
    record = read_record(TableRecord, value, what=str(path))
    if record.schema != SCHEMA:
        raise UserError(f"{path}: schema is {record.schema!r}, this version reads {SCHEMA!r}")
    check(record, what=str(path))
    return record


def write_table(path: Path, record: TableRecord) -> None:
    """Writes a table's file in one step; equal records give equal bytes.

    Raises:
        UserError: the record does not hold every member.
        OSError: the file cannot be written.
    """
    check(record, what=str(path))
    text = canonical_json(cast(Json, to_plain(record)))
    write_bytes(path, gzip.compress(text.encode(), compresslevel=9, mtime=0))


def check(record: TableRecord, *, what: str) -> None:
    """Accepts a record with a finite value of every member in every column.

    Raises:
        UserError: another space, two columns of one name, or a column that is too short, too long or not finite.
    """
    if record.space != SPACE.name:
        raise UserError(f"{what}: the space is {record.space!r}, this version reads {SPACE.name!r}")
    size = SPACE.size(record.settings)
    SPACE.inputs(SPACE.settings(record.settings), record.inputs)
    names = [column.name for column in record.columns]
    if not names or len(set(names)) != len(names):
        raise UserError(f"{what}: the columns are {names}; needed is at least one, each name once")
    for column in record.columns:
        if len(column.values) != size:
            raise UserError(f"{what}: column {column.name!r} has {len(column.values)} values for {size} members")
        if not all(abs(value) < float("inf") for value in (*column.values, *column.noise)):
            raise UserError(f"{what}: column {column.name!r} holds values that are not finite")
    for fit in record.fits:
        if fit.column not in names:
            raise UserError(f"{what}: there is a surrogate of {fit.column!r}, which is none of {names}")
