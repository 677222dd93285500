"""Rules that choose the subnets of a training step, compared at the same number of subnet passes.

    python benchmarks/bench_sampling_rules.py [--device cuda] [--seeds 3] [--passes 720]
    python benchmarks/bench_sampling_rules.py --only groups:0 --only groups:1     # some of the runs, in this process
    python benchmarks/bench_sampling_rules.py --collect                           # table and JSON of all runs

Every run trains a small supernet on drawn people from the same weights and pictures of its seed; only the rule differs.
`groups` (the paper's nine), `cycle` (as released) and `uniform` train one subnet a step; `sandwich` trains four and
takes a quarter of the steps. Accuracy is that of the same subnets in every run, some at each of three levels of cost,
with BN statistics of their own. Runs are independent processes' work: a run that was killed goes on from its last
checkpoint, and one that is there is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from scalenas.spec import SubnetSpec
from scalenas.training.config import Rule, TrainConfig, config_json, read_config
from scalenas.training.run import Place, Run
from scalenas.training.start import Frame
from scalenas.training.supply import open_supply
from scalenas_runtime.canonical import Json, canonical_json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "sampling_rules.json"
RULES: tuple[Rule, ...] = ("groups", "cycle", "sandwich", "uniform")
LEVELS = {"low": 0.1, "mid": 0.5, "high": 0.9}
POOL = 600
# Four depths give the nine groups of the paper; the smoke recipe's two would give three.
CHANGES = ("model.settings.depths=[1,2,3,4]", "evaluation.calibration=128", "evaluation.limit=200")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A subnet that all runs are judged by: its level of cost, the spec, and its MACs."""

    level: str
    spec: SubnetSpec
    macs: int


def config_of(rule: Rule, seed: int, options: argparse.Namespace) -> TrainConfig:
    """Returns the configuration of one run; passes are steps times subnets a step.

    Raises:
        UserError: the passes are no whole number of steps.
    """
    random = 2
    subnets = 2 + random if rule == "sandwich" else 1
    if options.passes % subnets:
        raise UserError(f"--passes {options.passes} is no multiple of {subnets}, the subnets of a {rule} step")
    own = [
        f"schedule.steps={options.passes // subnets}",
        f"sampling.rule={rule}",
        f"sampling.random={random}",
        f"seed={seed}",
        f"device={options.device}",
        f"name=sampling-{rule}-{seed}",
    ]
    return read_config(options.config, [*CHANGES, *options.set, *own])


def choose(frame: Frame, *, per_level: int, seed: int = 0) -> tuple[Chosen, ...]:
    """Returns subnets near three quantiles of the MACs of a pool, `per_level` each.

    The pool is drawn in equal parts from every group and from all subnets alike, so that it holds the cheap and the
    dear ones that uniform draws hardly ever give; no rule draws from exactly this pool.
    """
    space, settings = frame.space, frame.settings
    names = (*space.groups(settings), "uniform")
    rng = np.random.default_rng(seed)
    drawn = [
        space.sample(rng, settings=settings, inputs=frame.inputs, group=names[number % len(names)])
        for number in range(POOL)
    ]
    macs = np.array([space.cost(spec).macs for spec in drawn], np.float64)
    found: list[Chosen] = []
    for level, share in LEVELS.items():
        near = np.argsort(np.abs(macs - np.quantile(macs, share)), kind="stable")[:per_level]
        found += [Chosen(level, drawn[int(index)], int(macs[index])) for index in near]
    return tuple(found)


def carry_out(rule: Rule, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and judges one run, or goes on with it, and returns its record; a finished one is read from its file.

    Raises:
        UserError: the record there is of another configuration.
    """
    config = config_of(rule, seed, options)
    folder = options.folder / f"{rule}-{seed}"
    path = folder / "record.json"
    asked: dict[str, Any] = {"config": config_json(config), "per_level": options.per_level}
    if path.is_file():
        record = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        if {key: record[key] for key in asked} != asked:
            raise UserError(f"{path} is of another configuration; name another --folder")
        return record
    run = Run(config, open_supply(config), Place(folder, quiet=True))
    for line in run.resume():
        print(f"warning: {line}")
    run.train()
    begun = time.perf_counter()
    rows: list[Json] = []
    for chosen in choose(run.frame, per_level=options.per_level):
        done = run.judge.judge(run.subnet(chosen.spec), recalibrated=True, limit=config.evaluation.limit)
        rows.append(
            {
                "level": chosen.level,
                "spec": chosen.spec.digest,
                "macs": chosen.macs,
                "metric": done.metric,
                "value": done.value,
                "interval": None if done.interval is None else list(done.interval),
            }
        )
    record = {
        **asked,
        "rule": rule,
        "seed": seed,
        "subnet_passes": run.steps * run.sampling.passes,
        "steps": run.steps,
        "train_seconds": run.seconds,
        "judge_seconds": time.perf_counter() - begun,
        "device": str(run.device),
        "machine": fingerprint(),
        "rows": rows,
    }
    write_text(path, pretty_json(record))
    return record


def level_means(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the mean accuracy of a run's subnets at each level, and over all of them under `all`."""
    by_level = {
        level: statistics.fmean(row["value"] for row in record["rows"] if row["level"] == level) for level in LEVELS
    }
    return {**by_level, "all": statistics.fmean(by_level.values())}


def mean_with_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean and the half width of its 95 % interval (Student's t); None for a single value."""
    from scipy import stats

    count = len(values)
    if count < 2:
        return statistics.fmean(values), None
    half = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(values) / count**0.5
    return statistics.fmean(values), half


def compare(records: Sequence[Mapping[str, Any]], *, against: str = "uniform") -> list[dict[str, Json]]:
    """Returns one row per rule and level: mean over seeds, its interval, and the same of the difference to `against`.

    Differences are taken within a seed, whose weights and pictures all rules share.
    """
    means = {(record["rule"], record["seed"]): level_means(record) for record in records}
    rows: list[dict[str, Json]] = []
    for rule in (rule for rule in RULES if any(rule == key[0] for key in means)):
        seeds = sorted(seed for other, seed in means if other == rule)
        for level in (*LEVELS, "all"):
            mean, half = mean_with_interval([means[rule, seed][level] for seed in seeds])
            row: dict[str, Json] = {"rule": rule, "level": level, "seeds": len(seeds), "mean": mean, "half_width": half}
            paired = [seed for seed in seeds if (against, seed) in means]
            if paired and rule != against:
                gaps = [means[rule, seed][level] - means[against, seed][level] for seed in paired]
                gap, width = mean_with_interval(gaps)
                row |= {f"minus_{against}": gap, "difference_half_width": width}
            rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]], *, against: str = "uniform") -> str:
    """Returns the comparison for people, in per cent."""
    lines = [f"{'rule':9} {'level':5} {'seeds':>5}  {'accuracy':>15}  minus {against}"]
    for row in rows:
        gap = _shown(row[f"minus_{against}"], row["difference_half_width"]) if f"minus_{against}" in row else "-"
        shown = _shown(row["mean"], row["half_width"])
        lines.append(f"{row['rule']:9} {row['level']:5} {row['seeds']:5}  {shown:>15}  {gap:>15}")
    return "\n".join(lines) + "\n"


def collect(options: argparse.Namespace) -> None:
    """Prints the table of all runs in the folder and writes it with their records.

    Raises:
        UserError: there are no records, or they are of different configurations.
    """
    paths = sorted(options.folder.glob("*/record.json"))
    if not paths:
        raise UserError(f"there is no record in {options.folder}; carry out some runs first")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    kinds = {canonical_json(_common(record["config"])) for record in records}
    if len(kinds) > 1:
        raise UserError(f"{options.folder} holds runs of {len(kinds)} configurations; give each its own --folder")
    rows = compare(records)
    print(table(rows), end="")
    machines = [record["machine"] for record in records]
    document: dict[str, Json] = {
        "machines": [machine for place, machine in enumerate(machines) if machine not in machines[:place]],
        "table": cast("Json", rows),
        "runs": [_shareable(record) for record in records],
    }
    write_text(options.json, pretty_json(document))


def _shareable(record: Mapping[str, Any]) -> dict[str, Json]:
    """Returns a record without its machine, the data's description named from the checkout on."""
    config = record["config"]
    path = Path(config["data"]["path"]).resolve()
    if path.is_relative_to(ROOT):
        config = {**config, "data": {**config["data"], "path": path.relative_to(ROOT).as_posix()}}
    return {**{key: item for key, item in record.items() if key != "machine"}, "config": config}


def _common(config: Mapping[str, Any]) -> dict[str, Json]:
    """Returns what the runs of one comparison have in common: all but rule, seed, name and the steps that follow."""
    own: dict[str, Json] = {key: value for key, value in config.items() if key not in ("seed", "name")}
    passes = config["schedule"]["steps"] * (
        2 + config["sampling"]["random"] if config["sampling"]["rule"] == "sandwich" else 1
    )
    return {
        **own,
        "sampling": {**config["sampling"], "rule": ""},
        "schedule": {**config["schedule"], "steps": passes},
    }


def wanted(texts: Sequence[str], seeds: int) -> list[tuple[Rule, int]]:
    """Returns the runs that `--only` texts name, all if there are none.

    Raises:
        UserError: a text is not RULE:SEED.
    """
    if not texts:
        return [(rule, seed) for seed in range(seeds) for rule in RULES]
    found: list[tuple[Rule, int]] = []
    for text in texts:
        rule, _, seed = text.partition(":")
        if rule not in get_args(Rule) or not seed.isdecimal():
            raise UserError(f"--only takes RULE:SEED with a rule of {', '.join(RULES)}, got {text!r}")
        found.append((cast(Rule, rule), int(seed)))
    return found


def parser() -> argparse.ArgumentParser:
    """Returns the options."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--config", type=Path, default=ROOT / "configs" / "train" / "smoke-pose.yaml")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Change a key of the runs.")
    made.add_argument("--passes", type=int, default=720, help="Subnet passes of a run.")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--per-level", type=int, default=3, help="Subnets judged at each level of cost.")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--folder", type=Path, default=Path("runs/sampling-rules"))
    made.add_argument("--only", action="append", default=[], metavar="RULE:SEED")
    made.add_argument("--collect", action="store_true", help="Only collect the runs that are there.")
    made.add_argument("--json", type=Path, default=RESULT)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Carries out runs and collects them."""
    options = parser().parse_args(arguments)
    if not options.collect:
        for rule, seed in wanted(options.only, options.seeds):
            record = carry_out(rule, seed, options)
            shown = ", ".join(f"{level} {100 * value:.1f}" for level, value in level_means(record).items())
            print(f"{rule}:{seed}  {record['train_seconds']:.0f} s  {shown}", flush=True)
    if options.collect or not options.only:
        collect(options)


def _shown(mean: float, half: float | None) -> str:
    return f"{100 * mean:.2f}" + ("" if half is None else f" ± {100 * half:.2f}")


if __name__ == "__main__":
    main()
