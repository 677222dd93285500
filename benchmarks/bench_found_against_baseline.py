"""A net that a search found against HRNet's: latency at grade `report`, accuracy on official pictures.

    python -m benchmarks.bench_found_against_baseline runs/search/1 --weights pose-w16 --data configs/data/lspet.yaml
        --data-root DATA --part val [--alone pose-w16-alone.safetensors] [--tuned found.safetensors] [--top 3]
        [--random 30] [--out benchmarks/results/found_against_baseline.json]

Takes the best `--top` nets of a finished search under a budget, and measures them in fresh processes in turns with the
nets of the supernet that go by a name (HRNet's pattern, uniform depths, the smallest) and the best of `--random` nets
drawn under the same budget and judged on the `search` part, as the search did; where none of 20 times so many keeps it,
the fastest. All of them are judged on the official part through the engine. The baseline is the better of HRNet's
pattern inside the supernet and the same net trained alone (`--alone`). A found net that was tuned on the training data
(`--tuned`) has a row of its own, with the latency of its like out of the supernet, whose engine has the same layers. A
net counts as equal where the 95 % lower bound of its difference (paired bootstrap over pictures) is at least -0.5
points, and as found where it also takes at most 1/1.3 of the baseline's latency at that grade. On a machine whose pace
changes from minute to minute the ratio of turns of some 30 ms says more; it is recorded beside. Where the search had
genes of deployment, such as the input size, the baseline is deployed as the supernet is, and HRNet's pattern has a row
at each of their other values, so that what is owed to the net and what to its size can be told apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.evaluate_members import accuracy
from benchmarks.live_search import RESULTS, Subject, instruments, subject_of
from scalenas.data.dataset import open_dataset
from scalenas.inheriting import inherit
from scalenas.search import MeasureFailed, Study, Trial
from scalenas.search.candidates import Candidate
from scalenas.static import StaticNet
from scalenas.training.judge import judge_of
from scalenas.transferred_statistics import rule_for, statistics_by
from scalenas.weights import Weights, load_weights
from scalenas_export.search.accuracy import judging_config
from scalenas_export.search.data import DataSource
from scalenas_export.search.deployment import PRECISION, SIZE, chosen_config, deployed, deployments, parse_size
from scalenas_export.search.evaluator import inherited_net
from scalenas_export.search.finalists import Entry, confirm
from scalenas_export.search.judging import Prepared, prepare
from scalenas_export.search.meter import LatencyQuestion
from scalenas_export.search.request import Finalist, SearchRequest
from scalenas_export.search.run import headlines_of, run_search
from scalenas_export.search.view import LineView
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.evaluate import Evaluation
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.metrics.counts import Counts, difference
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import Recipe

SPEEDUP, SLACK = 1.3, -0.005
# Both engines are opened so often for the ratio in turns, whose machine is the same for both.
OPENINGS = 3
ALONE, TUNED = "trained alone", " tuned"


@dataclass(frozen=True, slots=True)
class Found:
    """What a finished search left.

    Attributes:
        nets: Its best nets, best first.
        choices: The genes of deployment with their values, those of the supernet itself first.
        budget: In milliseconds, on the search's own scale.
        config: Its engine.
        headlines: That scale: milliseconds of the reference by target.
        limit: How many pictures candidates were judged on at most, None for all.
        calibration: Pictures that BN statistics came from.
    """

    nets: tuple[Candidate, ...]
    choices: Mapping[str, Sequence[str]]
    budget: float
    config: EngineConfig
    headlines: Mapping[str, float]
    limit: int | None
    calibration: int


def read_search(folder: Path, top: int, recipe: Recipe) -> Found:
    """Returns the best nets of a search under a budget that no name stands for.

    Raises:
        UserError: there is no study, it had several targets or no budget, or its first size is not the supernet's.
    """
    study = Study.open(folder / "study.db")
    head, trials = study.head, study.trials
    headlines = headlines_of(study)
    study.close()
    targets = head.identity["target"]
    if not isinstance(targets, list) or len(targets) != 1 or "latency" not in study.limits:
        raise UserError(f"{folder} holds a search with several targets or no budget")
    own = f"{recipe.height}x{recipe.width}"
    if head.choices.get(SIZE, [own])[0] != own:
        raise UserError(f"{folder} searched other sizes first than {own}, at which HRNet's pattern is the baseline")
    config = EngineConfig.from_json(targets[0])
    if head.choices.get(PRECISION, [config.target.precision])[0] != config.target.precision:
        raise UserError(f"{folder} searched other precisions first than that of {config.target}, the baseline's")
    done = [trial for trial in trials if trial.state == "complete" and trial.origin != "enqueued"]
    best = sorted(done, key=lambda trial: -trial.values["accuracy"])[:top]
    data: Any = head.identity["data"]
    return Found(
        tuple(trial.candidate for trial in best),
        head.choices,
        study.limits["latency"],
        config,
        headlines,
        data["limit"],
        data["calibration"],
    )


class Counted(LineView):
    """A view that counts the drawn nets which keep the budget."""

    drawn = 0

    def trial(self, trials: Sequence[Trial], trial: Trial) -> None:
        """Shows a candidate."""
        super().trial(trials, trial)
        self.drawn += trial.state == "complete" and trial.origin != "enqueued"


@dataclass(frozen=True, slots=True)
class Drawn:
    """The best of the nets that were drawn, and how many kept the budget; where none did, the fastest."""

    best: Candidate
    count: int
    kept: int

    @property
    def name(self) -> str:
        """What its row is called."""
        return f"best of {self.kept} drawn" if self.kept else f"fastest of {self.count} drawn"


def best_random(arguments: argparse.Namespace, found: Found) -> Drawn:
    """Returns the best of so many nets drawn under the budget of the search, by accuracy on the `search` part.

    Raises:
        UserError: the search left no scale, so that its budget means nothing here, or no net could be measured.
    """
    if not found.headlines:
        raise UserError(f"{arguments.search} has no scale of its latencies; search again, or give --random 0")
    with TemporaryDirectory(prefix="scalenas-bench-") as place:
        request = SearchRequest(
            weights=arguments.weights,
            configs=(found.config,),
            folder=Path(place),
            latency_ms=found.budget,
            data=DataSource(description=arguments.data, root=arguments.data_root),
            sampler="random",
            seed=1,
            n_trials=20 * arguments.random,
            finalists=0,
            limit=found.limit,
            calibration=found.calibration,
            headlines=found.headlines,
            precisions=tuple(found.choices.get(PRECISION, ())),
            sizes=tuple(parse_size(text) for text in found.choices.get(SIZE, ())),
        )
        view = Counted(print)
        result = run_search(request, view=view, stop=lambda: view.drawn >= arguments.random)
        if result.failure is not None:
            raise result.failure
        drawn = [each for each in result.study.trials if "latency" in each.values and each.origin != "enqueued"]
        result.study.close()
    kept = [trial for trial in drawn if trial.state == "complete"]
    if not drawn:
        raise UserError("no drawn net could be measured")
    best = (
        max(kept, key=lambda trial: trial.values["accuracy"])
        if kept
        else min(drawn, key=lambda trial: trial.values["latency"])
    )
    return Drawn(best.candidate, len(drawn), len(kept))


@dataclass(frozen=True, slots=True)
class Times:
    """Latencies of all nets, by name.

    Attributes:
        confirmed: At the asked grade, in fresh processes.
        ratios: Over HRNet's pattern, in turns of some 30 ms with it, one for each time that both were opened.
    """

    confirmed: Mapping[str, Finalist]
    ratios: Mapping[str, list[float]]


def latencies(subject: Subject, found: Found, nets: Mapping[str, Candidate], source: DataSource, grade: str) -> Times:
    """Returns all nets measured in fresh processes, and in short turns with HRNet's pattern.

    Raises:
        UserError: one of them could not be measured.
    """
    ratios: dict[str, list[float]] = {name: [] for name in nets}
    with TemporaryDirectory(prefix="scalenas-bench-") as place:
        entries = []
        with instruments(subject, found.config, source=source) as (evaluator, _, _):
            for number, (name, net) in enumerate(nets.items()):
                path = Path(place) / f"{number}.onnx"
                recipe = evaluator.write_graph(net.spec, net.choices, path)
                trial = Trial(net, "complete", {}, {}, "benchmark", {})
                entries.append(Entry(name, trial, found.config, path, recipe))
        lost: list[str] = []
        done = confirm(entries, LatencyQuestion(), budget=found.budget, grade=grade, lost=lost)
        if lost:
            raise UserError("; ".join(lost))
        for _ in range(OPENINGS):
            with instruments(subject, found.config, source=source) as (_, meter, _):
                for entry in entries:
                    config = chosen_config(entry.config, entry.trial.choices)
                    try:
                        measured = meter.measure(entry.model, config, recipe=entry.recipe)
                    except MeasureFailed as error:
                        raise UserError(f"{entry.label}: {error}") from None
                    ratios[entry.label].append(measured.value / meter.open(found.config))
    return Times({each.label: each for each in done}, ratios)


class OfficialJudge:
    """Judges nets on the official part through the engine, each at its own deployment."""

    def __init__(self, arguments: argparse.Namespace, subject: Subject, config: EngineConfig) -> None:
        """Takes the part and the engine, before a net's own precision."""
        self._arguments, self._subject, self._config = arguments, subject, config
        self._dataset = open_dataset(arguments.data, root=arguments.data_root)
        self._ready: dict[Recipe, tuple[Prepared, Callable[[StaticNet], object]]] = {}

    def inside(self, net: Candidate) -> Evaluation:
        """Returns the accuracy of a net of the supernet, with BN statistics set at its size."""
        subject = self._subject
        of = deployed(subject.space, subject.recipe, net.spec, net.choices)
        static = inherited_net(subject.weights, subject.space, of.spec)
        self._at(of.recipe)[1](static)
        return self._judged(static, of.recipe, net.choices)

    def alone(self, weights: Weights, choices: Mapping[str, str]) -> Evaluation:
        """Returns the accuracy of a net with weights of its own, as it is."""
        assert weights.spec is not None
        subject = self._subject
        of = deployed(subject.space, subject.recipe, weights.spec, choices)
        return self._judged(inherit(weights, of.spec), of.recipe, choices)

    def _judged(self, net: StaticNet, recipe: Recipe, choices: Mapping[str, str]) -> Evaluation:
        config = judging_config(chosen_config(self._config, choices), recipe)
        return accuracy(net, recipe, self._at(recipe)[0], config)

    def _at(self, recipe: Recipe) -> tuple[Prepared, Callable[[StaticNet], object]]:
        if recipe not in self._ready:
            arguments, subject = self._arguments, self._subject
            count, device = arguments.calibration, torch.device("cpu")
            judge = judge_of(self._dataset, recipe, arguments.part, calibration=count, device=device)
            prepared = prepare(recipe, judge.data, metric=None, limit=arguments.limit)
            rule = rule_for(subject.weights)
            self._ready[recipe] = (
                prepared,
                statistics_by(rule, subject.weights, subject.space, judge.recalibrate),
            )
        return self._ready[recipe]


def accuracies(
    arguments: argparse.Namespace, subject: Subject, found: Found, nets: Mapping[str, Candidate]
) -> dict[str, Evaluation]:
    """Returns the accuracy of all nets on the official part, and of the one trained alone as `ALONE`."""
    judge = OfficialJudge(arguments, subject, found.config)
    done = {}
    for name, net in nets.items():
        done[name] = judge.inside(net)
        print(f"{name}: {100 * done[name].value:.2f} %", flush=True)
    if arguments.alone is not None:
        alone = load_weights(arguments.alone)
        if alone.spec is None:
            raise UserError(f"{arguments.alone} holds a supernet; --alone is one net trained alone")
        if alone.recipe != subject.recipe or not _is_net(subject, alone, subject.candidate(subject.reference)):
            raise UserError(
                f"{arguments.alone} is not HRNet's pattern of this supernet, with its recipe, trained alone"
            )
        for number, choices in enumerate(deployments(found.choices)):
            done[_at(ALONE, choices if number else {})] = judge.alone(alone, choices)
    for path in arguments.tuned:
        tuned = load_weights(path)
        name = _found_name(subject, nets, tuned, path)
        done[f"{name}{TUNED}"] = judge.alone(tuned, nets[name].choices)
    return done


def _at(name: str, choices: Mapping[str, str]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in choices.items())])


def _is_net(subject: Subject, own: Weights, net: Candidate) -> bool:
    """Returns whether a net on its own, at the size it was trained for, computes what a deployed candidate does."""
    assert own.spec is not None
    of = deployed(subject.space, subject.recipe, net.spec, net.choices)
    if own.recipe != of.recipe:
        return False
    sized = subject.space.adapt(own.spec, settings={}, size=(of.recipe.height, of.recipe.width))
    return subject.space.live(sized).digest == subject.space.live(of.spec).digest


def _found_name(subject: Subject, nets: Mapping[str, Candidate], tuned: Weights, path: Path) -> str:
    if tuned.spec is None or tuned.recipe is None:
        raise UserError(f"{path} holds no single net with a recipe")
    for name, net in nets.items():
        if name.startswith("found") and _is_net(subject, tuned, net):
            return name
    raise UserError(
        f"{path} holds a net, or one of a recipe, that is not among the best of the search; a larger --top may have it"
    )


def compared(nets: Mapping[str, Candidate], times: Times, done: Mapping[str, Evaluation], hrnet: str) -> dict[str, Any]:
    """Returns one row a net against the baseline, and whether a found one is as good and fast enough."""
    rivals = [hrnet, *([ALONE] if ALONE in done else [])]
    baseline = max(rivals, key=lambda name: done[name].value)
    rows: list[dict[str, Any]] = []
    for name in done:
        # Trained alone, tuned or inside, it is the same net and the same engine.
        measured = name.removesuffix(TUNED).replace(ALONE, hrnet)
        place = times.confirmed[measured]
        speedup = times.confirmed[hrnet].value / place.value
        gap = difference(_counts(done[name]), _counts(done[baseline]))
        rows.append(
            {
                "net": name,
                "spec_digest": nets[measured].digest,
                "choices": dict(nets[measured].choices),
                "accuracy": done[name].value,
                "interval": list(done[name].interval or ()),
                "difference": list(gap),
                "equal": gap[1] >= SLACK,
                "median_ms": place.value,
                "interval_ms": list(place.interval),
                "speedup": speedup,
                "ratios_in_turns": times.ratios[measured],
                "flags": list(place.measurement.flags),
            }
        )
    won = [
        str(row["net"])
        for row in rows
        if str(row["net"]).startswith("found") and row["equal"] and row["speedup"] >= SPEEDUP
    ]
    return {"baseline": baseline, "rows": rows, "won": won}


def _counts(done: Evaluation) -> Counts:
    if done.by_picture is None:
        raise UserError(f"{done.metric} keeps no counts by picture, which a paired comparison needs")
    return Counts(done.by_picture)


def shown(found: Mapping[str, Any]) -> str:
    """Returns the rows for people."""
    lines = [f"baseline: {found['baseline']}"]
    for row in found["rows"]:
        gap, low, high = (100 * value for value in row["difference"])
        lines.append(
            f"{row['net']:32} {100 * row['accuracy']:6.2f} % ({gap:+.2f}, 95 % {low:+.2f} to {high:+.2f}), "
            f"{row['median_ms']:.2f} ms, {row['speedup']:.2f} times as fast, in turns "
            f"{1 / float(np.median(row['ratios_in_turns'])):.2f}"
        )
    lines.append(f"equal and at least {SPEEDUP} times as fast: {', '.join(found['won']) or 'none'}")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path, help="Folder of a finished search with a latency budget.")
    parser.add_argument("--weights", required=True, help="The supernet's weights, as the search took them.")
    parser.add_argument("--data", required=True, help="Description of the data (YAML).")
    parser.add_argument("--data-root", help="Folder that the description's sources start at.")
    parser.add_argument("--part", choices=("val", "test"), default="val", help="The official part.")
    parser.add_argument("--alone", type=Path, help="Weights of HRNet's pattern trained alone.")
    parser.add_argument("--tuned", type=Path, action="append", default=[], help="Weights of a found net, tuned.")
    parser.add_argument("--target", help="Another engine than that of the search.")
    parser.add_argument("--top", type=int, default=3, help="Found nets.")
    parser.add_argument("--random", type=int, default=30, help="Random nets; 0 leaves them out.")
    parser.add_argument("--calibration", type=int, default=256, help="Pictures for BN statistics.")
    parser.add_argument("--limit", type=int, help="Judge the first so many pictures.")
    parser.add_argument("--grade", choices=("standard", "report"), default="report")
    parser.add_argument("--out", type=Path, default=RESULTS / "found_against_baseline.json")
    arguments = parser.parse_args()
    try:
        subject = subject_of(arguments.weights, (0, 0))
        found = read_search(arguments.search, arguments.top, subject.recipe)
        if arguments.target:
            if arguments.random:
                raise UserError("the budget is the search engine's: give --random 0 with --target")
            found = replace(found, config=EngineConfig(Target.parse(arguments.target)))
        first, *others = deployments(found.choices)
        nets = {name: subject.candidate(spec, first) for name, spec in subject.members.items()}
        hrnet = next(iter(nets))
        nets |= {_at(hrnet, choices): subject.candidate(subject.reference, choices) for choices in others}
        nets |= {f"found {number}": net for number, net in enumerate(found.nets, start=1)}
        drawn = best_random(arguments, found) if arguments.random else None
        if drawn is not None:
            nets[drawn.name] = drawn.best
        source = DataSource(description=arguments.data, root=arguments.data_root)
        times = latencies(subject, found, nets, source, arguments.grade)
        done = accuracies(arguments, subject, found, nets)
        result = compared(nets, times, done, hrnet)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    record: dict[str, Json] = {
        "weights": subject.weights.digest,
        "data": Path(arguments.data).name,
        "part": arguments.part,
        "limit": arguments.limit,
        "target": str(found.config.target),
        "budget_ms": found.budget,
        "grade": arguments.grade,
        "random": None if drawn is None else {"drawn": drawn.count, "kept": drawn.kept},
        **result,
        "machine": fingerprint(),
    }
    write_text(arguments.out, pretty_json(record))
    print(f"{shown(result)}\nwrote {arguments.out}")


if __name__ == "__main__":
    main()
