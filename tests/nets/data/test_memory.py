"""What is kept in memory is what the source gave, and no more than there is room for."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from scalenas.data.augmentation import PoseAugmentation, SegmentationAugmentation
from scalenas.data.maps import DrawnMaps, MapSamples
from scalenas.data.memory import Memory
from scalenas.data.people import DrawnPeople, PoseSamples
from scalenas_runtime.tasks.sets import CAMVID_11, LSPET_14, pose_recipe, segmentation_recipe


class Counted:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, index: int) -> int:
        self.asked.append(index)
        return index * index


@pytest.mark.parametrize(("room", "asked"), [(0, [3, 4, 3, 4]), (1, [3, 4, 4]), (2, [3, 4])])
def test_an_item_is_made_once_while_there_is_room(room: int, asked: list[int]) -> None:
    made = Counted()
    memory = Memory(made, room)
    assert [memory(index) for index in (3, 4, 3, 4)] == [9, 16, 9, 16]
    assert made.asked == asked


def test_samples_are_the_same_from_memory_and_in_another_process() -> None:
    people = DrawnPeople(LSPET_14, seed=1, scenes=range(2), size=(120, 96))
    streets = DrawnMaps(CAMVID_11, seed=1, scenes=range(2), size=(96, 128))
    pose = pose_recipe(LSPET_14, size=(64, 64))
    road = segmentation_recipe(CAMVID_11, size=(64, 96))
    for plain, kept in (
        (
            PoseSamples(people, pose, augmentation=PoseAugmentation(colour=0.3)),
            PoseSamples(people, pose, augmentation=PoseAugmentation(colour=0.3), keep=2),
        ),
        (
            MapSamples(streets, road, classes=CAMVID_11, augmentation=SegmentationAugmentation(colour=0.3)),
            MapSamples(streets, road, classes=CAMVID_11, augmentation=SegmentationAugmentation(colour=0.3), keep=2),
        ),
    ):
        for turn in range(3):
            if turn == 2:
                kept = pickle.loads(pickle.dumps(kept))
            for index in (0, 1):
                mine, theirs = (each.sample(index, np.random.default_rng(turn)) for each in (plain, kept))
                assert np.array_equal(mine.picture, theirs.picture)
                assert np.array_equal(mine.target, theirs.target)
