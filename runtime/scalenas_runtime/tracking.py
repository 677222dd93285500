"""`PoseTracker`: boxes from the last poses, ids that stay, joints that do not jitter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.boxes import Detections
from scalenas_runtime.detect import box_iou
from scalenas_runtime.geometry import Float, whole_picture
from scalenas_runtime.one_euro import OneEuroFilter
from scalenas_runtime.pictures import as_picture
from scalenas_runtime.pose import BoxFinder, PoseEstimator
from scalenas_runtime.results import PoseResult
from scalenas_runtime.sources import Source, open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerOptions:
    """How a `PoseTracker` follows persons.

    Attributes:
        every: The detector looks for new persons in every n-th frame, and whenever nobody is followed.
        match_iou: A detection is a followed person when their boxes overlap by at least this.
        same_iou: Of two followed persons whose poses' boxes overlap by more than this, the newer is dropped.
        grow: A pose's bounding box is widened by this share of its sides, since joints lie inside the body.
        min_score: A person whose pose scores less was not found in that frame.
        min_joints: A person with fewer joints found was not found in that frame.
        patience: Frames in a row without being found until a person is dropped.
        smooth: Filter the joints; `min_cutoff`, `beta` and `speed_cutoff` are the One-Euro filter's, with positions
            measured in person heights, so that one setting serves near and far persons.
        rate: Frames per second where frames carry no time.
    """

    every: int = 10
    match_iou: float = 0.3
    same_iou: float = 0.7
    grow: float = 0.2
    min_score: float = 0.3
    min_joints: int = 3
    patience: int = 10
    smooth: bool = True
    min_cutoff: float = 1.5
    beta: float = 4.0
    speed_cutoff: float = 1.0
    rate: float = 25.0

    def __post_init__(self) -> None:
        for name in ("every", "min_joints", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("match_iou", "same_iou"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")
        if not (self.rate > 0 and self.grow >= 0):
            raise ValueError(f"rate must be positive and grow not negative, got {self.rate} and {self.grow}")


@dataclass(slots=True)
class _Track:
    number: int
    box: Float
    score: float
    filter: OneEuroFilter
    missed: int = 0
    size: float = 0.0


@dataclass(slots=True)
class _State:
    tracks: list[_Track] = field(default_factory=list)
    frame: int = 0
    next_number: int = 1
    time: float = 0.0


class PoseTracker:
    """Follows persons through the frames of one video; the same frames give the same ids and joints, always.

    A followed person's box is the bounding box of the last pose, so that the detector runs only now and then. One
    tracker serves one video and one thread at a time.
    """

    def __init__(
        self, estimator: PoseEstimator, detector: BoxFinder | None = None, *, options: TrackerOptions | None = None
    ) -> None:
        """Takes what finds joints and what finds persons.

        Args:
            estimator: Finds the joints in each box.
            detector: Finds boxes in a picture (`Detector`, or any callable); without one the whole picture is the
                first box, which suits one person.
            options: Thresholds and smoothing.
        """
        self.estimator = estimator
        self.detector = detector
        self.options = options or TrackerOptions()
        self._state = _State()

    def reset(self) -> None:
        """Forgets everybody; ids start at 1 again."""
        self._state = _State()

    def __call__(self, picture: NDArray[Any], time: float | None = None) -> PoseResult:
        """Returns the persons found in the next frame, with `.ids`, in the order of their ids.

        Args:
            picture: The frame (`pictures.as_picture`).
            time: Seconds, growing from frame to frame; counted by `options.rate` where left out.

        Raises:
            ValueError: `time` does not grow.
            UserError: as `PoseEstimator.estimate`.
        """
        state, options = self._state, self.options
        picture = as_picture(picture)
        height, width = picture.shape[:2]
        now = state.time + 1 / options.rate if time is None else time
        if state.frame and not now > state.time:
            raise ValueError(f"time must grow from frame to frame, got {now} after {state.time}")
        if not state.tracks or state.frame % options.every == 0:
            self._look(picture, height, width)
        state.frame, state.time = state.frame + 1, now
        boxes = np.array([track.box for track in state.tracks], np.float32).reshape(-1, 4)
        scores = np.array([track.score for track in state.tracks], np.float32)
        result = self.estimator.estimate(picture, boxes, box_scores=scores)
        seen = self._follow(result, height, width)
        result = self._smooth(result, seen, now)
        ids = np.array([track.number for track in state.tracks], np.int64)
        self._drop(seen, result)
        return replace(result, ids=ids)[seen]

    def stream(self, source: Source | str | Path | int | Sequence[str | Path]) -> Iterator[PoseResult]:
        """Yields one result a frame of `source` (`sources.open_source`), with `.frame` and `.ids` set."""
        for frame in source if isinstance(source, Source) else open_source(source):
            yield replace(self(frame.picture, frame.time), frame=frame)

    def _look(self, picture: NDArray[np.uint8], height: int, width: int) -> None:
        """Matches detections with followed persons, best overlap first, and starts following the others."""
        tracks = self._state.tracks
        if self.detector is not None:
            found = self.detector(picture)
        elif not tracks:
            found = Detections(whole_picture(height, width), np.ones(1, np.float32))
        else:
            return
        overlap = box_iou(np.array([track.box for track in tracks], np.float32).reshape(-1, 4), found.boxes)
        free = np.ones(len(found), bool)
        for track_index, detection in _best_pairs(overlap, self.options.match_iou):
            # The pose's box stays: the net has seen this person more closely than the detector.
            tracks[track_index].score = float(found.scores[detection])
            free[detection] = False
            if tracks[track_index].missed:
                tracks[track_index].box = found.boxes[detection]
        for detection in np.flatnonzero(free).tolist():
            tracks.append(self._start(found.boxes[detection], float(found.scores[detection])))

    def _start(self, box: Float, score: float) -> _Track:
        options = self.options
        smoother = OneEuroFilter(min_cutoff=options.min_cutoff, beta=options.beta, speed_cutoff=options.speed_cutoff)
        track = _Track(self._state.next_number, box, score, smoother)
        self._state.next_number += 1
        return track

    def _follow(self, result: PoseResult, height: int, width: int) -> NDArray[np.bool_]:
        """Moves every box to its pose; returns which persons were found, bool (N,)."""
        seen = np.zeros(len(result), bool)
        found = result.found
        for index, track in enumerate(self._state.tracks):
            joints = result.keypoints[index][found[index]]
            strength = float(result.scores[index][found[index]].mean()) if len(joints) else 0.0
            box = _pose_box(joints, self.options.grow, height, width) if len(joints) else None
            if len(joints) < self.options.min_joints or strength < self.options.min_score or box is None:
                track.missed += 1
                continue
            track.missed, track.box = 0, box
            seen[index] = True
        return seen

    def _smooth(self, result: PoseResult, seen: NDArray[np.bool_], now: float) -> PoseResult:
        if not self.options.smooth:
            return result
        keypoints = result.keypoints.copy()
        found = result.found
        for index in np.flatnonzero(seen).tolist():
            track = self._state.tracks[index]
            # A fixed unit: were it the height of the moment, a bending person's joints would seem to move.
            track.size = track.size or float(max(track.box[3] - track.box[1], track.box[2] - track.box[0]))
            known = np.repeat(found[index][:, np.newaxis], 2, axis=1)
            keypoints[index] = track.filter(keypoints[index] / track.size, now, known=known) * track.size
        return replace(result, keypoints=keypoints)

    def _drop(self, seen: NDArray[np.bool_], result: PoseResult) -> None:
        """Stops following persons that are lost, and the newer of two that became one; `seen` loses those too."""
        tracks = self._state.tracks
        boxes = np.array([track.box for track in tracks], np.float32).reshape(-1, 4)
        overlap = box_iou(boxes, boxes)
        gone = np.array([track.missed >= self.options.patience for track in tracks], bool)
        for index in np.flatnonzero(seen).tolist():
            twins = overlap[index, :index] > self.options.same_iou
            if (twins & seen[:index] & ~gone[:index]).any():
                gone[index], seen[index] = True, False
        self._state.tracks = [track for track, lost in zip(tracks, gone.tolist(), strict=True) if not lost]


def _best_pairs(overlap: Float, least: float) -> list[tuple[int, int]]:
    """Returns (row, column) pairs, best overlap first, every row and column once at most."""
    pairs: list[tuple[int, int]] = []
    overlap = overlap.copy()
    while overlap.size and overlap.max() >= least:
        row, column = divmod(int(overlap.argmax()), overlap.shape[1])
        pairs.append((row, column))
        overlap[row], overlap[:, column] = -1, -1
    return pairs


def _pose_box(joints: Float, grow: float, height: int, width: int) -> Float | None:
    """Returns the joints' bounding box, widened by `grow` of its sides and at least 2 pixels; None outside."""
    low, high = joints.min(0), joints.max(0)
    margin = np.maximum((high - low) * grow / 2, 1)
    low, high = low - margin, high + margin
    inside = high[0] > 0 and high[1] > 0 and low[0] < width and low[1] < height
    return np.concatenate([low, high]).astype(np.float32) if inside and np.isfinite([low, high]).all() else None
