"""Small nets, exported: what tests of the chain share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from scalenas.registry import get_space
from scalenas_export.export_bundle import ExportRequest, export_bundle
from scalenas_export.packing import Report, Wanted
from scalenas_export.recipes import spec_recipe
from scalenas_runtime.canonical import Json
from scalenas_runtime.targets import Target


@dataclass(frozen=True)
class SmallExport:
    """A bundle of a small net with random weights, and the request that made it."""

    bundle: Path
    request: ExportRequest
    report: Report


def small_request(task: str, out: Path, *targets: str, seed: int = 0) -> ExportRequest:
    """Returns a request for a net that exports in seconds: every kind of module, few of each."""

    outputs: dict[str, Json] = {"joints": 14} if task == "pose" else {"classes": 11}
    settings: dict[str, Json] = {
        "task": task,
        "width": 8,
        "modules": [1, 1, 1],
        "stage1_blocks": 1,
        "depths": [2],
        **outputs,
    }
    size = (96, 64) if task == "pose" else (64, 96)
    spec = get_space("scalenas").max(settings, {"image": (3, *size)})
    wanted = Wanted(f"small-{task}", tuple(Target.parse(text) for text in targets), out, (2,), ("raw", "end2end"))
    recipe = spec_recipe(spec, names="lspet-14" if task == "pose" else "camvid-11")
    return ExportRequest(spec, recipe, wanted, seed=seed, failures=out.parent / "failures")


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: layers this small only wait for each other on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small_export(task: str, folder: Path) -> SmallExport:
    """Exports the small net of a task."""

    request = small_request(task, folder / f"{task}.bundle", "onnxruntime:cpu/fp32", "openvino:cpu/fp32")
    with one_thread():
        return SmallExport(request.wanted.out, request, export_bundle(request, progress=lambda line: None))
