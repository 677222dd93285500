"""The additive predictor: its solvers against scipy, its errors against simpler models, its scores against scipy."""

import numpy as np
import pytest
from scipy import optimize, stats

from scalenas.registry import get_space
from scalenas.search.predictor import AdditivePredictor, Block, block_features, non_negative_solution, shrunk_fit
from scalenas.search.scores import kendall_tau, score
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json

SPACE = get_space("scalenas")
SETTINGS: dict[str, Json] = {"width": 16, "modules": [1, 2, 1], "joints": 14}
INPUTS = {"image": (3, 128, 96)}


def nets(count: int, seed: int) -> list[SubnetSpec]:
    rng = np.random.default_rng(seed)
    groups = list(SPACE.groups(SETTINGS))
    return [
        SPACE.sample(rng, settings=SETTINGS, inputs=INPUTS, group=groups[index % len(groups)]) for index in range(count)
    ]


def device(spec: SubnetSpec, rng: np.random.Generator) -> float:
    """A device whose time is not proportional to MACs: a start per block, throughput that depends on shape, noise."""
    total = 0.4
    for block, count in block_features(SPACE, spec).items():
        channels = int(block.place.split(">")[1].split("x")[0])
        start = {"BasicBlock": 0.05, "AddReLU": 0.01, "FuseDown": 0.03, "FuseUp": 0.02}.get(block.operator, 0.02)
        total += count * (start + block.macs / 1e9 / min(1.0, (channels + 8) / 96))
    return float(total * (1 + 0.01 * rng.normal()))


def test_features_count_live_blocks_and_add_up_to_the_macs() -> None:
    spec = nets(1, 3)[0]
    counted = block_features(SPACE, spec)
    assert sum(block.macs * count for block, count in counted.items()) == SPACE.cost(SPACE.live(spec)).macs
    larger = block_features(SPACE, spec, {"image": (3, 256, 192)})
    assert sum(block.macs * count for block, count in larger.items()) == pytest.approx(
        4 * sum(block.macs * count for block, count in counted.items())
    )
    assert sum(larger.values()) == sum(counted.values())


def test_sixty_measurements_halve_the_error_of_the_mean_and_of_a_line_over_macs() -> None:
    rng = np.random.default_rng(1)
    specs = nets(90, 1)
    times = np.array([device(spec, rng) for spec in specs])
    macs = np.array([SPACE.cost(spec).macs for spec in specs])
    predictor = AdditivePredictor()
    for spec, time in zip(specs[:60], times[:60], strict=True):
        predictor.add(block_features(SPACE, spec), time)
    assert len(predictor) == 60
    predicted = np.array([predictor.predict(block_features(SPACE, spec)) for spec in specs[60:]])
    line = np.polyval(np.polyfit(macs[:60], times[:60], 1), macs[60:])

    def error(guess: np.ndarray) -> float:
        return float(np.mean(np.abs(guess - times[60:]) / times[60:]))

    assert error(predicted) <= 0.5 * error(line)
    assert error(predicted) <= 0.5 * error(np.full(30, times[:60].mean()))
    assert error(predicted) < 0.02


def test_ten_measurements_already_rank_nets() -> None:
    rng = np.random.default_rng(2)
    specs = nets(40, 5)
    times = [device(spec, rng) for spec in specs]
    predictor = AdditivePredictor()
    for spec, time in zip(specs[:10], times[:10], strict=True):
        predictor.add(block_features(SPACE, spec), time)
    guesses = [predictor.predict(block_features(SPACE, spec)) for spec in specs[10:]]
    assert kendall_tau(guesses, times[10:]) > 0.8


def test_blocks_never_seen_cost_what_the_coarse_model_says() -> None:
    predictor = AdditivePredictor()
    for count in range(1, 9):
        predictor.add(
            {Block("Conv", "a", 100): count, Block("Conv", "b", 300): 9 - count}, 100.0 * count + 300 * (9 - count)
        )
    assert predictor.predict({Block("Conv", "c", 200): 4}) == pytest.approx(800, rel=0.1)


def test_prices_of_a_latency_are_never_negative_and_others_may_be() -> None:
    a, b = Block("A", "", 1), Block("B", "", 1)
    rows = [({a: i, b: j}, 50.0 + 4 * i - 3 * j) for i in range(4) for j in range(4)]
    signed, positive = AdditivePredictor(non_negative=False), AdditivePredictor()
    for features, value in rows:
        signed.add(features, value)
        positive.add(features, value)
    assert signed.predict({b: 3}) < signed.predict({}) - 6
    assert positive.predict({b: 3}) >= positive.predict({})
    with pytest.raises(ValueError, match="nothing was measured yet"):
        AdditivePredictor().predict({a: 1})


@pytest.mark.parametrize("seed", range(6))
def test_non_negative_solution_equals_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    design, values = rng.normal(size=(40, 12)), rng.normal(size=40)
    expected, _ = optimize.nnls(design, values)
    assert non_negative_solution(design.T @ design, design.T @ values) == pytest.approx(expected, abs=1e-8)


def test_shrunk_fit_is_the_ridge_of_the_least_left_out_error() -> None:
    rng = np.random.default_rng(0)
    design = rng.normal(size=(12, 5))
    design /= np.sqrt((design**2).mean(axis=0))
    prior, values = rng.normal(size=5), rng.normal(size=12)

    def ridge(rows: np.ndarray, strength: float) -> np.ndarray:
        some, wanted = design[rows], values[rows] - design[rows] @ prior
        return prior + np.linalg.solve(some.T @ some + strength * np.eye(5), some.T @ wanted)

    everything = np.arange(12)
    strengths = np.logspace(-4, 3, 15) * 12
    errors = [
        sum(float(values[out] - design[out] @ ridge(np.delete(everything, out), strength)) ** 2 for out in range(12))
        for strength in strengths
    ]
    expected = ridge(everything, strengths[int(np.argmin(errors))])
    assert shrunk_fit(design, values, prior, non_negative=False) == pytest.approx(expected)


def test_scores_equal_scipys_and_percentages_by_hand() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 6, 30).tolist(), rng.integers(1, 6, 30).tolist()
    assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert np.isnan(kendall_tau([1, 1], [1, 2]))
    found = score([(11.0, 10.0), (18.0, 20.0)])
    assert (found.count, found.tau) == (2, 1.0)
    assert found.mape == pytest.approx(0.1)
    with pytest.raises(ValueError, match="at least one pair"):
        score([])
    with pytest.raises(ValueError, match="other than 0"):
        score([(1.0, 0.0)])
