"""A predictor that adds up what the blocks of a net cost, learnt from measured nets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalenas.cost import LIVE
from scalenas.space import Inputs, SearchSpace
from scalenas.spec import SubnetSpec

Array = NDArray[np.float64]

# Measurements that a fit looks at: older ones tell nothing new of the few dozen prices, but cost time.
WINDOW = 400
_STRENGTHS = np.logspace(-4, 3, 15)


class Block(NamedTuple):
    """A kind of block: blocks of one operator with the same shapes cost the same wherever they stand.

    Attributes:
        operator: Name of the operator's class.
        place: Input and output shapes, or the block's name where its place in the net counts.
        macs: Multiply-adds.
    """

    operator: str
    place: str
    macs: int


Features = Mapping[Block, int]


def block_features(space: SearchSpace, spec: SubnetSpec, workload: Inputs | None = None) -> dict[Block, int]:
    """Returns how often each kind of block occurs in the live net of `spec`: what its latency depends on.

    Args:
        space: The family.
        spec: The net.
        workload: Input shapes in place of the spec's own.
    """
    counted: Counter[Block] = Counter()
    for record in space.blocks(space.live(spec), workload, counting=LIVE):
        shapes = "+".join("x".join(map(str, shape)) for shape in record.inputs)
        counted[Block(record.kind, f"{shapes}>{'x'.join(map(str, record.output))}", record.macs)] += 1
    return dict(counted)


def place_features(space: SearchSpace, spec: SubnetSpec) -> dict[Block, int]:
    """Returns the blocks of the live net of `spec`, each on its own: accuracy depends on where a block stands."""
    return {Block(record.kind, record.id, record.macs): 1 for record in space.blocks(space.live(spec), counting=LIVE)}


class AdditivePredictor:
    """A constant plus a price for every kind of block.

    Prices are drawn towards a coarse model, a constant, one price per operator and one per multiply-add, which a
    handful of measurements already settles; how strongly is decided by leaving one measurement out at a time.
    Residuals count relative to the measured value.
    """

    def __init__(self, *, non_negative: bool = True) -> None:
        """Makes a predictor that knows nothing.

        Args:
            non_negative: No block makes the value smaller: right for latencies.
        """
        self._non_negative = non_negative
        self._columns: dict[Block, int] = {}
        self._rows: list[dict[int, int]] = []
        self._values: list[float] = []
        self._fitted: tuple[float, Array, Array] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, features: Features, value: float) -> None:
        """Adds a measurement."""
        row = {self._columns.setdefault(block, len(self._columns)): count for block, count in features.items()}
        self._rows.append(row)
        self._values.append(float(value))
        self._fitted = None

    def predict(self, features: Features) -> float:
        """Returns the predicted value; kinds of blocks that were never measured cost what the coarse model says.

        Raises:
            ValueError: nothing was measured yet.
        """
        if not self._rows:
            raise ValueError("nothing was measured yet; add measurements first")
        if self._fitted is None:
            self._fitted = self._fit()
        constant, prices, coarse = self._fitted
        total: float = constant
        for block, count in features.items():
            column = self._columns.get(block)
            price = prices[column] if column is not None else self._coarse_row(block) @ coarse
            total += count * float(price)
        return total

    def _fit(self) -> tuple[float, Array, Array]:
        rows, values = self._rows[-WINDOW:], np.array(self._values[-WINDOW:])
        counts = np.zeros((len(rows), len(self._columns)))
        for index, row in enumerate(rows):
            counts[index, list(row)] = list(row.values())
        weight = 1.0 / np.maximum(np.abs(values), 1e-12)
        kinds = np.array([self._coarse_row(block) for block in self._columns])
        design = np.column_stack([np.ones(len(rows)), counts])
        coarse = self._coarse(design, kinds, values, weight)
        prior = np.concatenate([coarse[:1], kinds @ coarse[1:]])
        prices = shrunk_fit(design * weight[:, None], values * weight, prior, non_negative=self._non_negative)
        return float(prices[0]), prices[1:], coarse[1:]

    def _coarse(self, design: Array, kinds: Array, values: Array, weight: Array) -> Array:
        summed = np.column_stack([design[:, 0], design[:, 1:] @ kinds])
        scale = np.maximum(np.abs(summed).mean(axis=0), 1e-12)
        table = summed / scale * weight[:, None]
        gram = table.T @ table
        # Of columns that never vary on their own, a faint pull chooses the smallest prices.
        gram[np.diag_indices_from(gram)] += 1e-3 * np.diag(gram).mean()
        moment = table.T @ (values * weight)
        found = non_negative_solution(gram, moment) if self._non_negative else np.linalg.solve(gram, moment)
        return np.asarray(found / scale)

    def _coarse_row(self, block: Block) -> Array:
        operators = list(dict.fromkeys(known.operator for known in self._columns))
        row = np.zeros(len(operators) + 1)
        row[0] = block.macs
        if block.operator in operators:
            row[1 + operators.index(block.operator)] = 1.0
        return row


def shrunk_fit(design: Array, values: Array, prior: Array, *, non_negative: bool) -> Array:
    """Returns the coefficients (F,) that explain `values` (N,) by `design` (N, F), drawn towards `prior` (F,).

    The strength of the pull is that of the least error when each row in turn is left out (exact, by the hat matrix).
    """
    spread = np.maximum(np.sqrt((design**2).mean(axis=0)), 1e-12)
    scaled, residual = design / spread, values - design @ prior
    left, singular, right = np.linalg.svd(scaled, full_matrices=False)
    turned = left.T @ residual
    best, chosen = np.inf, float(_STRENGTHS[-1])
    for strength in _STRENGTHS * len(values):
        kept = singular**2 / (singular**2 + strength)
        hat = (left**2 * kept).sum(axis=1)
        error = float(np.mean(((residual - left @ (kept * turned)) / np.maximum(1 - hat, 1e-6)) ** 2))
        if error < best:
            best, chosen = error, float(strength)
    if not non_negative:
        return np.asarray(prior + right.T @ (singular / (singular**2 + chosen) * turned) / spread)
    gram = scaled.T @ scaled
    gram[np.diag_indices_from(gram)] += chosen
    moment = scaled.T @ values + chosen * prior * spread
    return np.asarray(non_negative_solution(gram, moment) / spread)


def non_negative_solution(gram: Array, moment: Array) -> Array:
    """Returns the x >= 0 (F,) that minimises x'Gx/2 - m'x for a positive definite G (F, F).

    Source: Lawson and Hanson, Solving Least Squares Problems, chapter 23, on the normal equations.
    """
    size = len(moment)
    solution = np.zeros(size)
    free = np.zeros(size, dtype=bool)
    tolerance = 1e-10 * max(1.0, float(np.abs(moment).max(initial=0.0)))
    for _ in range(3 * size):
        gain = np.where(free, -np.inf, moment - gram @ solution)
        entering = int(np.argmax(gain))
        if gain[entering] <= tolerance:
            break
        free[entering] = True
        while True:
            target = np.zeros(size)
            target[free] = np.linalg.solve(gram[np.ix_(free, free)], moment[free])
            if (target[free] > 0).all():
                solution = target
                break
            # Walk towards the target until the first price reaches zero, and fix that one.
            falling = free & (target <= 0)
            steps = solution[falling] / np.maximum(solution[falling] - target[falling], 1e-300)
            solution = solution + float(steps.min()) * (target - solution)
            free &= solution > 1e-15
            solution[~free] = 0.0
    return solution
