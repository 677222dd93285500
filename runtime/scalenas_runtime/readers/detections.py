"""Person boxes that a detector found on a data set's pictures, by the pictures' ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalenas_runtime.boxes import Detections, gather_boxes
from scalenas_runtime.errors import UserError
from scalenas_runtime.json_files import read_json


def read_detections(path: str | Path) -> dict[int, Detections]:
    """Returns the boxes of a COCO detections file by `image_id`; entries of other categories than 1 are left out.

    Raises:
        UserError: not a JSON list of `{image_id, bbox [x, y, w, h], score, category_id}`, or a box without area.
    """
    file = Path(path)
    return gather_boxes(read_json(file), _image_id, file)[0]


def _image_id(entry: Mapping[str, Any], where: str) -> int:
    image = entry.get("image_id")
    if not isinstance(image, int) or isinstance(image, bool):
        raise UserError(f"{where}: image_id must be a whole number, got {image!r}")
    return image
