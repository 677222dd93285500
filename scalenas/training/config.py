"""`TrainConfig`: everything that decides what a training run gives, read strictly from YAML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import Record, read_record, to_plain
from scalenas_runtime.yaml_files import parse_yaml, read_yaml

Phase = Literal["teacher", "supernet", "finetune", "alone"]
Rule = Literal["cycle", "groups", "sandwich", "uniform"]

# What may change between sittings: none of it moves a weight. What the data's path leads to has a digest of its own.
FREE = ("minutes", "data.workers", "data.path", "data.root", "data.keep", "checkpoint_steps", "log_steps", "output")


class ModelConfig(Record, frozen=True, kw_only=True):
    """Which net.

    Attributes:
        size: Height and width of the pictures that the net is trained on and made for, multiples of 32.
        space: Name of the family.
        settings: Settings of the family; task and outputs come from the data.
        spec: The subnet of `finetune` and `alone`: a name such as `max` or `hrnet-w16`, or a spec file.
        weights: Weights to start from, a file or the name of shipped ones; None starts from random ones.
        bn_momentum: Share of a step's statistics in BN's running ones.
    """

    size: tuple[int, int]
    space: str = "scalenas"
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    spec: str = "max"
    weights: str | None = None
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        _within("bn_momentum", self.bn_momentum, 0, 1)


class DataConfig(Record, frozen=True, kw_only=True):
    """Where samples come from.

    Attributes:
        path: The description of the data, a `data.yaml`; it holds the mix of sources and their shares too. In a file
            it is relative to the file's folder.
        root: Folder that the description's sources start at, in place of its own.
        workers: Processes that prepare batches; 0 prepares them between steps.
        keep: Pictures of each source that every such process keeps in memory, read or drawn once.
        augmentation: Keys of the augmentation, over the task's defaults (docs/training.md).
        targets: Keys of the heatmaps' targets, over the recipe's own (pose).
        recipe: Fields of the task recipe, such as `decode: dark`; those left out are as the weights that the run
            starts from have them (of the same task), or else the defaults.
    """

    path: str
    root: str | None = None
    workers: int = 1
    keep: int = 0
    augmentation: dict[str, Any] = msgspec.field(default_factory=dict)
    targets: dict[str, Any] = msgspec.field(default_factory=dict)
    recipe: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _not_below("workers", self.workers)
        _not_below("keep", self.keep)


class ScheduleConfig(Record, frozen=True, kw_only=True):
    """How long, and how the learning rate goes; shares are of all steps.

    Attributes:
        steps: Steps of the optimiser; either this or `epochs`.
        epochs: Passes over the samples.
        shape: Course after the warm-up: `one-cycle` and `cosine` fall as a half cosine, `poly` as (1 - t)^power,
            `step` by gamma at each milestone, `constant` not at all.
        warmup: Share in which the rate rises: along a half cosine in `one-cycle`, else linearly.
        start: Rate at the first step, as a factor of `lr`; counts only with a warm-up.
        end: Factor that `one-cycle` and `cosine` end at.
        power: Of `poly`.
        milestones: Shares at which `step` multiplies by `gamma`, such as 170 / 210.
        gamma: See milestones.
    """

    steps: int | None = None
    epochs: float | None = None
    shape: Literal["one-cycle", "poly", "step", "cosine", "constant"] = "cosine"
    warmup: float = 0.0
    start: float = 0.04
    end: float = 0.0
    power: float = 0.9
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        _above("steps" if self.epochs is None else "epochs", cast(float, self.steps or self.epochs or 0), 0)
        for name in ("warmup", "start", "end"):
            _within(name, getattr(self, name), 0, 1)
        _above("gamma", self.gamma, 0)
        _not_below("power", self.power)
        for share in self.milestones:
            _within("milestones", share, 0, 1)
        if self.shape == "step" and not self.milestones:
            raise ValueError("shape step needs milestones, such as [0.81, 0.95]")


class OptimiserConfig(Record, frozen=True, kw_only=True):
    """How weights follow gradients; weights that a step does not use stay as they are, state included.

    Attributes:
        lr: Largest learning rate.
        kind: `sgd`, `adam` (decay adds to the gradient) or `adamw` (decay apart from it).
        weight_decay: Decay of all weights, or of convolution weights alone (see `decay_all`).
        momentum, nesterov: Of SGD.
        betas: Of Adam and AdamW.
        decay_all: Decay biases and BN's scales and shifts too, as the published recipes do.
        clip: Largest norm of all gradients together; None does not clip.
    """

    lr: float
    kind: Literal["sgd", "adam", "adamw"] = "adamw"
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    decay_all: bool = True
    clip: float | None = None

    def __post_init__(self) -> None:
        _above("lr", self.lr, 0)
        _within("weight_decay", self.weight_decay, 0, 1)
        _within("momentum", self.momentum, 0, 1)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} are outside 0..1 (1 excluded)")
        if self.kind == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.clip is not None:
            _above("clip", self.clip, 0)


class SamplingConfig(Record, frozen=True, kw_only=True):
    """Which subnets a step of phase `supernet` trains.

    Attributes:
        rule: `cycle` (the family's cycle: 11 slots as released), `groups` (the paper's nine), `uniform`, each one
            subnet a step; or `sandwich`: the largest, the smallest and `random` uniform ones, gradients added.
        random: Random subnets of a sandwich step.
    """

    rule: Rule = "cycle"
    random: int = 2

    def __post_init__(self) -> None:
        _above("random", self.random, 0)


class DistillationConfig(Record, frozen=True, kw_only=True):
    """The frozen teacher, and the weight alpha of the mean squared difference to its outputs."""

    teacher: str
    alpha: float = 1.0

    def __post_init__(self) -> None:
        _above("alpha", self.alpha, 0)


class LossConfig(Record, frozen=True, kw_only=True):
    """The task's loss; keys of the other task must stay as they are.

    Attributes:
        foreground: Pose: a pixel's squared error counts 1 + foreground x target times.
        kind: Segmentation: cross entropy of all pixels, or of the hard ones (`ohem`).
        threshold: OHEM keeps pixels whose true class has a lower probability.
        keep: OHEM keeps at least so many pixels of a batch and process.
        class_weights: Segmentation: one weight a class, or none.
    """

    foreground: float = 0.0
    kind: Literal["ce", "ohem"] = "ce"
    threshold: float = 0.9
    keep: int = 131072
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _not_below("foreground", self.foreground)
        _within("threshold", self.threshold, 0, 1)
        _above("keep", self.keep, 0)


class EvaluationConfig(Record, frozen=True, kw_only=True):
    """What is judged on the `search` split.

    Attributes:
        steps: Steps between evaluations while training; 0 evaluates at the end only.
        limit: Pictures of an evaluation while training; None takes all. The last one always takes all.
        metric: By task and joints where left out.
        calibration: Pictures of the `calibrate` split that BN statistics are measured on.
        variance: Rule of the recalibration; see `scalenas.recalibrate`.
        members: Evaluate the family's typical subnets at the end of phase `supernet`, besides max and min.
    """

    steps: int = 0
    limit: int | None = None
    metric: Literal["pck", "pckh", "oks", "miou"] | None = None
    calibration: int = 256
    variance: Literal["total", "mean"] = "total"
    members: bool = True

    def __post_init__(self) -> None:
        _not_below("steps", self.steps)
        _above("calibration", self.calibration, 0)
        if self.limit is not None:
            _above("limit", self.limit, 0)


class OutputConfig(Record, frozen=True, kw_only=True):
    """The weights file that a finished run leaves.

    Attributes:
        half: Round to float16 and store so; every figure in the card is of the rounded weights.
        choose: Weights of the last step, or of the best evaluation while training.
        licence, notice: Terms of the weights, for the card and for the manifest of every bundle made of them.
    """

    half: bool = False
    choose: Literal["last", "best"] = "last"
    licence: str = "unknown"
    notice: str = ""


class TrainConfig(Record, frozen=True, kw_only=True):
    """One training run.

    Attributes:
        phase: `teacher` (the largest net), `supernet` (sampled subnets), `finetune` (one subnet, from weights) or
            `alone` (one subnet, from the start).
        name: What cards and tables call the run.
        batch: Pictures a step, over all processes.
        precision: `bf16` computes under autocast; weights and optimiser stay float32.
        channels_last: Memory format of pictures and weights.
        device: `auto` takes a GPU where torch has one.
        cuda_graphs: On a GPU, in one process: run the net's operators as CUDA graphs, which is for nets whose kernels
            are shorter than their launches. Changes nothing on a CPU.
        checkpoint_steps: Steps between checkpoints.
        log_steps: Steps between lines of the log.
        minutes: End cleanly, with a checkpoint, after so many minutes.
    """

    phase: Phase
    model: ModelConfig
    data: DataConfig
    schedule: ScheduleConfig
    optimiser: OptimiserConfig
    batch: int
    name: str = "unnamed"
    sampling: SamplingConfig = msgspec.field(default_factory=SamplingConfig)
    distillation: DistillationConfig | None = None
    loss: LossConfig = msgspec.field(default_factory=LossConfig)
    evaluation: EvaluationConfig = msgspec.field(default_factory=EvaluationConfig)
    output: OutputConfig = msgspec.field(default_factory=OutputConfig)
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cuda_graphs: bool = False
    checkpoint_steps: int = 500
    log_steps: int = 20
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "checkpoint_steps", "log_steps"):
            _above(name, getattr(self, name), 0)
        _not_below("seed", self.seed)
        if self.minutes is not None:
            _above("minutes", self.minutes, 0)
        if self.phase == "finetune" and self.model.weights is None:
            raise ValueError("phase finetune needs model.weights, the weights to start from")
        if self.phase == "teacher" and self.model.spec != "max":
            raise ValueError("the teacher is the largest net: use phase alone for model.spec " + self.model.spec)
        if self.phase == "supernet" and self.model.spec != "max":
            raise ValueError("a supernet has no model.spec: use phase finetune or alone for " + self.model.spec)
        if self.cuda_graphs and self.sampling.rule == "sandwich":
            # A graph's gradients lie in one place; the next subnet of the step would overwrite them.
            raise ValueError("cuda_graphs cannot add the gradients of a sandwich step; take another rule or false")
        if self.output.choose == "best" and not self.evaluation.steps:
            raise ValueError("output.choose best needs evaluation.steps, the steps between evaluations")

    @property
    def spec_text(self) -> str:
        """What SPEC the phase trains, as text; `max` for a teacher and a supernet."""
        return self.model.spec if self.phase in ("finetune", "alone") else "max"


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Returns the configuration in a YAML file.

    The key `base` names a file, beside this one, whose values count where this one has none.

    Args:
        path: The file.
        changes: `a.b=value` texts over the file's values; values are YAML. A number as part of the key counts into a
            list: `schedule.milestones.0=0.5`. Epochs take the place of the file's steps, and steps that of its epochs.

    Raises:
        UserError: the file is missing or no YAML, a key is unknown (the nearest known one is named), a value does not
            fit, or a change is not `key=value`.
    """
    value = _read(path)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes key=value such as schedule.steps=100, got {change!r}")
        _put(value, key.split("."), parse_yaml(text, what=f"--set {key}"), change)
    changed = {change.partition("=")[0] for change in changes}
    for length, other in (("epochs", "steps"), ("steps", "epochs")):
        if f"schedule.{length}" in changed and f"schedule.{other}" not in changed:
            value["schedule"].pop(other, None)
    return read_record(TrainConfig, value, what=str(path))


def config_json(config: TrainConfig) -> dict[str, Json]:
    """Returns the configuration, complete, as JSON values."""
    return cast(dict[str, Json], json.loads(json.dumps(to_plain(config))))


def differences(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    """Returns one text `key: old value -> new value` for each setting that differs and decides the weights."""
    before, after = _flat(old), _flat(new)
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and not any(key == free or key.startswith(f"{free}.") for free in FREE)
    ]


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no configuration {path}; configs/train holds ready ones")
    value = read_yaml(path)
    data = value.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        data["path"] = str(path.parent / data["path"])
    base = value.pop("base", None)
    if base is None:
        return value
    if not isinstance(base, str):
        raise UserError(f"{path}: base is {base!r}; it must be the name of another configuration")
    other = path.parent / base
    if other in (*above, path):
        raise UserError(f"{path} is its own base, by way of {base}")
    return _over(_read(other, (*above, path)), value)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, item in above.items():
        nested = isinstance(item, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], item) if nested else item
    return merged


def _flat(value: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    flat: dict[str, Json] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _put(value: Any, keys: list[str], item: object, change: str) -> None:
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(value, list):
            if not key.isdecimal() or int(key) >= len(value):
                raise UserError(f"--set {change}: {key} is no place in a list of {len(value)}")
            place: Any = int(key)
        elif isinstance(value, dict):
            place = key
            if not last and value.get(key) is None:
                value[key] = {}
        else:
            raise UserError(f"--set {change}: {'.'.join(keys[:position])} holds {value!r}, which has no keys")
        if last:
            value[place] = item
        else:
            value = value[place]


def _above(name: str, value: float, low: float) -> None:
    if not low < value < math.inf:
        raise ValueError(f"{name} is {value}, it must be above {low} and finite")


def _not_below(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}, it must not be negative, and finite")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, it must be in {low}..{high}")
