"""`eval`: a bundle's accuracy on a data set."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from scalenas_export.cli.common import emit, verb
from scalenas_export.cli.engine_choice import EngineChoice, engine_options
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.evaluate import Evaluation, Metric
    from scalenas_runtime.readers import KeypointData, PairData
    from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe

_SYNTHETIC = "synthetic:"


@dataclass(frozen=True, slots=True)
class _Data:
    """Where the data are and how to read them."""

    place: str
    pictures: Path | None
    masks: Path | None
    suffixes: tuple[str, str]
    mapping: dict[int, int]
    missing: Literal["error", "skip"]


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked about the data."""

    metric: Metric | None
    alpha: float | None
    boxes: str
    limit: int | None
    flip_test: bool | None


@verb("eval")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--metric", type=click.Choice(["pck", "pckh", "oks", "miou"]), help="By task and joints otherwise.")
@click.option("--alpha", type=float, help="Share of the reference length for PCK: 0.2 of the torso, 0.5 of the head.")
@engine_options
@click.option("--boxes", default="gt", show_default=True, help="gt, or a COCO detections JSON file.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Folder of the pictures of a COCO file.")
@click.option("--masks", type=click.Path(path_type=Path), help="Folder of the masks; DATA + `annot` otherwise.")
@click.option("--picture-suffix", default="", help="End of the pictures' names that masks do not share.")
@click.option("--mask-suffix", default="", help="End of the masks' names that pictures do not share.")
@click.option("--map", "mapping", multiple=True, metavar="FROM=TO", help="Read this label of masks as that one.")
@click.option(
    "--skip-missing", is_flag=True, help="Leave out (and count) labels without picture, pictures without mask."
)
@click.option("--limit", type=click.IntRange(min=1), help="Judge the first so many pictures.")
@click.option("--flip-test/--no-flip-test", default=None, help="Average with the mirrored picture; as the recipe says.")
@click.option("--dump", type=click.Path(path_type=Path), help="Write predicted people in COCO's results format.")
def command(  # noqa: PLR0913 - one parameter per option
    bundle: Path,
    data: str,
    metric: Metric | None,
    alpha: float | None,
    engine: EngineChoice,
    boxes: str,
    pictures: Path | None,
    masks: Path | None,
    picture_suffix: str,
    mask_suffix: str,
    mapping: tuple[str, ...],
    skip_missing: bool,
    limit: int | None,
    flip_test: bool | None,
    dump: Path | None,
    as_json: bool,
) -> None:
    """Measure the accuracy of BUNDLE on DATA.

    DATA is a COCO keypoints file (with --pictures), a folder of pictures (with --masks), or `synthetic:SEED:COUNT`:
    scenes drawn here. Intervals hold 95 %, by drawing pictures anew.
    """
    from scalenas_runtime.canonical import pretty_json
    from scalenas_runtime.files import write_text
    from scalenas_runtime.tasks import PoseRecipe

    opened = engine.open(bundle)
    source = _Data(
        data, pictures, masks, (picture_suffix, mask_suffix), _mapping(mapping), "skip" if skip_missing else "error"
    )
    question = _Question(metric, alpha, boxes, limit, flip_test)
    _check_options(source, question, pose=isinstance(opened.recipe, PoseRecipe))
    if isinstance(opened.recipe, PoseRecipe):
        done, used = _pose(opened, opened.recipe, source, question, engine)
        if dump is not None:
            write_text(dump, pretty_json(done.detections))
    else:
        if dump is not None:
            raise UserError("--dump writes people's joints; a segmentation bundle has none")
        done, used = _segmentation(opened, opened.recipe, source, question, engine)
    document = {"bundle": str(bundle), "data": data, "target": used, **done.to_json()}
    emit(document, _table(done, used), as_json=as_json)


def _pose(
    bundle: Bundle, recipe: PoseRecipe, source: _Data, question: _Question, engine: EngineChoice
) -> tuple[Evaluation, str]:
    import msgspec

    from scalenas_runtime.evaluate import PoseQuestion, default_metric, evaluate_pose
    from scalenas_runtime.readers import read_detections

    data = _keypoints(recipe, source)
    boxes = None if question.boxes == "gt" else read_detections(question.boxes)
    target = engine.target_of(bundle)
    with ExitStack() as stack:
        pose = stack.enter_context(engine.pose(bundle))
        if question.flip_test is not None:
            pose.recipe = msgspec.structs.replace(recipe, flip_test=question.flip_test)
        done = evaluate_pose(
            pose.estimate,
            pose.recipe,
            data,
            question=PoseQuestion(question.metric or default_metric(recipe), question.alpha, boxes, question.limit),
            progress=_Bar(question.limit, len(data)),
        )
    return done, target


def _segmentation(
    bundle: Bundle, recipe: SegmentationRecipe, source: _Data, question: _Question, engine: EngineChoice
) -> tuple[Evaluation, str]:
    import msgspec

    from scalenas_runtime.evaluate import evaluate_segmentation

    if question.metric not in (None, "miou"):
        raise UserError(f"metric {question.metric} is for pose; a segmentation bundle takes miou")
    if question.boxes != "gt":
        raise UserError("--boxes is for pose bundles")
    data = _pairs(recipe, source)
    target = engine.target_of(bundle)
    with engine.segmenter(bundle) as segmenter:
        if question.flip_test is not None:
            segmenter.recipe = msgspec.structs.replace(recipe, flip_test=question.flip_test)
        bar = _Bar(question.limit, len(data))
        done = evaluate_segmentation(segmenter.segment, recipe, data, limit=question.limit, progress=bar)
    return done, target


def _keypoints(recipe: PoseRecipe, source: _Data) -> KeypointData:
    from scalenas_runtime.evaluate import joints_of
    from scalenas_runtime.readers import read_keypoints, synthetic_keypoints

    if source.place.startswith(_SYNTHETIC):
        seed, count = _synthetic(source.place)
        size = (recipe.height * 5 // 4, recipe.width * 3 // 2)
        return synthetic_keypoints(joints_of(recipe), seed=seed, count=count, size=size)
    if Path(source.place).is_dir():
        raise UserError(f"{source.place} is a folder; a pose bundle takes a COCO keypoints file, and its --pictures")
    return read_keypoints(source.place, source.pictures, missing=source.missing)


def _pairs(recipe: SegmentationRecipe, source: _Data) -> PairData:
    from scalenas_runtime.evaluate import classes_of
    from scalenas_runtime.readers import read_pairs, synthetic_pairs
    from scalenas_runtime.readers.pairs import MaskRule

    if source.place.startswith(_SYNTHETIC):
        seed, count = _synthetic(source.place)
        return synthetic_pairs(classes_of(recipe), seed=seed, count=count, size=(recipe.height, recipe.width))
    folder = Path(source.place)
    masks = source.masks or folder.with_name(folder.name + "annot")
    if not masks.is_dir():
        raise UserError(f"{masks} is no folder; name the folder of the masks with --masks")
    rule = MaskRule(*source.suffixes, mapping=source.mapping, missing=source.missing)
    return read_pairs(folder, masks, classes_of(recipe), rule)


def _check_options(source: _Data, question: _Question, *, pose: bool) -> None:
    """Accepts options that have an effect on this data and metric.

    Raises:
        UserError: an option of other data, another task or another metric.
    """
    folders = {
        "--masks": source.masks is not None,
        "--picture-suffix": bool(source.suffixes[0]),
        "--mask-suffix": bool(source.suffixes[1]),
        "--map": bool(source.mapping),
    }
    coco = {"--pictures": source.pictures is not None}
    if source.place.startswith(_SYNTHETIC):
        _refuse({**coco, **folders, "--skip-missing": source.missing == "skip"}, f"{source.place} is drawn, so there")
    elif pose:
        _refuse(folders, "masks are for segmentation bundles; with a pose bundle there")
    else:
        _refuse(coco, "the pictures of a segmentation bundle are DATA itself; there")
    if question.alpha is not None and (not pose or question.metric in ("oks", "miou")):
        raise UserError(f"--alpha is for pck and pckh; {question.metric or 'miou'} has none, so leave it out")


def _refuse(given: dict[str, bool], why: str) -> None:
    names = [name for name, is_given in given.items() if is_given]
    if names:
        raise UserError(f"{why} is nothing for {', '.join(names)}; leave it out")


def _synthetic(place: str) -> tuple[int, int]:
    parts = place.removeprefix(_SYNTHETIC).split(":")
    if len(parts) != 2 or not all(map(_is_number, parts)) or int(parts[1]) == 0:
        raise UserError(f"{place!r} is no synthetic data set; write synthetic:SEED:COUNT, for example synthetic:1:200")
    return int(parts[0]), int(parts[1])


def _mapping(pairs: tuple[str, ...]) -> dict[int, int]:
    mapping = {}
    for pair in pairs:
        before, sign, after = pair.partition("=")
        if not (sign and _is_number(before) and _is_number(after)):
            raise UserError(f"--map takes FROM=TO, two labels such as 34=255, got {pair!r}")
        mapping[int(before)] = int(after)
    return mapping


def _is_number(text: str) -> bool:
    # Superscripts are digits too, and Python reads no numbers of thousands of digits.
    return text.isascii() and text.isdecimal() and len(text) <= 18


class _Bar:
    """Progress on stderr."""

    def __init__(self, limit: int | None, count: int) -> None:
        self._total = count if limit is None else min(limit, count)

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        from tqdm import tqdm

        yield from tqdm(items, total=self._total, unit="picture", file=sys.stderr, disable=None)


def _table(done: Evaluation, target: str) -> str:
    low, high = done.interval or (float("nan"), float("nan"))
    share = {"pck": "PCK", "pckh": "PCKh", "oks": "AP", "miou": "mIoU"}[done.metric]
    if "alpha" in done.figures:
        share += f"@{done.figures['alpha']:g}"
    lines = [f"{share}  {_percent(done.value)} %   (95 %: {_percent(low)} to {_percent(high)})   on {target}"]
    for key, value in done.figures.items():
        if isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [f"  {name:20} {_row(item)}" for name, item in value.items()]
        elif isinstance(value, float) and key != "alpha":
            lines.append(f"{key.replace('_', ' '):22} {_percent(value)} %")
    lines.append("counts:")
    lines += [f"  {name.replace('_', ' '):28} {count}" for name, count in done.counts.items()]
    return "\n".join(lines) + "\n"


def _row(item: object) -> str:
    if isinstance(item, dict):
        return f"{_row(item['value'])}   ({item['joints']} joints)"
    return f"{_percent(item)} %" if isinstance(item, float) else "-"


def _percent(value: float) -> str:
    return f"{100 * value:6.2f}" if value == value and value >= 0 else "     -"
