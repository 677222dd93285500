"""What labels mean: by the description, else from the data, with a line about everything that was derived."""

from __future__ import annotations

import colorsys
import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from scalenas.data.description import CityscapesSource, Description
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks.sets import (
    CITYSCAPES_19,
    ClassSet,
    JointSet,
    class_set,
    flip_pairs_of,
    joint_set,
    sigmas_of,
)

Pairs = tuple[tuple[int, int], ...]


def resolve_joints(
    description: Description, name: str, found: tuple[tuple[str, ...], Pairs] | None
) -> tuple[JointSet, tuple[str, ...]]:
    """Returns the joints, and lines that say where each property comes from if the description does not give it.

    Args:
        description: Of task pose.
        name: What the joint set is called by.
        found: Names and edges in the first annotation file, if there is one.

    Raises:
        UserError: nobody names the joints, a pair names a joint that there is not, or the numbers of joints and sigmas
            differ.
    """
    base = None if description.set is None else joint_set(description.set)
    lines: list[str] = []
    if description.names is not None:
        names = description.names
    elif base is not None:
        names = base.joints
    elif found is not None:
        names = found[0]
        lines.append(f"names: {len(names)} joints of the annotation file: {', '.join(names)}")
    else:
        raise UserError("the description needs `names` or `set`, because no annotation file names the joints")
    if not names or len(set(names)) != len(names):
        raise UserError(f"names must be distinct joints, got {', '.join(names) or 'none'}")
    same = base is not None and names == base.joints
    if description.skeleton is not None:
        edges = _pairs(description.skeleton, names, "skeleton")
    elif base is not None and same:
        edges = base.edges
    else:
        edges = _kept(found, names) if found is not None else ()
        lines.append(f"skeleton: {len(edges)} edges {'of the annotation file' if found else '(nobody gives any)'}")
    if description.flip_pairs is not None:
        pairs = _pairs(description.flip_pairs, names, "flip_pairs")
    else:
        pairs = flip_pairs_of(names)
        if not same:
            text = ", ".join(f"{names[first]} and {names[second]}" for first, second in pairs)
            lines.append(f"flip_pairs: from left and right in the names: {text or 'none'}")
    sigmas = description.sigmas
    if sigmas is None:
        sigmas = sigmas_of(names)
        if not same:
            lines.append("sigmas: COCO's for joints of such names, 0.089 for others")
    if len(sigmas) != len(names) or min(sigmas) <= 0:
        raise UserError(f"sigmas must be {len(names)} positive numbers, one for each joint, got {list(sigmas)}")
    return JointSet(description.set if same and description.set else name, names, edges, pairs, sigmas), tuple(lines)


def unlabelled_joints(wanted: Sequence[str], labelled: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Returns a line about each wanted joint that no source labels, with the nearest name that one does.

    Args:
        wanted: Names in the description.
        labelled: Names by source.

    Raises:
        UserError: there is one source, so the name can only be wrong, and the net would learn nothing for it.
    """
    known = list(dict.fromkeys(name for names in labelled.values() for name in names))
    lines = []
    for joint in wanted:
        if joint not in known:
            near = difflib.get_close_matches(joint, known, n=1)
            guess = f" (did you mean {near[0]!r}?)" if near else ""
            lines.append(f"no train source labels the joint {joint!r}{guess}; they label {', '.join(known)}")
    if lines and len(labelled) == 1:
        raise UserError(f"{lines[0]}; correct `names`, or leave the joint out of it")
    return tuple(lines)


def resolve_classes(description: Description, name: str) -> tuple[ClassSet, tuple[str, ...]]:
    """Returns the classes, and lines that say what was derived; see `resolve_joints`.

    Raises:
        UserError: nobody names the classes, or palette and ignored label do not fit them.
    """
    lines: list[str] = []
    base = None if description.set is None else class_set(description.set)
    if base is None and description.names is None:
        if not any(isinstance(source, CityscapesSource) for source in description.train):
            raise UserError("the description needs `names` or `set`: masks do not say what their labels mean")
        base = CITYSCAPES_19
        lines.append("names: the 19 classes of Cityscapes")
    names = description.names if description.names is not None else base.classes if base is not None else ()
    if not 2 <= len(names) <= 255 or len(set(names)) != len(names):
        raise UserError(f"names must be 2 to 255 distinct classes, got {', '.join(names) or 'none'}")
    same = base is not None and names == base.classes
    palette = description.palette
    if palette is None and base is not None and same:
        palette = base.palette
    elif palette is None:
        palette = _hues(len(names))
        lines.append("palette: hues around the colour circle")
    if len(palette) != len(names) or not all(0 <= value <= 255 for colour in palette for value in colour):
        raise UserError(f"palette must be {len(names)} colours [R, G, B] of 0..255, one for each class")
    ignore = description.ignore
    if ignore is None and base is not None and same:
        ignore = base.ignore
    elif ignore is None:
        ignore = 255
        lines.append("ignore: 255")
    if not len(names) <= ignore <= 255:
        raise UserError(f"ignore {ignore} must be in {len(names)}..255, outside the labels of the classes")
    return ClassSet(base.name if base is not None and same else name, names, palette, ignore), tuple(lines)


def _pairs(pairs: Sequence[tuple[str, str]], names: Sequence[str], key: str) -> Pairs:
    for pair in pairs:
        for name in pair:
            if name not in names:
                raise UserError(f"{key} names the joint {name!r}; there are {', '.join(names)}")
    return tuple((names.index(first), names.index(second)) for first, second in pairs)


def _kept(found: tuple[tuple[str, ...], Pairs], names: Sequence[str]) -> Pairs:
    joints, edges = found
    named = [(joints[first], joints[second]) for first, second in edges if max(first, second) < len(joints)]
    return tuple((names.index(a), names.index(b)) for a, b in named if a in names and b in names)


def _hues(count: int) -> tuple[tuple[int, int, int], ...]:
    colours = [colorsys.hsv_to_rgb(place / count, 0.75, 0.6 + 0.4 * (place % 2)) for place in range(count)]
    rows = np.rint(np.array(colours) * 255).astype(int).tolist()
    return tuple((red, green, blue) for red, green, blue in rows)
