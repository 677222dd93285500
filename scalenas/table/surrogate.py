"""Linear models of figures over the whole space: latency by blocks, accuracy by genes, with held-out errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scalenas.search.predictor import block_features
from scalenas.search.scores import score
from scalenas.spaces.scalenas import SPACE as SCALENAS
from scalenas.spaces.scalenas.encoding import typed
from scalenas.spaces.scalenas.plan import plan
from scalenas.spaces.scalenas.settings import ScaleNasSettings
from scalenas.spec import SubnetSpec
from scalenas.table.record import Column, Fit
from scalenas_runtime.errors import UserError

Array = NDArray[np.float64]

FOLDS = 5
# Fewer nets of the whole space say too little of how wrong a surrogate is there.
LEAST = 2 * FOLDS
# Of the largest eigenvalue of the standardised features; which one is chosen by leaving one out.
STRENGTHS = tuple(10.0**exponent for exponent in np.arange(-6.0, 1.5, 0.5))


def gene_features(spec: SubnetSpec) -> dict[str, float]:
    """Returns what accuracy is explained by: depths and their squares, fusions by module, source and destination."""
    live = SCALENAS.live(spec)
    genes = typed(live.genes)
    found: dict[str, float] = {}
    for module in plan(ScaleNasSettings.from_json(live.settings)).modules:
        depths, fuse = genes[module.name]
        for branch, depth in enumerate(depths):
            found[f"{module.name}.depth[{branch}]"] = float(depth)
            found[f"{module.name}.depth[{branch}]^2"] = float(depth) ** 2
            for index, source in enumerate(module.sources[branch]):
                fusions = sum(bits[index] == "1" for bits in fuse[branch])
                found[f"{module.name}.fuse[{branch}<{source}]"] = float(fusions)
    return found


def fit_column(
    column: Column, members: Sequence[tuple[SubnetSpec, float]], others: Sequence[tuple[SubnetSpec, float]]
) -> Fit:
    """Returns a surrogate of a column for nets that are no members of the table.

    Its error is that of five folds of `others`, each guessed by a fit to the members and the other four: members are
    looked up, so how well they are guessed says nothing of what the surrogate is asked for.

    Args:
        column: What is explained; a latency by its blocks, an accuracy by its genes.
        members: Specs of the table's own nets with their figures.
        others: Random specs of the whole space with their figures.

    Raises:
        UserError: too few others.
    """
    if len(others) < LEAST:
        raise UserError(
            f"a surrogate of {column.name!r} needs at least {LEAST} nets of the whole space, got {len(others)}"
        )
    nets = [*members, *others]
    kind = "blocks" if column.kind == "latency" else "genes"
    rows = [_features(kind, spec) for spec, _ in nets]
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    values = np.array([value for _, value in nets])
    guessed = np.empty(len(values))
    folds = np.full(len(values), FOLDS)
    folds[len(members) :] = np.random.default_rng(0).permutation(len(others)) % FOLDS
    for fold in range(FOLDS):
        intercept, weights = _ridge(table[folds != fold], values[folds != fold])
        guessed[folds == fold] = intercept + table[folds == fold] @ weights
    intercept, weights = _ridge(table, values)
    guessed, true = guessed[len(members) :], values[len(members) :]
    errors = score(list(zip(guessed.tolist(), true.tolist(), strict=True)))
    kept = {name: _short(weight) for name, weight in zip(names, weights.tolist(), strict=True) if weight}
    return Fit(
        column=column.name,
        features="blocks" if kind == "blocks" else "genes",
        intercept=_short(intercept),
        weights=kept,
        count=len(values),
        held_out=len(others),
        mape=_short(errors.mape),
        rmse=_short(float(np.sqrt(np.mean((guessed - true) ** 2)))),
        # Figures that are all equal rank nothing, and JSON has no NaN.
        tau=_short(errors.tau) if errors.tau == errors.tau else 0.0,
    )


def predict(fit: Fit, spec: SubnetSpec) -> float:
    """Returns what a surrogate says of a net."""
    features = _features(fit.features, spec)
    return fit.intercept + sum(fit.weights.get(name, 0.0) * value for name, value in features.items())


def _features(kind: str, spec: SubnetSpec) -> Mapping[str, float]:
    if kind == "genes":
        return gene_features(spec)
    # As text, since the file is JSON.
    blocks = block_features(SCALENAS, spec)
    return {f"{block.operator} {block.place} {block.macs}": float(count) for block, count in blocks.items()}


def _ridge(table: Array, values: Array) -> tuple[float, Array]:
    """Returns intercept and weights (F,) of ridge regression on standardised columns, strength by leaving one out."""
    centre, scale = table.mean(axis=0), table.std(axis=0)
    usable = scale > 1e-12
    design = (table[:, usable] - centre[usable]) / scale[usable]
    mean = float(values.mean())
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    inside = left.T @ (values - mean)
    best, chosen = np.inf, np.zeros(len(sizes))
    for strength in STRENGTHS:
        shrunk = sizes**2 / (sizes**2 + strength * max(sizes[0] ** 2, 1e-12)) if len(sizes) else sizes
        residual = values - mean - left @ (shrunk * inside)
        # The diagonal of the hat matrix gives every residual as if its net had been left out.
        leverage = (left**2 * shrunk).sum(axis=1) + 1 / len(values)
        error = float(np.mean((residual / np.maximum(1 - leverage, 1e-6)) ** 2))
        if error < best:
            best, chosen = error, shrunk
    weights = np.zeros(table.shape[1])
    weights[usable] = (right.T @ (chosen * inside / np.maximum(sizes, 1e-12))) / scale[usable]
    return mean - float(centre @ weights), weights


def _short(value: float) -> float:
    return float(f"{value:.7g}")
