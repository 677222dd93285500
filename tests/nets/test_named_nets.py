"""Nets by name: what exists, what can be overridden, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from scalenas.names import list_models, resolve_spec
from scalenas.registry import get_space
from scalenas.spec import SubnetSpec
from scalenas_runtime.errors import UserError

SPACE = get_space("scalenas")

# Depths per module as the ScaleNAS paper's released masks have them; blocks and fusions in stages 2 to 4.
MASKS = {
    "scalenet-s1": "34 | 323 222 222 232 | 2223 2333 3434   68 blocks, 95 fusions",
    "scalenet-s2": "34 | 344 343 222 333 | 3333 4343 3434   83 blocks, 127 fusions",
    "scalenet-s3": "23 | 544 433 223 232 | 3323 2223 4445   79 blocks, 76 fusions",
    "scalenet-s4": "34 | 544 544 334 323 | 3333 4444 4445   96 blocks, 94 fusions",
    "scalenet-p1": "34 | 334 443 443 443 | 3433 3444 3433   91 blocks, 130 fusions",
    "scalenet-p2": "55 | 334 443 554 444 | 4545 3444 4544   107 blocks, 165 fusions",
    "scalenet-p3": "33 | 344 233 323 323 | 3232 4454 4343   82 blocks, 113 fusions",
    "scalenet-p4": "34 | 344 433 343 443 | 4434 3443 4343   92 blocks, 139 fusions",
    # The paper counts HRNet as 108 blocks with the 4 of stage 1, and 62 fusions.
    "hrnet-w32-seg": "44 | 444 444 444 444 | 4444 4444 4444   104 blocks, 62 fusions",
}


@pytest.mark.parametrize(("name", "summary"), MASKS.items())
def test_published_nets_have_the_published_depths_and_counts(name: str, summary: str) -> None:
    assert SPACE.summary(resolve_spec(name)) == summary


@pytest.mark.parametrize(
    ("name", "image", "settings"),
    [
        ("hrnet-w18", (3, 256, 192), {"task": "pose", "width": 18, "joints": 17}),
        ("hrnet-w48-seg", (3, 1024, 2048), {"task": "segmentation", "width": 48, "classes": 19}),
        ("scalenet-p2", (3, 256, 192), {"width": 32, "fuse_upsample": {"mode": "nearest", "align_corners": False}}),
        ("scalenet-p4", (3, 384, 288), {"width": 48}),
        ("scalenet-s3", (3, 1024, 2048), {"width": 48, "fuse_upsample": {"mode": "nearest", "align_corners": False}}),
        (
            "hrnet-w32-seg",
            (3, 1024, 2048),
            {
                "fuse_upsample": {"mode": "bilinear", "align_corners": False},
                "head_upsample": {"mode": "bilinear", "align_corners": False},
            },
        ),
        ("hrnet-w16", (3, 256, 192), {"width": 16}),
        ("hrnet-w64-seg", (3, 1024, 2048), {"width": 64}),
        ("max", (3, 256, 192), {"task": "pose", "width": 32}),
    ],
)
def test_nets_have_their_published_input_and_settings(
    name: str, image: tuple[int, ...], settings: dict[str, Any]
) -> None:
    spec = resolve_spec(name)
    assert spec.inputs["image"] == image
    plain: dict[str, Any] = dict(spec.to_json()["settings"])  # type: ignore[arg-type]
    assert {key: plain[key] for key in settings} == settings


def test_hrnet_is_depth_four_with_one_fusion_step() -> None:
    for module in dict(resolve_spec("hrnet-w32-seg").to_json()["genes"]).values():  # type: ignore[arg-type]
        assert isinstance(module, dict)
        assert set(module["depth"]) == {4}
        for rows in module["fuse"]:
            assert ["1" in row for row in rows] == [False, False, False, True, False]
            assert "0" not in rows[3]


def test_names_are_listed_by_pattern() -> None:
    assert list_models("*w32*") == ["hrnet-w32-seg", "hrnet-w32"]
    assert {"max", "min", "scalenet-p1", "scalenet-s4", "hrnet-w18-seg"} <= set(list_models())
    assert list_models("nothing*") == []
    for name in list_models():
        SPACE.validate(resolve_spec(name))


def test_overrides_change_size_task_width_joints_and_classes() -> None:
    assert resolve_spec("hrnet-w32", size=(384, 288)).inputs["image"] == (3, 384, 288)
    assert resolve_spec("hrnet-w32", joints=14).settings["joints"] == 14
    assert resolve_spec("scalenet-s1", classes=11).settings["classes"] == 11
    assert resolve_spec("max", task="segmentation", width=18, size=(64, 64)) == SPACE.max(
        {"task": "segmentation", "width": 18}, {"image": (3, 64, 64)}
    )
    assert resolve_spec("hrnet-w48", task="segmentation") == resolve_spec("hrnet-w48-seg")
    assert resolve_spec("hrnet-w48-seg", task="pose", size=(64, 64)) == resolve_spec("hrnet-w48", size=(64, 64))
    assert resolve_spec("hrnet-w48", width=48) == resolve_spec("hrnet-w48")
    other = resolve_spec("scalenet-p1", task="segmentation", width=18, classes=5)
    assert (other.settings["width"], other.settings["classes"]) == (18, 5)
    assert SPACE.summary(other) == SPACE.summary(resolve_spec("scalenet-p1"))


def test_a_name_of_the_family_may_be_written_in_full() -> None:
    assert resolve_spec("scalenas/hrnet-w32") == resolve_spec("hrnet-w32")


@pytest.mark.parametrize(
    ("name", "overrides", "text"),
    [
        ("hrnet-w31", {}, "setting width is 31; needed is an even positive number"),
        ("hrnet-w0", {}, "setting width is 0; needed is an even positive number"),
        ("hrnet-w-2-seg", {}, "setting width is -2; needed is an even positive number"),
        ("hrnt-w32", {}, r"unknown net 'hrnt-w32'; near: hrnet-w32, .*or give a spec file"),
        ("other/hrnet-w32", {}, "unknown net 'other/hrnet-w32'"),
        ("zzz", {}, "unknown net 'zzz'; near: hrnet-w18-seg, .*scalenet-s4, max, min"),
        ("hrnet-w32", {"width": 48}, "hrnet-w32 has width 32, not 48; use hrnet-w48"),
        ("hrnet-w32", {"size": (250, 192)}, "input size 250x192 .*250 is not a positive multiple of 32"),
        ("hrnet-w32", {"classes": 11}, "unknown setting of a pose net 'classes'"),
        ("hrnet-w32", {"task": "depth"}, "setting task is 'depth'; allowed: 'pose', 'segmentation'"),
        ("max", {"width": 7}, "setting width is 7; needed is an even"),
        ("nothing.json", {}, "there is no spec file nothing.json; a net can also be named: hrnet"),
    ],
)
def test_wrong_names_and_overrides_are_refused(name: str, overrides: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        resolve_spec(name, **overrides)


def test_spec_files_are_specs_too(tmp_path: Path) -> None:
    spec = resolve_spec("scalenet-p3", size=(64, 96))
    spec.write(tmp_path / "mine.json")
    assert resolve_spec(str(tmp_path / "mine.json")) == spec
    spec.write(tmp_path / "mine.spec")
    assert resolve_spec(str(tmp_path / "mine.spec")) == spec
    assert resolve_spec(tmp_path / "mine.json", size=(384, 288)) == resolve_spec("scalenet-p3")
    SubnetSpec("ofa", spec.settings, spec.inputs, spec.genes).write(tmp_path / "other.json")
    with pytest.raises(UserError, match="unknown family 'ofa'; known: scalenas"):
        resolve_spec(tmp_path / "other.json")
