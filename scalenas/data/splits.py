"""`fit`, `calibrate` and `search`: the parts of a train set, kept in list files so that they never change unseen.

Training fits on `fit`, statistics and quantisation are calibrated on `calibrate`, and whatever is chosen by accuracy
(early stopping, search, layers of higher precision) is chosen on `search`. Official val and test data are for reports.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from scalenas.data.description import Sequences, Splits
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import new_directory

# In the order in which they take pictures; what is left is `fit`.
CHOSEN = ("search", "calibrate")
PARTS = ("fit", "calibrate", "search")
_CHOSEN_BY = ", chosen by "


def sequence_of(name: str, sequences: Sequences | None) -> str:
    """Returns the sequence that a picture belongs to by its name: the picture itself where the pattern finds nothing.

    Raises:
        UserError: the pattern is no regular expression.
    """
    if sequences is None:
        return name
    try:
        found = re.search(sequences.pattern, name)
    except re.error as error:
        raise UserError(f"sequences.pattern {sequences.pattern!r} is no regular expression: {error}") from None
    if found is None:
        return name
    return found.group(1) if found.re.groups and found.group(1) is not None else found.group(0)


def choose(names: Sequence[str], sequences: Sequences | None, splits: Splits) -> dict[str, list[str]]:
    """Returns the pictures of each part, in the order of their names, and under `unused` those that a gap leaves out.

    Args:
        names: Pictures of one source.
        sequences: Which of them belong together.
        splits: Seed and shares.

    Raises:
        UserError: too few pictures, or too few sequences, to fill all three parts.
    """
    groups = _groups(sorted(names), sequences)
    queue = _shuffled(groups, splits.seed)
    part_of: dict[str, str] = {}
    for part in CHOSEN:
        wanted = max(1.0, getattr(splits, part) * len(names))
        taken = 0.0
        # A group is taken while that brings the part closer to its share.
        while queue and (taken == 0 or taken + len(groups[queue[0]]) / 2 <= wanted):
            key = queue.pop(0)
            taken += len(groups[key])
            part_of |= dict.fromkeys(groups[key], part)
    if not queue or len(set(part_of.values())) < len(CHOSEN):
        raise UserError(
            f"{len(names)} pictures in {len(groups)} groups do not fill fit, calibrate and search; add pictures, or cut"
            " the sequences into stretches (sequences.block)"
        )
    part_of |= {name: "fit" for key in queue for name in groups[key]}
    unused = _at_borders(sorted(names), part_of, sequences)
    parts = {part: [name for name in sorted(names) if part_of[name] == part and name not in unused] for part in PARTS}
    return {**parts, "unused": sorted(unused)}


def read_lists(folder: Path, splits: Splits) -> dict[str, list[str]]:
    """Returns the pictures of each part from `fit.txt`, `calibrate.txt` and `search.txt`: one per line, `#` comments.

    Raises:
        UserError: a file is missing or lists nothing, a picture stands in two places, or the lists were written for
            another seed or other shares.
    """
    parts: dict[str, list[str]] = {}
    where: dict[str, str] = {}
    for part in PARTS:
        path = folder / f"{part}.txt"
        parts[part] = read_list(path)
        head = path.read_text(encoding="utf-8").split("\n", 1)[0]
        if _CHOSEN_BY in head and not head.endswith(_how(splits)):
            raise UserError(
                f"{path} was chosen by {head.split(_CHOSEN_BY)[1]}, the description says {_how(splits)}; change the"
                " description back, or name another `splits.folder`"
            )
        for name in parts[part]:
            if name in where:
                raise UserError(f"{path} lists {name}, which {where[name]} lists already")
            where[name] = path.name
    return parts


def read_list(path: Path) -> list[str]:
    """Returns the lines of a list file, without comments (`#`) and empty ones.

    Raises:
        UserError: the file cannot be read or lists nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    names = [line for line in (line.strip() for line in lines) if line and not line.startswith("#")]
    if not names:
        raise UserError(f"{path} lists no pictures")
    return names


def write_lists(folder: Path, parts: Mapping[str, Sequence[str]], splits: Splits) -> None:
    """Writes the three list files at once; a folder that another process wrote first is left as it is.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        with new_directory(folder) as new:
            for part in PARTS:
                head = f"# {part}: {len(parts[part])} pictures{_CHOSEN_BY}{_how(splits)}\n"
                (new / f"{part}.txt").write_text(head + "".join(f"{name}\n" for name in parts[part]), encoding="utf-8")
    except (OSError, UserError):
        if not folder.is_dir():
            raise


def part_of_scenes(count: int, part: str, splits: Splits) -> range:
    """Returns which of `count` drawn scenes belong to a part: `fit` comes first, then `calibrate`, then `search`.

    Raises:
        UserError: too few scenes to fill all three.
    """
    search, calibrate = (max(1, round(getattr(splits, name) * count)) for name in CHOSEN)
    fit = count - search - calibrate
    if fit < 1:
        raise UserError(f"{count} scenes do not fill fit, calibrate and search; draw more")
    return {"fit": range(fit), "calibrate": range(fit, fit + calibrate), "search": range(fit + calibrate, count)}[part]


def _how(splits: Splits) -> str:
    return f"seed {splits.seed}, calibrate {splits.calibrate:g}, search {splits.search:g}"


Group = tuple[str, int]


def _groups(names: Sequence[str], sequences: Sequences | None) -> dict[Group, list[str]]:
    """Returns the pictures by sequence and stretch of it."""
    whole: dict[str, list[str]] = defaultdict(list)
    for name in names:
        whole[sequence_of(name, sequences)].append(name)
    block = 0 if sequences is None else sequences.block
    groups = {}
    for key, members in whole.items():
        # Stretches of equal length rather than a short last one.
        count = max(1, round(len(members) / block)) if block else 1
        for number, stretch in enumerate(np.array_split(np.arange(len(members)), count)):
            groups[key, number] = [members[place] for place in stretch]
    return groups


def _shuffled(groups: Iterable[Group], seed: int) -> list[Group]:
    """Returns the stretches in an order by chance of which every beginning holds all sequences by their lengths."""
    counts = Counter(sequence for sequence, _ in groups)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, len(counts)])))
    places: dict[Group, float] = {}
    for sequence, count in counts.items():
        order, shift = rng.permutation(count), rng.random()
        places |= {(sequence, int(number)): (place + shift) / count for place, number in enumerate(order)}
    return sorted(places, key=lambda group: (places[group], group))


def _at_borders(names: Sequence[str], part_of: Mapping[str, str], sequences: Sequences | None) -> set[str]:
    """Returns the pictures that lie within the gap of a stretch of a part that goes first."""
    if sequences is None or sequences.gap == 0:
        return set()
    whole: dict[str, list[str]] = defaultdict(list)
    for name in names:
        whole[sequence_of(name, sequences)].append(name)
    rank = {part: place for place, part in enumerate((*CHOSEN, "fit"))}
    left_out = set()
    for members in whole.values():
        for place, name in enumerate(members):
            near = members[max(0, place - sequences.gap) : place + sequences.gap + 1]
            if any(rank[part_of[other]] < rank[part_of[name]] for other in near):
                left_out.add(name)
    return left_out
