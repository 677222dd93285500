"""The demo's pictures: a scene drawn here or one of the user's, run through a bundle in a process without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_bytes, write_text

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
class Picture:
    """A picture file and, for people, a COCO detections file of their boxes (None: the whole picture is one)."""

    path: Path
    boxes: Path | None = None


def drawn_picture(task: str, folder: Path) -> Picture:
    """Draws people on a lawn, or a street, into `folder`."""
    from scalenas_runtime.scenes import person_scene, street_scene

    path = folder / f"{task}.png"
    if task == "segmentation":
        write_bytes(path, _png(street_scene(*SCENE, size=(360, 480)).picture))
        return Picture(path)
    scene = person_scene(*SCENE, size=(480, 640))
    write_bytes(path, _png(scene.picture))
    entries = [
        {"image_id": path.stem, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 1.0}
        for x1, y1, x2, y2 in scene.boxes.tolist()
    ]
    boxes = folder / "pose-boxes.json"
    write_text(boxes, json.dumps(entries, indent=1))
    return Picture(path, boxes)


def run_apart(bundle: Path, picture: Picture, out: Path, target: str) -> Path:
    """Runs a bundle on a picture in a process of its own and returns the overlay.

    Raises:
        UserError: the picture cannot be run; the text is that of `run`.
        RuntimeError: the process loaded torch or onnx, or broke.
    """
    command = ["run", str(bundle), str(picture.path), "--target", target, "--out", str(out), "--overwrite"]
    command += ["--boxes", str(picture.boxes)] if picture.boxes else []
    done = subprocess.run([sys.executable, "-c", _RUN, *command], check=False, capture_output=True, text=True)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().removeprefix("error: "))
    if done.returncode:
        raise RuntimeError(f"run failed in its own process: {done.stderr.strip()[-500:]}")
    return out / f"{picture.path.stem}.jpg"


def _png(picture: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", picture)
    assert done
    return data.tobytes()
