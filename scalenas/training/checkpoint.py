"""Checkpoints that a kill, a power cut or a full disk cannot spoil: one folder a step, safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from scalenas.training.optimisers import State
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import CheckFailed, UserError
from scalenas_runtime.files import new_directory, write_bytes, write_text

SCHEMA = "scalenas.checkpoint/1"
KEPT = 2

_TENSORS, _RECORD = "state.safetensors", "state.json"
_FOLDER = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Best:
    """The best evaluation so far: the steps done then, and the metric."""

    step: int
    value: float


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next step depends on.

    Attributes:
        step: Steps done.
        net: Weights and buffers by name.
        optimiser: State of the optimiser by weight.
        random: torch's random state, uint8.
        config: Configuration of the run.
        best: Best evaluation so far.
        seconds: Time that training took so far, all sittings together.
        extra: What else the run wants to know when it goes on.
    """

    step: int
    net: Mapping[str, Tensor]
    optimiser: State
    random: Tensor
    config: Mapping[str, Json]
    best: Best | None = None
    seconds: float = 0.0
    extra: Mapping[str, Json] = field(default_factory=dict)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint below `folder`, removes old ones (the last two and the best stay), and returns its folder.

    One of the same step that can be read stays as it is: replacing it would leave none for a moment.

    Raises:
        CheckFailed: a weight is not finite; the checkpoints that are there stay.
        UserError: the disk is full or read-only; the checkpoints that are there stay, and the text names the last.
    """
    from safetensors.torch import save

    spoiled = [name for name, value in checkpoint.net.items() if not torch.isfinite(value).all()]
    if spoiled:
        raise CheckFailed(
            f"after step {checkpoint.step} {spoiled[0]} and {len(spoiled) - 1} other tensors are not finite; "
            f"{last_good(folder)}"
        )
    path = folder / f"step-{checkpoint.step:08d}"
    if path.is_dir() and _readable(path):
        return path
    tensors = {f"net/{name}": _plain(value) for name, value in checkpoint.net.items()}
    for name, values in checkpoint.optimiser.items():
        tensors |= {f"optimiser/{name}/{key}": _plain(value) for key, value in values.items()}
    data = save({**tensors, "random": checkpoint.random})
    record: dict[str, Json] = {
        "schema": SCHEMA,
        "step": checkpoint.step,
        "config": checkpoint.config,
        "best": _best_json(checkpoint.best),
        "seconds": checkpoint.seconds,
        "extra": checkpoint.extra,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        _remove_partial(folder)
        with new_directory(path, overwrite=True) as building:
            write_bytes(building / _TENSORS, data)
            write_text(building / _RECORD, pretty_json(record))
    except OSError as error:
        raise UserError(f"cannot write the checkpoint {path}: {error.strerror or error}; {last_good(folder)}") from None
    kept = {path, *([] if checkpoint.best is None else [folder / f"step-{checkpoint.best.step:08d}"])}
    for old in _folders(folder)[KEPT:]:
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return path


def amend_checkpoint(folder: Path, step: int, *, best: Best | None, extra: Mapping[str, Json]) -> None:
    """Sets the best evaluation and the extra values of the checkpoint of a step in one rename; its tensors stay.

    Raises:
        UserError: the disk is full or read-only, or there is no such checkpoint; those that are there stay.
    """
    path = folder / f"step-{step:08d}" / _RECORD
    try:
        record = json.loads(path.read_bytes())
        write_text(path, pretty_json({**record, "best": _best_json(best), "extra": extra}))
    except OSError as error:
        raise UserError(f"cannot write the checkpoint {path}: {error.strerror or error}; {last_good(folder)}") from None


def read_checkpoint(path: Path) -> Checkpoint:
    """Returns the checkpoint in a folder.

    Raises:
        UserError: it is damaged, of another version, or none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        record = json.loads((path / _RECORD).read_bytes())
        data = (path / _TENSORS).read_bytes()
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise UserError(f"its schema is not {SCHEMA!r}")
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            raise UserError("its tensors are not those that were written")
        tensors = load(data)
        net = {name[4:]: value for name, value in tensors.items() if name.startswith("net/")}
        optimiser: State = {}
        for name, value in tensors.items():
            if name.startswith("optimiser/"):
                weight, _, key = name.removeprefix("optimiser/").rpartition("/")
                optimiser.setdefault(weight, {})[key] = value
        best = None if record["best"] is None else Best(**record["best"])
        return Checkpoint(
            record["step"],
            net,
            optimiser,
            tensors["random"],
            record["config"],
            best,
            record["seconds"],
            record["extra"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path} is no checkpoint that can be read: {error}") from None


def newest(folder: Path) -> tuple[Checkpoint, list[str]] | None:
    """Returns the newest checkpoint that can be read, and a line about each newer one that cannot; None without any.

    Raises:
        UserError: there are checkpoints, and none can be read.
    """
    damaged: list[str] = []
    for path in _folders(folder):
        try:
            return read_checkpoint(path), damaged
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        raise UserError(f"no checkpoint in {folder} can be read: {damaged[0]}")
    return None


def last_good(folder: Path) -> str:
    """Returns a line that names the newest checkpoint."""
    found = _folders(folder)
    return f"the last good checkpoint is {found[0]}" if found else "there is no checkpoint yet"


def _folders(folder: Path) -> list[Path]:
    """Returns the folders of checkpoints, newest first."""
    found = [path for path in folder.glob("step-*") if _FOLDER.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def _remove_partial(folder: Path) -> None:
    """Removes what a killed run left half written."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _readable(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except UserError:
        return False
    return True


def _best_json(best: Best | None) -> dict[str, Json] | None:
    return None if best is None else {"step": best.step, "value": best.value}


def _plain(value: Tensor) -> Tensor:
    return value.detach().to("cpu").contiguous()
