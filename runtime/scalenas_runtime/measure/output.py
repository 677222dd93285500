"""Measurements as text for people, and as files that keep every raw sample."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scalenas_runtime.canonical import pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_bytes, write_text
from scalenas_runtime.measure.job import FLAGS, Measurement

COLUMNS = ("target", "median ms", "95 % interval", "p90", "p95", "p99", "max", "pictures/s", "samples", "flags")


def rows(records: Sequence[Measurement]) -> list[list[str]]:
    """Returns one row of `COLUMNS` a record; a percentile that the sample does not prove is `-`."""
    return [_row(record) for record in records]


def remarks(records: Sequence[Measurement]) -> list[str]:
    """Returns a line on what was measured, on the parts of a pipeline, on drift, and on each flag that was raised."""
    lines = []
    for boundary, grade in sorted({(record.job["boundary"], record.job["grade"]) for record in records}):
        lines.append(f"{boundary}, grade {grade}; a percentile stands where the sample proves it at 99 % confidence")
    for record in records:
        target = record.job["config"]["target"]
        if record.parts:
            parts = ", ".join(f"{name} {value:.2f}" for name, value in record.parts.items())
            lines.append(f"{target}: {parts} ms (medians of the parts)")
        if record.drift is not None:
            lines.append(
                f"{target}: {record.drift.ratio:.3f} times the reference engine, which took "
                f"{record.drift.before:.2f} ms before and {record.drift.after:.2f} ms after"
            )
    raised = {flag for record in records for flag in record.flags}
    lines += [f"{flag}: {meaning}" for flag, meaning in FLAGS.items() if flag in raised]
    return lines


def save(folder: Path, records: Sequence[Measurement]) -> None:
    """Writes measurements.json (without samples) and samples.npz with one array (n,) of milliseconds a process.

    The arrays are named `<record>.<process>`, both counted from 0.
    """
    write_text(folder / "measurements.json", pretty_json([record.without_samples() for record in records]))
    arrays = {
        f"{index}.{number}": np.array(process.milliseconds)
        for index, record in enumerate(records)
        for number, process in enumerate(record.processes)
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(folder / "samples.npz", buffer.getvalue())


def export_times(path: Path, records: Sequence[Measurement]) -> None:
    """Writes every raw sample, in the order it was taken: `.json` or `.csv` by the file's suffix.

    Raises:
        UserError: another suffix.
    """
    if path.suffix == ".json":
        plain = [
            {"target": record.job["config"]["target"], "milliseconds": [run.milliseconds for run in record.processes]}
            for record in records
        ]
        write_text(path, pretty_json(plain))
    elif path.suffix == ".csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(("target", "process", "sample", "milliseconds"))
        for record in records:
            for number, run in enumerate(record.processes):
                target = record.job["config"]["target"]
                writer.writerows((target, number, index, value) for index, value in enumerate(run.milliseconds))
        write_text(path, buffer.getvalue())
    else:
        raise UserError(f"times are exported as .json or .csv, got {path}")


def _row(record: Measurement) -> list[str]:
    figures = record.statistics
    low, high = figures.interval
    proven = ["-" if value is None else f"{value:.2f}" for value in (figures.p90, figures.p95, figures.p99)]
    return [
        record.job["config"]["target"],
        f"{figures.median:.2f}",
        f"{low:.2f} to {high:.2f}",
        *proven,
        f"{figures.maximum:.2f}",
        f"{record.pictures_per_second:.1f}",
        str(figures.samples),
        " ".join(record.flags) or "-",
    ]
