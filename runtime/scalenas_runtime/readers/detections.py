"""Person boxes that a detector found on a data set's pictures, by the pictures' ids."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np

from scalenas_runtime.boxes import PERSON, Detections
from scalenas_runtime.errors import UserError
from scalenas_runtime.readers.annotations import entries, read_json


class _Detection(msgspec.Struct):
    image_id: int
    bbox: tuple[float, float, float, float]
    score: float = 1.0
    category_id: int = PERSON


def read_detections(path: str | Path) -> dict[int, Detections]:
    """Returns the boxes of a COCO detections file by `image_id`; entries of other categories than 1 are left out.

    Raises:
        UserError: not a JSON list of `{image_id, bbox [x, y, w, h], score, category_id}`, or a box without area.
    """
    file = Path(path)
    found: dict[int, list[_Detection]] = defaultdict(list)
    for number, entry in enumerate(entries(read_json(file), "", _Detection, file)):
        if entry.category_id != PERSON:
            continue
        if not (np.isfinite(entry.bbox).all() and entry.bbox[2] > 0 and entry.bbox[3] > 0):
            raise UserError(f"{file}: entry {number} has the box {list(entry.bbox)}; width and height must be positive")
        found[entry.image_id].append(entry)
    detections = {}
    for image, several in found.items():
        corners = np.array([entry.bbox for entry in several], np.float64)
        corners[:, 2:] += corners[:, :2]
        scores = np.array([entry.score for entry in several], np.float32)
        detections[image] = Detections(corners.astype(np.float32), scores)
    return detections
