"""`run`: a bundle on pictures, a video or a camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalenas_export.cli.common import emit, new_run_folder, note, verb
from scalenas_export.cli.engine_choice import EngineChoice, engine_options
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.overlays import Result, RunReport
    from scalenas_runtime.pictures import Picture
    from scalenas_runtime.pose import BoxFinder, PoseEstimator
    from scalenas_runtime.sources import Frame, Source

_MIN_SCORE = 0.3
# Containers round and estimate their frames; a video that gives fewer than this share of them broke off.
_WHOLE = 0.9


@dataclass(frozen=True, slots=True)
class _Persons:
    boxes: Path | None
    detector: Path | None
    layout: str | None
    min_score: float | None
    track: bool
    show_scores: bool

    def check(self, bundle: Bundle, *, pose: bool) -> None:
        """Accepts options that go together.

        Raises:
            UserError: an option of another task, or one that would have no effect.
        """
        tuned = self.layout is not None or self.min_score is not None
        if not pose and (self.boxes or self.detector or self.track or self.show_scores or tuned):
            raise UserError(
                f"{bundle.path} segments pictures; --boxes, --detector and --track are for pose bundles, and so are "
                "--detector-layout, --min-score and --show-scores"
            )
        if self.boxes and (self.detector or self.track):
            raise UserError("--boxes gives the boxes of every frame; leave out --detector and --track")
        if tuned and not self.detector:
            raise UserError("--min-score and --detector-layout are for a person detector; name one with --detector")


@verb("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", nargs=-1, required=True)
@engine_options
@click.option("--boxes", type=click.Path(path_type=Path), help="Person boxes: COCO detections JSON.")
@click.option("--detector", type=click.Path(path_type=Path), help="Person detector: an ONNX file.")
@click.option("--detector-layout", help="yolox, rtmdet, yolox-dets or nms; seen from its outputs otherwise.")
@click.option("--min-score", type=float, help="Lowest score of a detected box; 0.3 otherwise.")
@click.option("--track", is_flag=True, help="Follow persons through a video: ids, boxes from the last pose, smoothing.")
@click.option("--show-scores", is_flag=True, help="Write the persons' scores into the overlays.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after so many frames.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results; runs/run/<n> otherwise.")
@click.option("--overwrite", is_flag=True, help="Replace the results in the folder of --out.")
def command(  # noqa: PLR0913 - one parameter per option
    bundle: Path,
    source: tuple[str, ...],
    engine: EngineChoice,
    boxes: Path | None,
    detector: Path | None,
    detector_layout: str | None,
    min_score: float | None,
    track: bool,
    show_scores: bool,
    frames: int | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Run BUNDLE on SOURCE: pictures, directories, globs, one video, a camera's index or a stream's URL.

    Overlays and results.json go to runs/run/<n> or --out. Without --boxes and --detector every picture is taken as
    one person. In the boxes file, image_id is the picture's file name without suffix (or that as a number, or the
    frame's index in a video), unless file_name is given.
    """
    from scalenas_runtime.overlays import write_results
    from scalenas_runtime.sources import open_source

    persons = _Persons(boxes, detector, detector_layout, min_score, track, show_scores)
    opened = engine.open(bundle)
    persons.check(opened, pose=_task(opened) == "pose")
    media = open_source(source)
    with ExitStack() as stack:
        analyse, used = _analyser(stack, opened, persons, engine)
        folder = stack.enter_context(_folder(out, overwrite, [bundle, *_files(media, persons)]))
        report = _run(media, analyse, folder, show_scores=show_scores, limit=frames)
        head: dict[str, Json] = {"task": _task(opened), "bundle": str(bundle), "target": used, "source": list(source)}
        head |= {"skipped": media.skipped, **_broken_off(media, report, frames)}
        document = write_results(folder, head, report)
    place = out or folder
    emit({**document, "folder": str(place)}, _summary(report, media, place, opened), as_json=as_json)


def _analyser(
    stack: ExitStack, bundle: Bundle, persons: _Persons, engine: EngineChoice
) -> tuple[Callable[[Frame], Result], str]:
    """Returns what gives a frame's result, and the target it runs on; the stack closes the engines."""
    from scalenas_runtime.tasks import PoseRecipe

    target = engine.target_of(bundle)
    if isinstance(bundle.recipe, PoseRecipe):
        return _pose_analyser(stack, stack.enter_context(engine.pose(bundle)), persons, engine.threads), target
    segmenter = stack.enter_context(engine.segmenter(bundle))
    return lambda frame: segmenter.segment(frame.picture), target


def _pose_analyser(
    stack: ExitStack, pose: PoseEstimator, persons: _Persons, threads: int | None
) -> Callable[[Frame], Result]:
    from scalenas_runtime.boxes import read_boxes
    from scalenas_runtime.detect import Detector
    from scalenas_runtime.tracking import PoseTracker

    if persons.boxes:
        table = read_boxes(persons.boxes)
        if table.other_categories:
            note(f"{table.other_categories} boxes of other categories than person were left out")

        def with_boxes(frame: Frame) -> Result:
            found = table.of(frame)
            return pose.estimate(frame.picture, found.boxes, box_scores=found.scores)

        stack.callback(lambda: _note_unused(table.unused))
        return with_boxes
    detector: BoxFinder | None = None
    if persons.detector:
        lowest = _MIN_SCORE if persons.min_score is None else persons.min_score
        detector = stack.enter_context(
            Detector.load(persons.detector, threads=threads, layout=persons.layout, min_score=lowest)
        )
    else:
        note("note: no --boxes and no --detector, so each picture is taken as one person's box")
    if persons.track:
        tracker = PoseTracker(pose, detector)
        return lambda frame: replace(tracker(frame.picture, frame.time), frame=None)

    def with_detector(frame: Frame) -> Result:
        if detector is None:
            return pose.estimate(frame.picture)
        found = detector(frame.picture)
        return pose.estimate(frame.picture, found.boxes, box_scores=found.scores)

    return with_detector


def _run(
    media: Source, analyse: Callable[[Frame], Result], folder: Path, *, show_scores: bool, limit: int | None
) -> RunReport:
    from itertools import islice

    from tqdm import tqdm

    from scalenas_runtime.overlays import run_frames
    from scalenas_runtime.results import PoseResult

    def draw(result: Result, picture: Picture) -> Picture:
        return result.draw(picture, show_scores=show_scores) if isinstance(result, PoseResult) else result.draw(picture)

    known = None if media.kind == "live" else _length(media)
    total = known if limit is None else min(limit, known or limit)
    frames = tqdm(islice(media, limit), total=total, unit="frame", disable=None)
    return run_frames(frames, analyse, folder, draw=draw, rate=media.rate, live=media.kind == "live")


def _broken_off(media: Source, report: RunReport, limit: int | None) -> dict[str, Json]:
    """Returns how many frames a video's container claims where far fewer could be read, and says so on stderr."""
    claimed = _length(media) if media.kind == "video" and limit is None else None
    if claimed is None or len(report.frames) >= _WHOLE * claimed:
        return {}
    note(f"note: {media.name} broke off: {len(report.frames)} of about {claimed} frames could be read")
    return {"frames_claimed": claimed}


def _length(media: Source) -> int | None:
    try:
        return len(media)
    except TypeError:
        return None


def _files(media: Source, persons: _Persons) -> list[Path]:
    """Returns the files that the run reads beside the bundle."""
    from scalenas_runtime.sources import PictureSource, VideoSource

    given = [path for path in (persons.boxes, persons.detector) if path is not None]
    if isinstance(media, PictureSource):
        return [*media.paths, *given]
    if isinstance(media, VideoSource) and media.kind == "video":
        return [Path(str(media.address)), *given]
    return given


@contextmanager
def _folder(out: Path | None, overwrite: bool, sources: list[Path]) -> Iterator[Path]:
    """Gives the folder for the results, which holds none of `sources`; after an error nothing of it is left."""
    from scalenas_runtime.files import new_directory
    from scalenas_runtime.overlays import RESULTS

    if out is not None:
        with new_directory(out, overwrite=overwrite, holds=RESULTS, sources=sources) as folder:
            yield folder
        return
    with new_run_folder("run") as folder:
        yield folder


def _task(bundle: Bundle) -> str:
    from scalenas_runtime.tasks import PoseRecipe

    return "pose" if isinstance(bundle.recipe, PoseRecipe) else "segmentation"


def _note_unused(count: int) -> None:
    if count:
        note(f"note: the boxes of {count} pictures were not used: no picture of that name or index was in the source")


def _summary(report: RunReport, media: Source, folder: Path, bundle: Bundle) -> str:
    parts = [f"{len(report.frames)} {'pictures' if media.kind == 'pictures' else 'frames'}"]
    if _task(bundle) == "pose":
        parts.append(f"{report.persons} persons")
    if media.skipped:
        parts.append(f"{media.skipped} other files skipped")
    ended = ", ended by Ctrl-C" if report.interrupted else ""
    return f"{', '.join(parts)}{ended}; overlays and results.json in {folder}\n"
