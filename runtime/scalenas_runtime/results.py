"""What the runtime hands back: `PoseResult` and `SegmentationResult`, checked at birth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks.pose import PoseRecipe
from scalenas_runtime.tasks.segmentation import SegmentationRecipe

if TYPE_CHECKING:
    from scalenas_runtime.sources import Frame

Float = NDArray[np.float32]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class PoseResult:
    """The joints of N persons in one picture.

    Attributes:
        keypoints: float32 (N, K, 2), x, y in pixels of the picture, pixel centres at integers.
        scores: float32 (N, K), height of each joint's heatmap peak, about 0..1.
        boxes: float32 (N, 4), x1, y1, x2, y2 of the boxes the persons were looked for in, as they were given.
        box_scores: float32 (N,), 1 where the boxes came without scores.
        recipe: Names, edges and threshold of the joints.
        ids: int64 (N,), which person across frames (`PoseTracker`), or None.
        frame: The frame of a stream, or None for a picture that the caller has.
    """

    keypoints: Float
    scores: Float
    boxes: Float
    box_scores: Float
    recipe: PoseRecipe
    ids: NDArray[np.int64] | None = None
    frame: Frame | None = None

    def __post_init__(self) -> None:
        count, joints = len(self.boxes), len(self.recipe.joints)
        _check("keypoints", self.keypoints, (count, joints, 2), np.float32)
        _check("scores", self.scores, (count, joints), np.float32)
        _check("boxes", self.boxes, (count, 4), np.float32)
        _check("box_scores", self.box_scores, (count,), np.float32)
        if self.ids is not None:
            _check("ids", self.ids, (count,), np.int64)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[PoseResult]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | slice | list[int] | list[bool] | NDArray[Any]) -> PoseResult:
        """Returns the chosen persons as a `PoseResult`; an integer gives a result of one person.

        Raises:
            IndexError: an integer outside -N..N-1, or a mask of another length.
        """
        chosen: Any = index
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"person {index} of {len(self)}")
            chosen = [int(index)]
        return replace(
            self,
            keypoints=self.keypoints[chosen],
            scores=self.scores[chosen],
            boxes=self.boxes[chosen],
            box_scores=self.box_scores[chosen],
            ids=None if self.ids is None else self.ids[chosen],
        )

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which joints count as found, bool (N, K): score above `recipe.keypoint_threshold`."""
        return self.scores > self.recipe.keypoint_threshold

    @property
    def person_scores(self) -> Float:
        """Score of each person, float32 (N,): box score times the mean score of the found joints, 0 without any.

        HRNet's score of COCO results (Sun et al., CVPR 2019).
        """
        found = self.found
        total = np.where(found, self.scores, 0).sum(1)
        scores: Float = (self.box_scores * total / np.maximum(found.sum(1), 1)).astype(np.float32)
        return scores

    def filter(self, min_score: float) -> PoseResult:
        """Returns the persons whose `person_scores` reach `min_score`."""
        return self[self.person_scores >= min_score]

    def to_json(self) -> dict[str, Json]:
        """Returns the result as JSON values: one entry a person, coordinates rounded to 0.001 pixel."""
        return {"task": "pose", "persons": [self._person(index) for index in range(len(self))]}

    def to_coco(self, image_id: int | str, *, category_id: int = 1) -> list[dict[str, Json]]:
        """Returns the persons in COCO's keypoint results format: `image_id category_id keypoints score`.

        There is no `bbox`, so that COCO's tools take the area from the joints, as they do for HRNet's results.
        """
        triples = np.concatenate([self.keypoints, self.scores[:, :, np.newaxis]], 2).reshape(
            len(self), 3 * len(self.recipe.joints)
        )
        return [
            {"image_id": image_id, "category_id": category_id, "keypoints": row, "score": score}
            for row, score in zip(triples.tolist(), self.person_scores.tolist(), strict=True)
        ]

    def draw(
        self, picture: Picture | None = None, *, boxes: bool = True, ids: bool = True, show_scores: bool = False
    ) -> Picture:
        """Returns a copy of the picture with skeletons on it, uint8 (H, W, 3), BGR.

        Args:
            picture: The picture the joints belong to; the result's own frame where it is left out.
            boxes: Draw the boxes too.
            ids: Write the ids of tracked persons.
            show_scores: Write the persons' scores.

        Raises:
            UserError: no picture is given and the result has no frame.
        """
        from scalenas_runtime.draw import draw_pose

        return draw_pose(_picture(picture, self.frame), self, boxes=boxes, ids=ids, show_scores=show_scores)

    def _person(self, index: int) -> dict[str, Json]:
        points, scores = self.keypoints[index].tolist(), self.scores[index].tolist()
        person: dict[str, Json] = {
            "box": [round(value, 3) for value in self.boxes[index].tolist()],
            "box_score": round(float(self.box_scores[index]), 6),
            "score": round(float(self.person_scores[index]), 6),
            "keypoints": [
                {"name": name, "x": round(x, 3), "y": round(y, 3), "score": round(score, 6)}
                for name, (x, y), score in zip(self.recipe.joints, points, scores, strict=True)
            ],
        }
        return person if self.ids is None else {"id": int(self.ids[index]), **person}


def no_persons(recipe: PoseRecipe) -> PoseResult:
    """Returns the result of a picture without boxes."""
    joints = len(recipe.joints)
    return PoseResult(
        keypoints=np.zeros((0, joints, 2), np.float32),
        scores=np.zeros((0, joints), np.float32),
        boxes=np.zeros((0, 4), np.float32),
        box_scores=np.zeros(0, np.float32),
        recipe=recipe,
    )


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationResult:
    """The class of every pixel of one picture.

    Attributes:
        class_map: uint8 (H, W), index into `recipe.classes`, in pixels of the picture.
        recipe: Names and palette of the classes.
        frame: The frame of a stream, or None for a picture that the caller has.
    """

    class_map: Picture
    recipe: SegmentationRecipe
    frame: Frame | None = None

    def __post_init__(self) -> None:
        if self.class_map.ndim != 2 or self.class_map.dtype != np.uint8:
            raise ValueError(f"class_map must be uint8 (H, W), got {self.class_map.dtype.name} {self.class_map.shape}")

    def shares(self) -> Mapping[str, float]:
        """Returns each class's share of the picture, 0..1, by name, in the recipe's order; sums to 1."""
        counts = np.bincount(self.class_map.ravel(), minlength=len(self.recipe.classes))
        total = max(self.class_map.size, 1)
        return {name: int(count) / total for name, count in zip(self.recipe.classes, counts, strict=False)}

    def to_json(self) -> dict[str, Json]:
        """Returns size and class shares as JSON values; the map itself is a picture and is saved as one."""
        height, width = self.class_map.shape
        shares: dict[str, Json] = {name: round(share, 6) for name, share in self.shares().items()}
        return {"task": "segmentation", "height": height, "width": width, "shares": shares}

    def draw(self, picture: Picture | None = None, *, alpha: float = 0.5, legend: bool = True) -> Picture:
        """Returns a copy of the picture with the classes' colours laid over it, uint8 (H, W, 3), BGR.

        Args:
            picture: The picture the map belongs to; the result's own frame where it is left out.
            alpha: Weight of the colours, 0..1.
            legend: Write names and shares of the classes that occur.

        Raises:
            UserError: no picture is given and the result has no frame, or another size or alpha.
        """
        from scalenas_runtime.draw_segmentation import draw_segmentation

        return draw_segmentation(_picture(picture, self.frame), self, alpha=alpha, legend=legend)


def _picture(picture: Picture | None, frame: Frame | None) -> Picture:
    if picture is not None:
        return picture
    if frame is None:
        raise UserError("draw needs the picture: this result did not come from a stream")
    return frame.picture


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} {shape}, got {array.dtype.name} {array.shape}; "
            "boxes give the number of persons, the recipe the number of joints"
        )
