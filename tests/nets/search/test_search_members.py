"""The nets that every search measures first."""

from __future__ import annotations

import pytest

from scalenas.registry import get_space
from scalenas_runtime.canonical import Json

SPACE = get_space("scalenas")


@pytest.mark.parametrize("task", ["pose", "segmentation"])
def test_members_are_hrnet_and_its_like_at_every_depth(task: str) -> None:
    settings: dict[str, Json] = {"task": task, "width": 16, "modules": [1, 2, 1], "depths": [2, 3, 4, 5]}
    members = SPACE.members(settings, (128, 96))
    pattern = SPACE.pattern(settings, (128, 96))
    assert pattern is not None
    assert list(members) == [pattern[0], "depth-2", "depth-3", "depth-5", "min"]
    assert members[pattern[0]] == pattern[1]
    for spec in members.values():
        SPACE.validate(spec)
        assert spec.inputs["image"] == (3, 128, 96)
    costs = [SPACE.cost(members[name]).macs for name in ("min", "depth-2", "depth-3", pattern[0], "depth-5")]
    assert costs == sorted(costs)
    assert len(set(costs)) == 5


def test_members_without_hrnets_depth() -> None:
    members = SPACE.members({"width": 8, "modules": [1, 1, 1], "depths": [1, 2]}, (64, 64))
    assert list(members) == ["depth-1", "depth-2", "min"]
