"""The additive predictor against the mean and a line over MACs, on engines that are measured here.

    python benchmarks/bench_predictor.py [--weights W] [--size 128x96] [--target openvino:cpu/fp32] [--fit 60]
        [--held 30] [--out benchmarks/results/predictor.json]

Nets are drawn from all groups of the W16 space in turn and measured at grade `search`; the first `--fit` teach the
predictor, the others judge it. Without weights a random supernet serves: latency does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scalenas.registry import get_space
from scalenas.search.predictor import AdditivePredictor, block_features
from scalenas.search.scores import score
from scalenas.shipped import find_weights_file
from scalenas.spec import SubnetSpec
from scalenas.supernet import Supernet
from scalenas.table.nets import others
from scalenas.weights import Weights, load_weights
from scalenas_export.recipes import spec_recipe
from scalenas_export.search.deployment import Deployed
from scalenas_export.search.evaluator import write_reference
from scalenas_export.search.meter import LatencyMeter
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.targets import EngineConfig, Target

RESULTS = Path(__file__).parent / "results"
SPACE = get_space("scalenas")


def supernet(given: argparse.Namespace, size: tuple[int, int]) -> Weights:
    """Returns the weights that were named, or random ones."""
    if given.weights:
        return load_weights(find_weights_file(given.weights))
    settings = SPACE.settings({"width": given.width, "modules": [1, 2, 1], "depths": [2, 3, 4, 5], "joints": 14})
    recipe = spec_recipe(SPACE.max(settings, {"image": (3, *size)}), names="lspet-14")
    return Weights("supernet", SPACE.name, settings, Supernet(SPACE, settings).state_dict(), None, recipe)


def latencies(weights: Weights, nets: list[SubnetSpec], config: EngineConfig) -> list[float]:
    """Returns milliseconds of each net, drift divided out."""
    with tempfile.TemporaryDirectory() as folder:
        model, reference = Path(folder) / "model.onnx", Path(folder) / "reference.onnx"
        recipe = spec_recipe(nets[0], given=weights.recipe)
        write_reference(weights, SPACE, Deployed(nets[0], recipe), reference)
        found = []
        with LatencyMeter([config], reference=reference, recipe=recipe) as meter:
            for spec in tqdm(nets, unit="net"):
                write_reference(weights, SPACE, Deployed(spec, recipe), model)
                found.append(meter.measure(model, config).value)
    return found


def predictions(nets: list[SubnetSpec], times: list[float], fit: int) -> dict[str, NDArray[np.float64]]:
    """Returns what each way of predicting says of the nets from `fit` on."""
    additive = AdditivePredictor()
    for spec, time in zip(nets[:fit], times[:fit], strict=True):
        additive.add(block_features(SPACE, spec), time)
    macs = np.array([SPACE.cost(spec).macs for spec in nets], float)
    known = np.array(times[:fit])
    held = nets[fit:]
    return {
        "additive": np.array([additive.predict(block_features(SPACE, spec)) for spec in held]),
        "mean": np.full(len(held), known.mean()),
        "line over MACs": np.asarray(np.polyval(np.polyfit(macs[:fit], known, 1), macs[fit:])),
    }


def main() -> None:
    """Prints the errors and writes them with all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="Supernet weights: a file or the name of shipped ones.")
    parser.add_argument("--size", default="128x96")
    parser.add_argument("--width", type=int, default=16, help="Of the random supernet.")
    parser.add_argument("--target", default="openvino:cpu/fp32")
    parser.add_argument("--fit", type=int, default=60)
    parser.add_argument("--held", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "predictor.json")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    weights = supernet(given, (height, width))
    nets = others(weights.settings, (height, width), given.fit + given.held)
    times = latencies(weights, nets, EngineConfig(Target.parse(given.target)))
    rows: dict[str, Json] = {}
    print(f"{'error on held-out nets':24} {'MAPE':>8} {'tau':>7}")
    for name, guesses in predictions(nets, times, given.fit).items():
        found = score(list(zip(guesses.tolist(), times[given.fit :], strict=True)))
        rows[name] = {"mape": round(found.mape, 5), "tau": None if found.tau != found.tau else round(found.tau, 4)}
        print(f"{name:24} {100 * found.mape:6.2f} % {found.tau:7.3f}")
    result: dict[str, Json] = {
        "schema": "scalenas.benchmark.predictor/1",
        "command": f"python benchmarks/bench_predictor.py --size {given.size} --target {given.target} "
        f"--fit {given.fit} --held {given.held}" + (f" --weights {given.weights}" if given.weights else ""),
        "fingerprint": fingerprint(),
        "errors": rows,
        "milliseconds": {spec.digest: round(time, 5) for spec, time in zip(nets, times, strict=True)},
    }
    write_text(given.out, pretty_json(result))
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
