"""The whole chain on scenes drawn here: random weights, bundle, verification, and a run in a process without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import MissingExtra, UserError
from scalenas_runtime.files import write_bytes, write_text
from scalenas_runtime.targets import Target
from scalenas_runtime.tasks import PoseRecipe

if TYPE_CHECKING:
    from scalenas.spec import SubnetSpec

TARGETS = ("onnxruntime:cpu/fp32", "openvino:cpu/fp32", "openvino:cpu/bf16")
# Small members of the family, so that the demo takes a minute: two modules fewer per stage than the published nets.
SETTINGS: dict[str, Json] = {"modules": [1, 1, 1], "stage1_blocks": 1, "depths": [2, 3]}
WIDTH = 16
SIZES = {"pose": (256, 192), "segmentation": (256, 320)}
# Seed and index of scenes by daylight: people on a lawn, and a cyclist in a street.
SCENE = (4, 1)

# What the second process does: it must come through without torch and onnx.
_RUN = """
import json, sys
from scalenas_export.cli.app import run
code = run(sys.argv[1:])
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "onnx", "onnxscript"})
assert not heavy, f"loaded by the runtime: {heavy}"
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo made for one task: bundle, drawn picture, overlay, and one row per target of the table."""

    task: str
    bundle: Path
    picture: Path
    overlay: Path
    rows: tuple[tuple[str, ...], ...]


def usable_targets(progress: Callable[[str], None]) -> tuple[Target, ...]:
    """Returns the demo's targets that this machine can run; says why where one is left out.

    Raises:
        UserError: none can.
    """
    from scalenas_runtime.backends import get_backend

    usable = []
    for text in TARGETS:
        target = Target.parse(text)
        try:
            get_backend(target.backend).check(target)
        except (UserError, MissingExtra) as error:
            progress(f"left out: {error}")
        else:
            usable.append(target)
    if not usable:
        raise UserError("no engine is installed; add one with: pip install 'scalenas-export[onnxruntime]'")
    return tuple(usable)


def show(task: str, folder: Path, targets: tuple[Target, ...], progress: Callable[[str], None]) -> Shown:
    """Exports, verifies and runs a small net of one task, and returns what was made.

    Args:
        task: `pose` or `segmentation`.
        folder: Where bundle, picture and overlay go; what an earlier demo left there is replaced.
        targets: Engines.
        progress: Takes lines about what is going on.
    """
    from scalenas_export.export_bundle import ExportRequest, export_bundle
    from scalenas_export.packing import Wanted
    from scalenas_export.recipes import spec_recipe
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.targets import EngineConfig
    from scalenas_runtime.verify import verify

    progress(f"== {task}")
    spec = demo_spec(task)
    names = "coco-17" if task == "pose" else "camvid-11"
    recipe = spec_recipe(spec, names=names)
    if isinstance(recipe, PoseRecipe):
        # A random net's heatmaps are near zero; without this the overlay would show no joint.
        recipe = msgspec.structs.replace(recipe, keypoint_threshold=0.0)
    bundle = folder / f"{task}.bundle"
    wanted = Wanted(f"demo-{task}", targets, bundle, overwrite=True)
    report = export_bundle(ExportRequest(spec, recipe, wanted, failures=folder / "failures"), progress=progress)
    opened = Bundle.open(bundle)
    rows = []
    for target in targets:
        checked = verify(opened, EngineConfig(target))
        verdict = "verified" if checked.verdict.passed else "DIFFERS"
        relative = checked.undecoded.relative if checked.undecoded else 0.0
        rows.append((task, str(target), f"{report.sizes[str(target)] / 1e6:.1f}", f"{relative:.1e}", verdict))
    picture, boxes = _draw(task, folder)
    overlay = _run_apart(bundle, picture, boxes, folder / f"{task}-run", str(targets[-1]))
    return Shown(task, bundle, picture, overlay, tuple(rows))


def demo_spec(task: str) -> SubnetSpec:
    """Returns the small net that the demo exports."""
    from scalenas.registry import get_space

    space = get_space("scalenas")
    outputs: dict[str, Json] = {"joints": 17} if task == "pose" else {"classes": 11}
    settings: dict[str, Json] = {**SETTINGS, "task": task, "width": WIDTH, **outputs}
    return space.max(settings, {"image": (3, *SIZES[task])})


def _draw(task: str, folder: Path) -> tuple[Path, Path | None]:
    """Draws people on a lawn, or a street; returns it and, for people, a file of their boxes."""
    from scalenas_runtime.scenes import person_scene, street_scene

    path = folder / f"{task}.png"
    if task == "pose":
        scene = person_scene(*SCENE, size=(480, 640))
        entries = [
            {"image_id": path.stem, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 1.0}
            for x1, y1, x2, y2 in scene.boxes.tolist()
        ]
        boxes = folder / "pose-boxes.json"
        write_text(boxes, json.dumps(entries, indent=1))
    else:
        scene, boxes = street_scene(*SCENE, size=(360, 480)), None
    write_bytes(path, _png(scene.picture))
    return path, boxes


def _run_apart(bundle: Path, picture: Path, boxes: Path | None, out: Path, target: str) -> Path:
    command = ["run", str(bundle), str(picture), "--target", target, "--out", str(out), "--overwrite"]
    command += ["--boxes", str(boxes)] if boxes else []
    done = subprocess.run([sys.executable, "-c", _RUN, *command], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"run failed in its own process: {done.stderr.strip()[-500:]}")
    return out / f"{picture.stem}.jpg"


def _png(picture: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", picture)
    assert done
    return data.tobytes()
