"""The task recipe of an export: from the weights, from a file, or from the names of joints or classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe, Recipe, read_recipe
from scalenas_runtime.tasks.sets import CLASS_SETS, JOINT_SETS, pose_recipe, segmentation_recipe

if TYPE_CHECKING:
    from scalenas.spec import SubnetSpec


def read_recipe_file(path: Path) -> Recipe:
    """Returns the recipe in a JSON file.

    Raises:
        UserError: the file is not there, is not JSON, or describes no recipe; the text names the file.
    """
    if not path.is_file():
        raise UserError(f"there is no recipe file {path}; docs/bundle.md shows what one holds")
    try:
        value = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    try:
        return read_recipe(value)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def picture_size(spec: SubnetSpec) -> tuple[int, int]:
    """Returns height and width of the one picture a spec takes, in pixels.

    Raises:
        UserError: a symbolic size, or inputs that are not one picture.
    """
    shapes = list(spec.inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != 3:
        raise UserError(f"export takes nets over one picture (3, height, width), the spec has {dict(spec.inputs)}")
    _, height, width = shapes[0]
    if isinstance(height, str) or isinstance(width, str):
        raise UserError(
            f"the spec has the symbolic size {height} x {width}, and engines take fixed ones: pass --size "
            "HEIGHTxWIDTH, such as --size 256x192"
        )
    return height, width


def spec_recipe(spec: SubnetSpec, *, given: Recipe | None = None, names: str | None = None) -> Recipe:
    """Returns the recipe for a spec, at the spec's size.

    Args:
        spec: The net.
        given: The recipe of the weights or of a file; the net's size replaces its own.
        names: A joint or class set, where there is no recipe; the usual set for the number of channels if None.

    Raises:
        UserError: the recipe is of another task or number of channels, or no set has that many.
    """
    size = picture_size(spec)
    task = str(spec.settings.get("task", "pose"))
    count = spec.settings.get("joints" if task == "pose" else "classes")
    if given is None:
        given = _by_names(task, count, names, spec.settings, size)
    found, channels = (
        ("pose", len(given.joints)) if isinstance(given, PoseRecipe) else ("segmentation", len(given.classes))
    )
    if found != task or channels != count:
        unit = "joints" if found == "pose" else "classes"
        raise UserError(f"the recipe is for {found} with {channels} {unit}, the spec for {task} with {count} outputs")
    return msgspec.structs.replace(given, height=size[0], width=size[1])


def _by_names(
    task: str, count: object, names: str | None, settings: Mapping[str, object], size: tuple[int, int]
) -> Recipe:
    sizes = {name: len(each.joints) for name, each in JOINT_SETS.items()}
    if task != "pose":
        sizes = {name: len(each.classes) for name, each in CLASS_SETS.items()}
    if names is None:
        names = next((name for name, length in sizes.items() if length == count), None)
    if names is None:
        option = "--joints" if task == "pose" else "--classes"
        known = ", ".join(f"{name} ({length})" for name, length in sizes.items())
        raise UserError(
            f"no named set has {count} {'joints' if task == 'pose' else 'classes'}; known: {known}; pass {option}, or "
            "--recipe FILE.json with the names"
        )
    if task == "pose":
        return pose_recipe(names, size=size)
    head = settings.get("head_upsample")
    corners = bool(head["align_corners"]) if isinstance(head, Mapping) else False
    return segmentation_recipe(names, size=size, align_corners=corners)
