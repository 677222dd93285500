"""A table of made-up figures: latency by parameters, MACs and fusions, accuracy by smooth rules with interactions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scalenas.table.record import SCHEMA, Column, Fit, TableRecord, write_table
from scalenas.table.space import PATTERNS, SPACE
from scalenas_runtime.canonical import Json

SETTINGS: dict[str, Json] = {"width": 16, "modules": [1, 2, 1], "joints": 14}
INPUTS = {"image": [3, 128, 96]}
LATENCY, ACCURACY = "latency openvino:cpu/bf16", "accuracy"
DIRECTIONS = {"last": (0, 0), "up": (1, 0), "down": (0, 1), "all": (1, 1)}


def drawn_record(*, seed: int = 0, fits: tuple[Fit, ...] = ()) -> TableRecord:
    """Returns a record whose figures follow from genes by a rule, with a little that no rule explains."""
    rng = np.random.default_rng(seed)
    settings = SPACE.settings(SETTINGS)
    latency, accuracy = [], []
    for spec in SPACE.specs(settings, INPUTS):
        values = SPACE.read_genes(settings, spec.genes)
        d2, d3, p3, d4, p4 = values
        (up3, down3), (up4, down4) = DIRECTIONS[str(p3)], DIRECTIONS[str(p4)]
        depth = np.array([int(d2), int(d3), int(d4)], float)
        fusions = 2 * (depth[1] - 1) * (0.12 * up3 + 0.3 * down3) + (depth[2] - 1) * (0.35 * up4 + 0.8 * down4)
        latency.append(round(2.0 + float(depth @ [0.25, 0.8, 0.7]) + 0.2 * float(fusions), 6))
        score = 1 - float(np.exp(-depth * [0.7, 0.5, 0.6]) @ [0.25, 0.35, 0.3])
        score += 0.03 * up3 * (depth[2] - 2) / 3 + 0.02 * down4 * up3 - 0.015 * down3 * up4 + 0.02 * up4
        accuracy.append(round(0.7 * float(score) + float(rng.normal(0, 0.002)), 6))
    noise = [round(float(each), 6) for each in rng.normal(0, 0.01, 100)]
    columns = [
        Column(name=LATENCY, kind="latency", unit="ms", values=latency, noise=noise),
        Column(name="latency onnxruntime:cpu/fp32", kind="latency", unit="ms", values=[3 * x for x in latency]),
        Column(name=ACCURACY, kind="accuracy", unit="pck", values=accuracy),
    ]
    return TableRecord(
        schema=SCHEMA, space=SPACE.name, settings=settings, inputs=INPUTS, columns=columns, fits=list(fits)
    )


def drawn_table(folder: Path, *, seed: int = 0) -> Path:
    """Returns the file of such a table."""
    path = folder / f"drawn{seed}.json.gz"
    if not path.exists():
        write_table(path, drawn_record(seed=seed))
    return path


assert tuple(DIRECTIONS) == PATTERNS
