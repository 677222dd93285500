"""A net that a search found against HRNet's: latency at grade `report`, accuracy on official pictures.

    python -m benchmarks.bench_found_against_baseline runs/search/1 --weights pose-w16 --data configs/data/lspet.yaml
        --data-root DATA --part val [--alone pose-w16-alone.safetensors] [--tuned found.safetensors] [--top 3]
        [--random 30] [--out benchmarks/results/found_against_baseline.json]

Takes the best `--top` nets of a finished search under a budget, and measures them in fresh processes in turns with the
nets of the supernet that go by a name (HRNet's pattern, uniform depths, the smallest) and the best of `--random` nets
drawn under the same budget and judged on the `search` part, as the search did. All of them are judged on the official
part through the engine. The baseline is the better of HRNet's pattern inside the supernet and the same net trained
alone (`--alone`). A found net that was tuned on the training data (`--tuned`) has a row of its own, with the latency of
its like out of the supernet, whose engine has the same layers. A net counts as equal where the 95 % lower bound of its
difference (paired bootstrap over pictures) is at least -0.5 points, and as found where it also takes at most 1/1.3 of
the baseline's latency.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.evaluate_members import accuracy
from benchmarks.live_search import RESULTS, Subject, instruments, subject_of
from scalenas.data.dataset import open_dataset
from scalenas.inheriting import inherit
from scalenas.search import Study, Trial
from scalenas.spec import SubnetSpec
from scalenas.training.judge import judge_of
from scalenas.transferred_statistics import rule_for, statistics_by
from scalenas.weights import Weights, load_weights
from scalenas_export.search.accuracy import judging_config
from scalenas_export.search.data import DataSource
from scalenas_export.search.finalists import Entry, confirm
from scalenas_export.search.judging import prepare
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

SPEEDUP, SLACK = 1.3, -0.005
ALONE, TUNED = "trained alone", " tuned"


@dataclass(frozen=True, slots=True)
class Found:
    """What a finished search left.

    Attributes:
        nets: Its best nets, best first.
        budget: In milliseconds, on the search's own scale.
        config: Its engine.
        headlines: That scale: milliseconds of the reference by target.
        limit: How many pictures candidates were judged on at most, None for all.
        calibration: Pictures that BN statistics came from.
    """

    nets: tuple[SubnetSpec, ...]
    budget: float
    config: EngineConfig
    headlines: Mapping[str, float]
    limit: int | None
    calibration: int


def read_search(folder: Path, top: int) -> Found:
    """Returns the best nets of a search under a budget that no name stands for.

    Raises:
        UserError: there is no study, or it had several targets, genes of deployment, or no budget.
    """
    study = Study.open(folder / "study.db")
    head, trials = study.head, study.trials
    headlines = headlines_of(study)
    study.close()
    targets = head.identity["target"]
    if not isinstance(targets, list) or len(targets) != 1 or head.choices or "latency" not in study.limits:
        raise UserError(f"{folder} holds a search with several targets, deployment genes or no budget")
    done = [trial for trial in trials if trial.state == "complete" and trial.origin != "enqueued"]
    best = sorted(done, key=lambda trial: -trial.values["accuracy"])[:top]
    data: Any = head.identity["data"]
    return Found(
        tuple(trial.spec for trial in best),
        study.limits["latency"],
        EngineConfig.from_json(targets[0]),
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


def best_random(arguments: argparse.Namespace, found: Found) -> SubnetSpec | None:
    """Returns the best of so many nets drawn under the budget of the search, by accuracy on the `search` part.

    Raises:
        UserError: the search left no scale, so that its budget means nothing here.
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
        )
        view = Counted(print)
        result = run_search(request, view=view, stop=lambda: view.drawn >= arguments.random)
        drawn = [each for each in result.study.trials if each.state == "complete" and each.origin != "enqueued"]
        result.study.close()
    return max(drawn, key=lambda trial: trial.values["accuracy"]).spec if drawn else None


def latencies(
    subject: Subject, found: Found, nets: Mapping[str, SubnetSpec], source: DataSource, grade: str
) -> dict[str, Finalist]:
    """Returns all nets measured in fresh processes, in turns.

    Raises:
        UserError: one of them could not be measured.
    """
    with TemporaryDirectory(prefix="scalenas-bench-") as place:
        entries = []
        with instruments(subject, found.config, source=source) as (evaluator, _, _):
            for number, (name, spec) in enumerate(nets.items()):
                path = Path(place) / f"{number}.onnx"
                recipe = evaluator.write_graph(spec, {}, path)
                trial = Trial(subject.candidate(spec), "complete", {}, {}, "benchmark", {})
                entries.append(Entry(name, trial, found.config, path, recipe))
        lost: list[str] = []
        done = confirm(entries, LatencyQuestion(), budget=found.budget, grade=grade, lost=lost)
        if lost:
            raise UserError("; ".join(lost))
    return {each.label: each for each in done}


def accuracies(
    arguments: argparse.Namespace, subject: Subject, found: Found, nets: Mapping[str, SubnetSpec]
) -> dict[str, Evaluation]:
    """Returns the accuracy of all nets on the official part, and of the one trained alone as `ALONE`."""
    dataset = open_dataset(arguments.data, root=arguments.data_root)
    statistics = judge_of(
        dataset, subject.recipe, arguments.part, calibration=arguments.calibration, device=torch.device("cpu")
    )
    prepared = prepare(subject.recipe, statistics.data, metric=None, limit=arguments.limit)
    config = judging_config(found.config, subject.recipe)
    done = {}
    set_statistics = statistics_by(rule_for(subject.weights), subject.weights, subject.space, statistics.recalibrate)
    for name, spec in nets.items():
        net = inherit(subject.weights, spec)
        set_statistics(net)
        done[name] = accuracy(net, subject.recipe, prepared, config)
        print(f"{name}: {100 * done[name].value:.2f} %", flush=True)
    if arguments.alone is not None:
        alone = load_weights(arguments.alone)
        if alone.spec is None:
            raise UserError(f"{arguments.alone} holds a supernet; --alone is one net trained alone")
        if alone.recipe != subject.recipe or not _is_net(subject, alone.spec, subject.reference):
            raise UserError(
                f"{arguments.alone} is not HRNet's pattern of this supernet, with its recipe, trained alone"
            )
        done[ALONE] = accuracy(inherit(alone, alone.spec), subject.recipe, prepared, config)
    for path in arguments.tuned:
        tuned = load_weights(path)
        name = _found_name(subject, nets, tuned, path)
        assert tuned.spec is not None
        done[f"{name}{TUNED}"] = accuracy(inherit(tuned, tuned.spec), subject.recipe, prepared, config)
    return done


def _is_net(subject: Subject, own: SubnetSpec, spec: SubnetSpec) -> bool:
    """Returns whether a net on its own computes what a net of the supernet does, at the supernet's size."""
    sized = subject.space.adapt(own, settings={}, size=(subject.recipe.height, subject.recipe.width))
    return subject.space.live(sized).digest == subject.space.live(spec).digest


def _found_name(subject: Subject, nets: Mapping[str, SubnetSpec], tuned: Weights, path: Path) -> str:
    if tuned.spec is None or tuned.recipe != subject.recipe:
        raise UserError(f"{path} holds no single net with the supernet's recipe")
    for name, spec in nets.items():
        if name.startswith("found") and _is_net(subject, tuned.spec, spec):
            return name
    raise UserError(f"{path} holds a net that is not among the best of the search; a larger --top may have it")


def compared(
    nets: Mapping[str, SubnetSpec], times: Mapping[str, Finalist], done: Mapping[str, Evaluation], hrnet: str
) -> dict[str, Any]:
    """Returns one row a net against the baseline, and whether a found one is as good and fast enough."""
    rivals = [hrnet, *([ALONE] if ALONE in done else [])]
    baseline = max(rivals, key=lambda name: done[name].value)
    rows = []
    for name in done:
        # Trained alone, tuned or inside, it is the same net and the same engine.
        measured = hrnet if name == ALONE else name.removesuffix(TUNED)
        place = times[measured]
        ratio = times[hrnet].value / place.value
        gap = difference(_counts(done[name]), _counts(done[baseline]))
        rows.append(
            {
                "net": name,
                "spec_digest": nets[measured].digest,
                "accuracy": done[name].value,
                "interval": list(done[name].interval or ()),
                "difference": list(gap),
                "equal": gap[1] >= SLACK,
                "median_ms": place.value,
                "interval_ms": list(place.interval),
                "speedup": ratio,
                "flags": list(place.measurement.flags),
            }
        )
    won = [
        str(row["net"])
        for row in rows
        if str(row["net"]).startswith("found") and row["equal"] and times[hrnet].value >= SPEEDUP * _number(row)
    ]
    return {"baseline": baseline, "rows": rows, "won": won}


def _number(row: Mapping[str, Any]) -> float:
    return float(row["median_ms"])


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
            f"{row['net']:16} {100 * row['accuracy']:6.2f} % ({gap:+.2f}, 95 % {low:+.2f} to {high:+.2f}), "
            f"{row['median_ms']:.2f} ms, {row['speedup']:.2f} times as fast"
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
        found = read_search(arguments.search, arguments.top)
        if arguments.target:
            if arguments.random:
                raise UserError("the budget is the search engine's: give --random 0 with --target")
            found = replace(found, config=EngineConfig(Target.parse(arguments.target)))
        nets = dict(subject.members)
        nets |= {f"found {number}": spec for number, spec in enumerate(found.nets, start=1)}
        drawn = best_random(arguments, found) if arguments.random else None
        if drawn is not None:
            nets[f"best of {arguments.random} drawn"] = drawn
        source = DataSource(description=arguments.data, root=arguments.data_root)
        times = latencies(subject, found, nets, source, arguments.grade)
        done = accuracies(arguments, subject, found, nets)
        result = compared(nets, times, done, next(iter(subject.members)))
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
        **result,
        "machine": fingerprint(),
    }
    write_text(arguments.out, pretty_json(record))
    print(f"{shown(result)}\nwrote {arguments.out}")


if __name__ == "__main__":
    main()
