"""The task recipe of an export: from the weights, from a file, or from the names of joints or classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scalenas_export.io_forms import raw_output_shape
from scalenas_runtime.bundle.manifest import parse_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe, Recipe, read_recipe
from scalenas_runtime.tasks.sets import CLASS_SETS, JOINT_SETS, class_set, joint_set, pose_recipe, segmentation_recipe

if TYPE_CHECKING:
    from scalenas.spec import SubnetSpec


def read_recipe_file(path: Path) -> Recipe:
    """Returns the recipe in a JSON file.

    Raises:
        UserError: the file is not there, is not JSON, or describes no recipe; the text names the file.
    """
    if not path.is_file():
        raise UserError(f"there is no recipe file {path}; docs/bundle.md shows what one holds")
    value = parse_json(path.read_bytes(), what=str(path))
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
        names: A joint or class set that replaces the names of `given`; where there is no recipe, the usual set for
            the number of channels if None.

    Raises:
        UserError: the recipe is of another task or number of channels, or no set has that many.
    """
    size = picture_size(spec)
    task = str(spec.settings.get("task", "pose"))
    count = spec.settings.get("joints" if task == "pose" else "classes")
    if given is None:
        given = _by_names(task, count, names, spec.settings, size)
    elif names is not None:
        given = with_names(given, names)
    found, channels = (
        ("pose", len(given.joints)) if isinstance(given, PoseRecipe) else ("segmentation", len(given.classes))
    )
    if found != task or channels != count:
        unit = "joints" if found == "pose" else "classes"
        raise UserError(f"the recipe is for {found} with {channels} {unit}, the spec for {task} with {count} outputs")
    return msgspec.structs.replace(given, height=size[0], width=size[1])


def with_names(recipe: Recipe, names: str) -> Recipe:
    """Returns a recipe with the names of a joint or class set, and what belongs to them; all else stays.

    Args:
        recipe: Of weights, say: how their pictures are prepared and their outputs decoded.
        names: A joint set for pose, whose edges, flip pairs and sigmas come along; a class set for segmentation,
            whose palette and ignored label do.

    Raises:
        UserError: no set of the recipe's task has that name.
    """
    if isinstance(recipe, PoseRecipe):
        joints = joint_set(names)
        return msgspec.structs.replace(
            recipe, joints=joints.joints, edges=joints.edges, flip_pairs=joints.flip_pairs, sigmas=joints.sigmas
        )
    classes = class_set(names)
    return msgspec.structs.replace(recipe, classes=classes.classes, palette=classes.palette, ignore=classes.ignore)


def check_file(recipe: Recipe, path: Path, *, size: tuple[int, int], names: str | None = None) -> None:
    """Accepts the recipe of a file beside what the command line says.

    Args:
        recipe: What the file holds.
        path: The file, for the error text.
        size: Height and width of the net's input, in pixels.
        names: The joint or class set that was named, if any.

    Raises:
        UserError: size or names of the file differ.
    """
    if (recipe.height, recipe.width) != size:
        raise UserError(
            f"{path} is for pictures of {recipe.height}x{recipe.width}, and the net takes {size[0]}x{size[1]}: "
            "change the file, or leave --size out where it is given"
        )
    if names is None:
        return
    own = recipe.joints if isinstance(recipe, PoseRecipe) else recipe.classes
    known = joint_set(names).joints if isinstance(recipe, PoseRecipe) else class_set(names).classes
    if own != known:
        raise UserError(f"{path} has other names than {names}, or another order: name the set or the file, not both")


def check_output(spec: SubnetSpec, recipe: Recipe) -> None:
    """Accepts a recipe whose channels and stride are those of the net's output.

    Raises:
        UserError: another shape; the text gives both, (channels, height, width).
    """
    from scalenas.registry import get_space

    space = get_space(spec.space)
    graph = space.graph(spec).live()
    made, wanted = graph.shapes(space.shapes(spec))[graph.outputs[0]], raw_output_shape(recipe)
    if made != wanted:
        raise UserError(
            f"the recipe (stride {recipe.stride}) needs an output of {wanted}, the net gives {made}: its stride is "
            f"{recipe.height // made[1]}"
        )


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
