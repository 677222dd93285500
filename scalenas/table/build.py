"""From lines of measured latencies and accuracies to a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from scalenas.space import Settings
from scalenas.spec import SubnetSpec
from scalenas.table.accuracies import Accuracy
from scalenas.table.lines import append_line, read_lines
from scalenas.table.nets import members
from scalenas.table.record import SCHEMA, Column, Fit, TableRecord
from scalenas.table.space import SPACE
from scalenas.table.surrogate import LEAST, fit_column
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import Record, read_record, to_plain


class Latency(Record, frozen=True, kw_only=True):
    """One measurement of one net.

    Attributes:
        spec: Digest of the spec of the family `scalenas`.
        target: The engine, such as `openvino:cpu/bf16`.
        repeat: 0 for the first measurement of a net, 1 for the next, ...
        milliseconds: Drift divided out, as `LatencyMeter` gives it.
        headline: What the reference net took when the first of the measurements on this engine was made, in
            milliseconds: the scale of all of them.
        run: What the figure depends on besides: weights, reference net, device.
    """

    spec: str
    target: str
    repeat: int
    milliseconds: float
    headline: float
    run: dict[str, int | str]


def append_latency(path: Path, latency: Latency) -> None:
    """Adds an entry to a file.

    Raises:
        OSError: the file cannot be written.
    """
    append_line(path, cast(Json, to_plain(latency)))


def read_latencies(path: Path) -> list[Latency]:
    """Returns the entries of a file, none if it is not there.

    Raises:
        UserError: the file cannot be read, or holds other lines.
    """
    if not path.exists():
        return []
    return [read_record(Latency, value, what=f"{path}") for value in read_lines(path)]


def assembled(
    settings: Settings,
    size: tuple[int, int],
    latencies: Sequence[Latency],
    accuracies: Sequence[Accuracy],
    *,
    full: Sequence[SubnetSpec] = (),
    about: Mapping[str, Json] | None = None,
) -> TableRecord:
    """Returns the table of all members, with a surrogate where enough nets of the whole space were measured.

    Args:
        settings: Of the supernet.
        size: Height and width of the input.
        latencies: Of all members on every target that occurs; repeats give the noise.
        accuracies: Of all members, of one run; none for a table of latencies alone.
        full: Nets of the whole space that may be among the figures besides.
        about: Where the figures are from.

    Raises:
        UserError: a member lacks a figure, or figures are of several runs or scales.
    """
    nets = members(settings, size)
    runs = {str(sorted(entry.run.items())) for entry in accuracies}
    if len(runs) > 1:
        raise UserError(f"the accuracies are of {len(runs)} runs (weights, data, pictures); a table needs one: {runs}")
    scales = {f"{entry.target} at {entry.headline} ms, {sorted(entry.run.items())}" for entry in latencies}
    if len(scales) > len({entry.target for entry in latencies}):
        raise UserError(f"the latencies are of several runs (weights, reference, device): {'; '.join(sorted(scales))}")
    own = {spec.digest for spec in nets}
    parts = (nets, [spec for spec in full if spec.digest not in own])
    columns, fits = [], []
    for column, figures in [*_latency_columns(nets, latencies), *_accuracy_columns(nets, accuracies)]:
        columns.append(column)
        inside, outside = ([(spec, figures[spec.digest]) for spec in some if spec.digest in figures] for some in parts)
        if len(outside) >= LEAST:
            fits.append(fit_column(column, inside, outside))
    return _record(settings, size, columns, fits, about or {})


def _record(
    settings: Settings, size: tuple[int, int], columns: list[Column], fits: list[Fit], about: Mapping[str, Json]
) -> TableRecord:
    return TableRecord(
        schema=SCHEMA,
        space=SPACE.name,
        settings=SPACE.settings(settings),
        inputs={"image": [3, *size]},
        columns=columns,
        fits=fits,
        about=dict(about),
    )


def _latency_columns(
    nets: Sequence[SubnetSpec], latencies: Sequence[Latency]
) -> list[tuple[Column, Mapping[str, float]]]:
    result: list[tuple[Column, Mapping[str, float]]] = []
    for target in dict.fromkeys(entry.target for entry in latencies):
        taken: dict[str, list[float]] = {}
        for entry in latencies:
            if entry.target == target:
                taken.setdefault(entry.spec, []).append(entry.milliseconds)
        means = {spec: float(np.mean(values)) for spec, values in taken.items()}
        # With n repeats the mean takes a share of the noise with it; the factor gives it back.
        noise = [
            round((value / means[spec] - 1) * (len(values) / (len(values) - 1)) ** 0.5, 6)
            for spec, values in taken.items()
            if len(values) > 1
            for value in values
        ]
        repeated = sum(len(values) > 1 for values in taken.values())
        column = Column(
            name=f"latency {target}",
            kind="latency",
            unit="ms",
            values=[round(value, 6) for value in _of_all(nets, means, f"latency {target}")],
            noise=noise,
            about={"repeated": repeated, "measurements": sum(map(len, taken.values()))},
        )
        result.append((column, means))
    return result


def _accuracy_columns(
    nets: Sequence[SubnetSpec], accuracies: Sequence[Accuracy]
) -> list[tuple[Column, Mapping[str, float]]]:
    if not accuracies:
        return []
    figures = {entry.spec: entry.value for entry in accuracies}
    values = [round(value, 6) for value in _of_all(nets, figures, "accuracy")]
    about = dict(accuracies[0].run)
    column = Column(name="accuracy", kind="accuracy", unit=accuracies[0].metric, values=values, about=about)
    return [(column, figures)]


def _of_all(nets: Sequence[SubnetSpec], figures: Mapping[str, float], what: str) -> list[float]:
    missing = [spec for spec in nets if spec.digest not in figures]
    if missing:
        raise UserError(
            f"{what}: {len(missing)} of {len(nets)} members have no figure, the first is {missing[0].digest[:12]}; "
            "go on measuring with the same command"
        )
    return [figures[spec.digest] for spec in nets]
