"""`train`: a configuration and data in, weights with a card out."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import structs

from scalenas_export.cli.common import emit, note, resume_line, verb, working_folder
from scalenas_runtime.errors import UserError, missing_extra

if TYPE_CHECKING:
    from scalenas.training.config import TrainConfig
    from scalenas.training.ranks import Ranks
    from scalenas.training.run import Run
    from scalenas_runtime.canonical import Json

# What parts a run into sittings and changes no weight.
_SITTING = re.compile(r"--resume$|--minutes(=|$)")
_CPU_MEMORY = "DefaultCPUAllocator: "


@verb("train")
@click.argument("recipe", metavar="CONFIG.yaml", type=click.Path(path_type=Path))
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key, such as schedule.steps=100.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of --out, or of the last run here.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="End cleanly, with a checkpoint, after so many minutes.",
)
@click.option("--dry-run", is_flag=True, help="Show steps, MACs, memory and estimated hours, and stop.")
@click.option("--data-root", help="Folder that the paths in the data's description start at.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; runs/train/<n> where left out.")
@click.option("--runs", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
def command(  # noqa: PLR0913 - one parameter per option
    recipe: Path,
    changes: tuple[str, ...],
    resume: bool,
    minutes: float | None,
    dry_run: bool,
    data_root: str | None,
    out: Path | None,
    runs: Path,
    as_json: bool,
) -> int:
    """Train what CONFIG.yaml describes: a teacher, a supernet, or one subnet.

    The run's folder gets checkpoints, log.jsonl, TensorBoard events, and at the end weights.safetensors, report.json
    and card.md. A killed run goes on with --resume as if nothing had happened; Ctrl-C ends after the step (exit code
    130). Several processes: `torchrun --nproc-per-node N --no-python scalenas-export train ...`.
    """
    _need_torch()
    import torch

    from scalenas.training.config import read_config
    from scalenas.training.ranks import join
    from scalenas.training.run import wants_cuda

    given = [f"minutes={minutes:.9f}"] if minutes is not None else []
    config = read_config(recipe, [*changes, *given])
    if data_root is not None:
        config = structs.replace(config, data=structs.replace(config.data, root=data_root))
    ranks = join(cuda=wants_cuda(config))
    try:
        if dry_run:
            _show_plan(config, ranks, as_json=as_json)
            return 0
        folder = Path(ranks.shared(_folder(out, runs, resume=resume) if ranks.first else None))
        return _train(config, folder, ranks, resume=resume, as_json=as_json)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_large(config, error) from None
    except RuntimeError as error:
        # What torch's allocator of CPU memory raises has no class of its own.
        if _CPU_MEMORY not in str(error):
            raise
        raise _too_large(config, error) from None
    finally:
        ranks.close()


def _folder(out: Path | None, runs: Path, *, resume: bool) -> str:
    from scalenas.training.run import CHECKPOINTS

    return str(working_folder("train", out, runs, resume=resume, holds=CHECKPOINTS))


def _show_plan(config: TrainConfig, ranks: Ranks, *, as_json: bool) -> None:
    from scalenas.training.plan import plan
    from scalenas.training.run import Place, Run
    from scalenas.training.supply import open_supply

    run = Run(config, open_supply(config), Place(Path(), ranks))
    if ranks.first:
        _note_precision(run)
    made = plan(run)
    if ranks.first:
        emit(made.to_json(), made.text(), as_json=as_json)


def _train(config: TrainConfig, folder: Path, ranks: Ranks, *, resume: bool, as_json: bool) -> int:
    """Trains, and returns the exit code."""
    from scalenas.training.finish import finish, table
    from scalenas.training.run import Place, Run
    from scalenas.training.supply import open_supply
    from scalenas_export.interrupts import INTERRUPTED, Interrupts

    stop = Interrupts(note if ranks.first else lambda _: None, "stopping after this step; once more ends at once")
    run = Run(config, open_supply(config), Place(folder, ranks, stop, quiet=not ranks.first))
    for line in run.supply.notes if ranks.first else ():
        note(line)
    if ranks.first:
        _note_precision(run)
    if ranks.first and run.inheritance is not None:
        fresh = len(run.inheritance.fresh)
        note(f"{run.inheritance.copied} tensors from {config.model.weights}, {fresh} start anew")
    if resume:
        for line in run.resume():
            if ranks.first:
                note(f"warning: {line}")
        if ranks.first:
            note(f"going on after step {run.done} of {run.steps}" if run.done else "no checkpoint yet: from the start")
    with stop:
        ended = run.train()
    if ended == "stopped":
        if ranks.first:
            document: dict[str, Json] = {"folder": str(folder), "ended": ended, "steps": run.done, "of": run.steps}
            text = f"stopped after step {run.done} of {run.steps}; go on with {resume_line(folder)}\n"
            emit(document, text, as_json=as_json)
        return INTERRUPTED if stop() else 0
    if not ranks.first:
        return 0
    done = finish(run, command=_command())
    results: dict[str, Json] = {"folder": str(folder), "ended": ended, "weights": str(done.weights), **done.report}
    emit(results, f"{table(done.rows)}{done.weights}\n", as_json=as_json)
    return 0


def _note_precision(run: Run) -> None:
    from scalenas.training.precision import precision_note

    line = precision_note(run.config, run.device)
    if line is not None:
        note(f"warning: {line}")


def _too_large(config: TrainConfig, error: BaseException) -> UserError:
    reason = str(error).partition(_CPU_MEMORY)[2] or str(error).split(". ")[0] or type(error).__name__
    return UserError(
        f"a step of batch {config.batch} does not fit the memory ({reason}); --dry-run says what a step takes: "
        "take a smaller batch, more processes (torchrun), or precision=bf16, and go on with --resume"
    )


def _command() -> str:
    """Returns the command that makes the run anew: as it was given, but for its sittings and where the data lie."""
    given = sys.argv[1:]
    pairs = zip(["", *given], given, strict=False)
    kept = [word for before, word in pairs if before != "--minutes" and not _SITTING.match(word)]
    words = ["scalenas-export", *kept]
    hidden = ["DATA" if before == "--data-root" else word for before, word in zip(["", *words], words, strict=False)]
    return shlex.join(re.sub(r"^((?:--set=)?data\.root|--data-root)=.*", r"\1=DATA", word) for word in hidden)


def _need_torch() -> None:
    from importlib.util import find_spec

    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise missing_extra(package, "search")
