"""A training run from its first step, or its last checkpoint, to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from scalenas.data.loader import Batch, batches
from scalenas.data.samples import Feed
from scalenas.shipped import find_weights_file
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet
from scalenas.supernet import Supernet
from scalenas.training.checkpoint import (
    Best,
    Checkpoint,
    amend_checkpoint,
    last_good,
    newest,
    read_checkpoint,
    write_checkpoint,
)
from scalenas.training.config import TrainConfig, config_json, differences
from scalenas.training.journal import Journal, Tally
from scalenas.training.judge import Judge
from scalenas.training.loss import TaskLoss
from scalenas.training.optimisers import Optimiser
from scalenas.training.ranks import Ranks, over_ranks
from scalenas.training.replay import replay_blocks, replay_net
from scalenas.training.sampling import Sampling
from scalenas.training.schedules import rate_factor, total_steps
from scalenas.training.start import Inheritance, frame_of, inherit, new_net, single, teacher_net
from scalenas.training.step import Losses, Step, Teacher
from scalenas.training.supply import Supply
from scalenas.weights import load_weights
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import CheckFailed, UserError
from scalenas_runtime.fingerprint import fingerprint

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Place:
    """Where a run happens.

    Attributes:
        folder: Checkpoints, log and results.
        ranks: The processes that train together.
        stop: Asked after every step; true ends the run cleanly.
        quiet: No bar.
    """

    folder: Path
    ranks: Ranks = field(default_factory=Ranks)
    stop: Callable[[], bool] = lambda: False
    quiet: bool = False


class Run:
    """One training run.

    Attributes:
        config: Its configuration.
        supply: Its data.
        place: Its folder and processes.
        frame: What its nets have in common.
        net: What is trained.
        steps: Steps of the whole run.
        inheritance: What the net took from the weights it started from; None for random ones.
        parents: Digests of the weights that it started from and learned from, by role.
        commits: What was checked out when each of its sittings began, changes alone.
        done: Steps done.
        saved: Steps of the newest checkpoint, -1 without one.
        judged: Steps done at the last evaluation, -1 before the first.
    """

    def __init__(self, config: TrainConfig, supply: Supply, place: Place) -> None:
        """Builds nets, optimiser and judge.

        Raises:
            UserError: something in the configuration fits neither data nor weights.
        """
        self.config, self.supply, self.place = config, supply, place
        # Refuses a batch that the processes do not divide before anything is built.
        Feed(config.batch, config.seed, place.ranks.rank, place.ranks.world)
        self.device = torch.device("cuda" if wants_cuda(config) else "cpu")
        start = None if config.model.weights is None else load_weights(find_weights_file(config.model.weights))
        self.frame = frame_of(config, supply.recipe, start)
        self.net = new_net(self.frame, config)
        self.inheritance: Inheritance | None = None
        self.parents: dict[str, Json] = {}
        if start is not None:
            self.inheritance = inherit(self.net, self.frame, start)
            self.parents["weights"] = start.digest
        self.spec = None if isinstance(self.net, Supernet) else self.net.spec
        self.sampling = Sampling(self.frame.space, self.frame.settings, self.frame.inputs, config.sampling, config.seed)
        self.steps = total_steps(config.schedule, len(supply.samples), config.batch)
        place_net(self.net, self.device, config)
        place.ranks.share(self.net.state_dict().values())
        over_ranks(self.net, place.ranks)
        self.optimiser = Optimiser(config.optimiser, self.net.named_parameters())
        teacher = self._teacher()
        loss = TaskLoss(config.loss, supply.recipe, self.device)
        self.step = Step(self.net, loss, self.optimiser, config, supply.recipe, place.ranks, teacher, self.device)
        self.commits: list[str] = [str(fingerprint().get("commit") or "unknown")]
        self.judge = Judge(supply.recipe, supply.search, config.evaluation, supply.calibration, self.device)
        self.best: Best | None = None
        self.done, self.saved, self.judged = 0, -1, -1
        self.seconds = 0.0

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.place.folder / CHECKPOINTS

    def resume(self) -> list[str]:
        """Goes back to the newest checkpoint that can be read, if there is one, and returns lines of warning.

        They are about damaged checkpoints, and about samples that were left out or came in since then.

        Raises:
            UserError: the checkpoint is of another configuration, data or weights (the text says what differs), or none
                can be read.
        """
        found = newest(self.checkpoints)
        if found is None:
            return []
        checkpoint, damaged = found
        before = checkpoint.extra
        other = differences(checkpoint.config, config_json(self.config))
        for what, mine in self._sources().items():
            if before.get(what, mine) != mine:
                other.append(f"{what}: {before[what]} there, {mine} here")
        if other:
            raise UserError(f"the checkpoint in {self.checkpoints} is of another configuration: {'; '.join(other)}")
        self._load(checkpoint.net)
        self.optimiser.load_state(checkpoint.optimiser)
        torch.set_rng_state(checkpoint.random)
        self.done, self.best, self.seconds = checkpoint.step, checkpoint.best, checkpoint.seconds
        self.saved, self.judged = checkpoint.step, _whole(before.get("judged"), checkpoint.step)
        # Epochs of other samples would be other steps, and the schedule would jump.
        self.steps = _whole(before.get("steps"), self.steps)
        commits = before.get("commits")
        if isinstance(commits, list):
            self.commits = list(dict.fromkeys([*map(str, commits), *self.commits]))
        now = len(self.supply.samples)
        then = _whole(before.get("samples"), now)
        changed = f"an epoch had {then} samples and has {now} now, so the rest comes in another order"
        return damaged if then == now else [*damaged, changed]

    def train(self) -> Literal["finished", "stopped"]:
        """Trains to the last step, or until the time is up or `stop` says so; a checkpoint is written in any case.

        Raises:
            CheckFailed: a loss or a gradient is not finite; the text names step, subnet and the last good checkpoint.
            UserError: a checkpoint cannot be written, or a picture cannot be read (a checkpoint is written first).
        """
        ranks, begun = self.place.ranks, time.monotonic()
        earlier, first = self.seconds, self.done
        with ExitStack() as stack:
            journal = self._journal(stack)
            feed = stack.enter_context(closing(self._feed()))
            tally = Tally()
            if first and self.judged != first and self._due(self.config.evaluation.steps):
                self._evaluate(journal)
            for number in range(first, self.steps):
                asked = time.perf_counter()
                batch = self._next(feed)
                waited = time.perf_counter() - asked
                if number == first:
                    self._record(batch)
                specs = self.specs(number)
                losses = self.step(specs, batch, rate_factor(self.config.schedule, number, self.steps))
                if not losses.finite:
                    self._fail(number, specs, losses)
                tally.add(losses, waited)
                self.done, self.seconds = number + 1, earlier + time.monotonic() - begun
                ended = bool(ranks.shared(self._enough(begun)))
                if journal is not None:
                    tally = self._note(journal, tally, number)
                judged = self._due(self.config.evaluation.steps)
                if judged or ended or self._due(self.config.checkpoint_steps):
                    self._save()
                if judged:
                    self._evaluate(journal)
                if ended:
                    break
            self._save()
        return "finished" if self.done == self.steps else "stopped"

    def specs(self, step: int) -> Sequence[SubnetSpec]:
        """Returns the subnets of a step."""
        return self.sampling.specs(step) if self.spec is None else (self.spec,)

    def tensors(self) -> dict[str, Tensor]:
        """Returns weights and statistics by name; the tensors are the net's own."""
        return dict(self.net.state_dict())

    def chosen(self) -> dict[str, Tensor]:
        """Returns the tensors that the configuration wants to keep: the last step's, or the best evaluation's."""
        if self.config.output.choose == "last" or self.best is None or self.best.step == self.done:
            return self.tensors()
        return dict(read_checkpoint(self.checkpoints / f"step-{self.best.step:08d}").net)

    def subnet(self, spec: SubnetSpec, tensors: dict[str, Tensor] | None = None) -> StaticNet:
        """Returns a subnet as a static net with copies of the weights, without communication between processes."""
        return single(self.frame, self.tensors() if tensors is None else tensors, spec)

    def _teacher(self) -> Teacher | None:
        wanted = self.config.distillation
        if wanted is None:
            return None
        weights = load_weights(find_weights_file(wanted.teacher))
        net = teacher_net(self.frame, weights)
        place_net(net, self.device, self.config)
        net.requires_grad_(False)
        if self.config.precision == "bf16":
            round_convolutions(net)
        self.parents["teacher"] = weights.digest
        return Teacher(net, wanted.alpha)

    def _record(self, batch: Batch) -> None:
        """Records CUDA graphs for pictures of this batch's shape, where they are wanted."""
        if not (self.config.cuda_graphs and self.device.type == "cuda" and self.place.ranks.world == 1):
            return
        x, bf16 = self.step.pictures(batch), self.config.precision == "bf16"
        spec = self.spec or self.frame.space.max(self.frame.settings, self.frame.inputs)
        names = [node.name for node in self.frame.space.graph(spec).live()]
        replay_blocks(self.net, x, spec, names, bf16=bf16)
        if self.step.teacher is not None:
            replay_net(self.step.teacher.net, x, bf16=bf16)

    def _journal(self, stack: ExitStack) -> Journal | None:
        if not self.place.ranks.first:
            return None
        self.place.folder.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(
            Journal(self.place.folder, first_step=self.done, steps=self.steps, quiet=self.place.quiet)
        )

    def _feed(self) -> Generator[Batch, None, None]:
        ranks = self.place.ranks
        return batches(
            self.supply.samples,
            batch=self.config.batch,
            seed=self.config.seed,
            steps=self.steps - self.done,
            first_step=self.done,
            workers=self.config.data.workers,
            rank=ranks.rank,
            world=ranks.world,
        )

    def _next(self, feed: Generator[Batch, None, None]) -> Batch:
        """Returns the next batch; where one of any process fails, all of them end after a checkpoint."""
        failure: UserError | RuntimeError = UserError("another process has no batch; its own line says why")
        batch = None
        try:
            batch = next(feed)
        except (UserError, RuntimeError) as error:
            failure = error
        ranks = self.place.ranks
        missing = batch is None
        if ranks.world > 1:
            missing = bool(ranks.sum(torch.tensor(float(missing), device=self.device)))
        if batch is not None and not missing:
            return batch
        if self.done:
            self._save()
        if isinstance(failure, UserError):
            raise UserError(f"{failure}; {last_good(self.checkpoints)}") from None
        raise failure

    def _note(self, journal: Journal, tally: Tally, number: int) -> Tally:
        if self.done % self.config.log_steps and self.done != self.steps:
            journal.move(self.done)
            return tally
        line = tally.line(self.config.batch)
        rate = self.config.optimiser.lr * rate_factor(self.config.schedule, number, self.steps)
        journal.add(self.done, **line, rate=rate)
        journal.move(self.done, {"loss": line["total"], "pictures/s": line["pictures_per_second"]})
        return Tally()

    def _due(self, every: int) -> bool:
        return every > 0 and self.done % every == 0

    def _enough(self, begun: float) -> bool:
        minutes = self.config.minutes
        return self.place.stop() or (minutes is not None and time.monotonic() - begun >= 60 * minutes)

    def _evaluate(self, journal: Journal | None) -> None:
        """Judges the largest subnet, or the one net, and notes the best beside the checkpoint of this step."""
        value = None
        if self.place.ranks.first:
            spec = self.spec or self.frame.space.max(self.frame.settings, self.frame.inputs)
            limit = self.config.evaluation.limit
            done = self.judge.judge(self.subnet(spec), recalibrated=self.spec is None, limit=limit)
            value = done.value
            if journal is not None and value == value:
                journal.add(self.done, **{done.metric: value})
        value = self.place.ranks.shared(value)
        if value == value and (self.best is None or value > self.best.value):
            self.best = Best(self.done, float(value))
        self.judged = self.done
        if self.place.ranks.first:
            amend_checkpoint(self.checkpoints, self.done, best=self.best, extra=self._extra())
        self.place.ranks.wait()

    def _save(self) -> None:
        """Writes a checkpoint, unless there is one of this step."""
        if self.saved != self.done:
            self._write()
            self.saved = self.done
            self.place.ranks.wait()

    def _write(self) -> None:
        if self.place.ranks.first:
            write_checkpoint(
                self.checkpoints,
                Checkpoint(
                    self.done,
                    self.tensors(),
                    self.optimiser.state(),
                    torch.get_rng_state(),
                    config_json(self.config),
                    self.best,
                    self.seconds,
                    self._extra(),
                ),
            )

    def _extra(self) -> dict[str, Json]:
        """Returns what a checkpoint knows beside weights, states and configuration."""
        counts: dict[str, Json] = {"judged": self.judged, "steps": self.steps, "samples": len(self.supply.samples)}
        return {**self._sources(), **counts, "commits": [*self.commits]}

    def _sources(self) -> dict[str, Json]:
        """Returns what paths in the configuration do not tell: which data, which weights to start from, which net."""
        known: dict[str, Json] = {"data": self.supply.digest}
        known |= {f"digest of the {role}": each for role, each in self.parents.items()}
        return known if self.spec is None else {**known, "spec": self.spec.digest}

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.net.state_dict().items():
                tensor.copy_(tensors[name])

    def _fail(self, number: int, specs: Sequence[SubnetSpec], losses: Losses) -> None:
        shown = ", ".join(spec.digest[:16] for spec in specs)
        what = f"the loss is {losses.total}"
        if math.isfinite(losses.total):
            what += f" and the norm of its gradients {losses.gradient}"
        raise CheckFailed(
            f"step {number}: {what} with subnet {shown}; {last_good(self.checkpoints)}; a smaller "
            "optimiser.lr or optimiser.clip may help"
        )


def _whole(value: Json, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def place_net(net: nn.Module, device: torch.device, config: TrainConfig) -> None:
    """Moves a net to a device, with weights in the memory format of the configuration, in place."""
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    net.to(device=device)
    for weight in net.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=layout)


def round_convolutions(net: nn.Module) -> None:
    """Stores a frozen net's convolutions in bfloat16, in place.

    Under autocast its outputs stay the same to the bit: autocast rounds the weights in the same way, but those
    without gradient anew at every call.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(dtype=torch.bfloat16)


def wants_cuda(config: TrainConfig) -> bool:
    """Returns whether a run computes on a GPU.

    Raises:
        UserError: it must, and torch finds none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, and torch finds no GPU; take device=cpu or auto")
    return config.device != "cpu" and torch.cuda.is_available()
