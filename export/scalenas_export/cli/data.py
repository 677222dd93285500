"""`data check`: what is odd about a data set, and a sheet of its samples to look at."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scalenas_export.cli.common import SIZE, emit, note, run_folder, verb

if TYPE_CHECKING:
    from scalenas.data.check import PartReport, Report
    from scalenas.data.dataset import Dataset
    from scalenas_runtime.tasks import Recipe

_SHOWN = 5


@click.group("data")
def command() -> None:
    """Look at data before training on them."""


@verb("check")
@click.argument("description", type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Folder that the description's paths start at.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace a key of the description.")
@click.option("--size", type=SIZE, help="Input size of the net, for the sheet; 256x192 or 352x480 otherwise.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which samples the sheet shows.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
def check_command(
    description: Path,
    root: Path | None,
    changes: tuple[str, ...],
    size: tuple[int, int] | None,
    seed: int,
    runs: Path,
    as_json: bool,
) -> None:
    """Check the data set that DESCRIPTION (a data.yaml) describes.

    Reads every picture once: counts, sizes, improbable labels, likely swaps of left and right, the same picture in two
    parts. Writes a sheet of augmented samples with their targets. Exit code 4 if a file cannot be read or parts share a
    picture.
    """
    import cv2

    from scalenas.data.check import check
    from scalenas.data.dataset import AUGMENTATIONS, open_dataset
    from scalenas.data.sheet import contact_sheet
    from scalenas_runtime.canonical import pretty_json
    from scalenas_runtime.errors import CheckFailed
    from scalenas_runtime.files import write_bytes, write_text

    dataset = open_dataset(description, root=root, changes=changes)
    report = check(dataset, progress=_bar)
    folder = run_folder("data", runs)
    write_text(folder / "report.json", pretty_json(report.to_json()))
    unreadable = [name for part in report.parts.values() for name in part.unreadable]
    if unreadable:
        write_text(folder / "unreadable.txt", "".join(f"{name}\n" for name in sorted(unreadable)))
    sheet = folder / "sheet.png"
    recipe = _recipe(dataset, size)
    if not report.parts["fit"].unreadable:
        samples = dataset.samples("fit", recipe, augmentation=AUGMENTATIONS[dataset.description.task]())
        picture = contact_sheet(samples, recipe, seed=seed, columns=8 if dataset.joints else 4)
        write_bytes(sheet, cv2.imencode(".png", picture)[1].tobytes())
    emit({"folder": str(folder), **report.to_json()}, _table(report, dataset), as_json=as_json)
    note(f"report and sheet: {folder}")
    if report.faults:
        raise CheckFailed(f"{report.faults} faults: unreadable files, or pictures that two parts share; see {folder}")


command.add_command(check_command)


def _recipe(dataset: Dataset, size: tuple[int, int] | None) -> Recipe:
    return dataset.recipe(size or ((256, 192) if dataset.joints else (352, 480)))


def _bar(items: Iterable[Any]) -> Iterator[Any]:
    from tqdm import tqdm

    yield from tqdm(items, unit="picture", file=sys.stderr, disable=None)


def _table(report: Report, dataset: Dataset) -> str:
    lines = [f"derived  {line}" for line in report.derived]
    lines += [f"warning: {line}" for line in report.warnings]
    for title, counts in report.counts.items():
        shown = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
        lines.append(f"{title}: {shown}")
    for name, part in report.parts.items():
        lines += [f"{name}: {_amount(part)}", *_details(part, report.classes)]
    kinds = {leak.kind: sum(other.kind == leak.kind for other in report.leaks) for leak in report.leaks}
    if not kinds:
        lines.append("no picture is in two parts")
    for kind, count in kinds.items():
        lines.append(f"{_KINDS[kind]}: {count}")
        some = [leak for leak in report.leaks if leak.kind == kind][:_SHOWN]
        lines += [f"  {' '.join(leak.first)} = {' '.join(leak.second)}" for leak in some]
        lines += [f"  and {count - _SHOWN} more"] if count > _SHOWN else []
    return "\n".join(lines) + "\n"


_KINDS = {
    "identical": "pictures with the same pixels",
    "alike": "pictures of two parts that look alike",
    "sequence": "sequences that several parts share",
}


def _amount(part: PartReport) -> str:
    amount = [f"{part.pictures} pictures"] if part.pictures else []
    amount += [f"{part.people} people"] if part.people else []
    amount += [f"{part.scenes} drawn scenes"] if part.scenes else []
    return ", ".join(amount) or "nothing"


def _details(part: PartReport, classes: tuple[str, ...]) -> list[str]:
    import numpy as np

    lines = []
    if part.sizes:
        low, middle, high = (np.quantile(part.sizes, share, axis=0).astype(int).tolist() for share in (0, 0.5, 1))
        lines.append(
            f"  height x width: {low[0]} x {low[1]} to {high[0]} x {high[1]}, median {middle[0]} x {middle[1]}"
        )
    if part.heights:
        low, middle, high = np.quantile(part.heights, [0, 0.5, 1]).tolist()
        lines.append(f"  people's heights: {low:.0f} to {high:.0f}, median {middle:.0f} pixels")
    if part.pixels.sum():
        shares = part.pixels / part.pixels.sum()
        named = zip((*classes, "ignored"), shares.tolist(), strict=True)
        lines.append("  pixels: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in named))
    lines += [f"  unreadable: {text}" for text in list(part.unreadable.values())[:_SHOWN]]
    if len(part.unreadable) > _SHOWN:
        lines.append(f"  unreadable: and {len(part.unreadable) - _SHOWN} more")
    for kind in dict.fromkeys(odd.kind for odd in part.odd):
        odd = [each for each in part.odd if each.kind == kind]
        lines.append(f"  {kind}: {len(odd)}")
        lines += [f"    {each.picture}: {each.what}" for each in odd[:_SHOWN]]
    return lines
