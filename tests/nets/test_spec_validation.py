"""What the ScaleNAS family refuses, and what it accepts and normalises."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scalenas.registry import get_space, list_spaces
from scalenas.spec import SubnetSpec
from scalenas_runtime.errors import UserError

SPACE = get_space("scalenas")
Edit = Callable[[dict[str, Any]], object]


def edited(edit: Edit, *, task: str = "pose") -> SubnetSpec:
    plain: dict[str, Any] = copy.deepcopy(dict(SPACE.max({"task": task}).to_json()))
    edit(plain)
    return SubnetSpec.from_json(plain)


def gene(module: str, key: str, value: object, *path: int) -> Edit:
    def edit(plain: dict[str, Any]) -> None:
        target = plain["genes"][module]
        for step in (key, *path[:-1]):
            target = target[step] if path else target
        target[path[-1] if path else key] = value

    return edit


def setting(key: str, value: object) -> Edit:
    return lambda plain: plain["settings"].update({key: value})


def image(*shape: object) -> Edit:
    return lambda plain: plain["inputs"].update({"image": list(shape)})


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (gene("stage3.1", "depth", 6, 2), r"gene stage3\.1\.depth\[2\] is 6; allowed: 2, 3, 4, 5"),
        (gene("stage3.1", "depth", 0, 0), r"gene stage3\.1\.depth\[0\] is 0; allowed: 2, 3, 4, 5"),
        (gene("stage3.1", "depth", "3", 0), r"gene stage3\.1\.depth\[0\] is '3'; allowed"),
        (gene("stage3.1", "depth", 3.0, 0), r"gene stage3\.1\.depth\[0\] is 3\.0; allowed"),
        (gene("stage3.1", "depth", [2, 3]), r"gene stage3\.1\.depth is \[2, 3\]; needed is a list of 3 \(branches\)"),
        (gene("stage4.2", "fuse", "11", 1, 4), r"gene stage4\.2\.fuse\[1\]\[4\] is '11'; .* 3 characters .*0, 2, 3"),
        (gene("stage4.2", "fuse", "1111", 0, 0), r"gene stage4\.2\.fuse\[0\]\[0\] is '1111'"),
        (gene("stage4.2", "fuse", "1x1", 0, 0), r"gene stage4\.2\.fuse\[0\]\[0\] is '1x1'; .*characters 0 or 1"),
        (gene("stage4.2", "fuse", 111, 0, 0), r"gene stage4\.2\.fuse\[0\]\[0\] is 111"),
        (gene("stage2.0", "fuse", ["1"] * 4, 1), r"gene stage2\.0\.fuse\[1\] is .*needed is a list of 5 \(steps\)"),
        (gene("stage2.0", "fuse", []), r"gene stage2\.0\.fuse is \[\]; needed is a list of 2 \(destinations\)"),
        (gene("stage2.0", "depht", [2, 2]), r"unknown gene in stage2\.0 'depht' \(did you mean 'depth'\?\)"),
        (lambda plain: plain["genes"]["stage2.0"].pop("fuse"), r"gene stage2\.0\.fuse is missing"),
        (lambda plain: plain["genes"].pop("stage3.3"), r"gene stage3\.3 is missing; needed is \{'depth'"),
        (lambda plain: plain["genes"].update({"stage5.0": {}}), r"unknown module in genes 'stage5\.0'.*stage2\.0"),
        (lambda plain: plain["genes"].update({"stage2.0": 7}), r"gene stage2\.0 is 7; needed is \{'depth'"),
        (setting("width", 31), r"setting width is 31; needed is an even positive number such as 18, 32 or 48"),
        (setting("width", 0), r"setting width is 0; needed is an even"),
        (setting("width", -32), r"setting width is -32; needed is an even"),
        (setting("width", "32"), r"setting width is '32'; needed is an even"),
        (setting("width", True), r"setting width is True; needed is an even"),
        (setting("modules", [1, 4]), r"setting modules is \[1, 4\]; needed are three numbers from 1 to 64"),
        (setting("modules", [1, 0, 3]), r"setting modules is \[1, 0, 3\]; needed are three"),
        (setting("depths", [3, 2]), r"setting depths is \[3, 2\]; needed are numbers from 1 to 64 in rising order"),
        (setting("depths", []), r"setting depths is \[\]; needed are numbers"),
        (setting("depths", [2, 2]), r"setting depths is \[2, 2\]; needed are numbers"),
        (setting("depths", 4), r"setting depths is 4; needed are numbers"),
        # A file of a few bytes must not ask for hours of planning.
        (setting("width", 10**30), r"setting width is 10+; needed is an even .* at most 4096"),
        (setting("depths", [2, 100000]), r"setting depths is \[2, 100000\]; needed are numbers from 1 to 64"),
        (setting("modules", [1, 400, 3]), r"setting modules is \[1, 400, 3\]; needed are three numbers from 1 to 64"),
        (setting("stage1_blocks", 0), r"setting stage1_blocks is 0; needed is a whole number in 1..64"),
        (setting("joints", 0), r"setting joints is 0; needed is a whole number from 1 on"),
        (setting("task", "depth"), r"setting task is 'depth'; allowed: 'pose', 'segmentation'"),
        (setting("classes", 19), r"unknown setting of a pose net 'classes'; known: depths, fuse_upsample, joints"),
        (setting("widht", 32), r"unknown setting of a pose net 'widht' \(did you mean 'width'\?\)"),
        (setting("fuse_upsample", "nearest"), r"setting fuse_upsample is 'nearest'; needed is \{'mode'"),
        (setting("fuse_upsample", {"mode": "cubic"}), r"fuse_upsample\.mode is 'cubic'; allowed: nearest, bilinear"),
        (
            setting("fuse_upsample", {"mode": "nearest", "align_corners": True}),
            r"align_corners is true with mode nearest, where it has no meaning",
        ),
        (
            setting("fuse_upsample", {"mode": "bilinear", "align_corners": 1}),
            r"fuse_upsample\.align_corners is 1; allowed: true, false",
        ),
        (setting("fuse_upsample", {"mood": 1}), r"unknown key of setting fuse_upsample 'mood' \(did you mean 'mode'"),
        (image(3, 250, 192), r"input size 250x192 \(height x width\): 250 is not a positive multiple of 32; 256 would"),
        (image(3, 256, 16), r"input size 256x16 .*16 is not a positive multiple of 32; 32 would work"),
        (image(1, 256, 192), r"input 'image' is \[1, 256, 192\]; scalenas takes \[3, height, width\]"),
        (image(256, 192), r"input 'image' is \[256, 192\]; scalenas takes \[3, height, width\]"),
        (lambda plain: plain["inputs"].update({"depth": [1]}), r"inputs are image, depth; scalenas takes image"),
        (lambda plain: plain.update(space="ofa"), r"the spec is of family 'ofa', not 'scalenas'"),
    ],
)
def test_wrong_values_are_named_with_what_would_work(edit: Edit, text: str) -> None:
    with pytest.raises(UserError, match=text):
        SPACE.validate(edited(edit))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("classes", 1, r"setting classes is 1; needed is a whole number in 2\.\.255"),
        ("classes", 256, r"setting classes is 256; .* in 2\.\.255"),
        ("joints", 17, r"unknown setting of a segmentation net 'joints'"),
        ("head_upsample", {"mode": "area"}, r"setting head_upsample\.mode is 'area'; allowed: nearest, bilinear"),
    ],
)
def test_wrong_segmentation_settings_are_refused(key: str, value: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        SPACE.validate(edited(setting(key, value), task="segmentation"))


def test_symbolic_sizes_are_allowed_and_need_a_workload_to_be_counted() -> None:
    spec = edited(image(3, "height", "width"))
    SPACE.validate(spec)
    with pytest.raises(UserError, match=r"size 'height' of input 'image' is symbolic; give a workload"):
        SPACE.cost(spec)
    assert SPACE.cost(spec, {"image": (3, 256, 192)}) == SPACE.cost(SPACE.max())


def test_settings_that_are_left_out_take_their_default() -> None:
    full = SPACE.max()
    assert SPACE.normalise(SubnetSpec("scalenas", {"task": "pose"}, full.inputs, full.genes)) == full


def test_bits_without_meaning_are_accepted_and_normalised() -> None:
    for task in ("pose", "segmentation"):
        for seed in range(20):
            spec = SPACE.sample(np.random.default_rng(seed), settings={"task": task})
            plain: dict[str, Any] = dict(copy.deepcopy(spec.to_json()))
            for name, module in plain["genes"].items():
                for destination, depth in enumerate(module["depth"]):
                    first = depth - 1 if task == "pose" and name == "stage4.2" else depth
                    for step in range(first, 5):
                        module["fuse"][destination][step] = "1" * len(module["fuse"][destination][step])
            noisy = SubnetSpec.from_json(plain)
            assert noisy != spec or all(min(m["depth"]) == 5 for m in plain["genes"].values())
            assert SPACE.normalise(noisy) == spec
            assert SPACE.cost(noisy) == SPACE.cost(spec)


def test_pose_rule_is_written_out_in_the_last_module_alone() -> None:
    spec = SPACE.sample(np.random.default_rng(3))
    plain: dict[str, Any] = dict(spec.to_json())
    last = plain["genes"]["stage4.2"]
    own = [last["fuse"][branch][depth - 1] for branch, depth in enumerate(last["depth"])]
    assert own == ["111", "000", "000", "000"]
    zeros = SPACE.min({"task": "segmentation"}).to_json()["genes"]
    assert "1" not in str(zeros).replace("stage4.1", "").replace("stage3.1", "")


def test_unknown_family_lists_the_families() -> None:
    assert list_spaces()[0] == "scalenas"
    with pytest.raises(UserError, match=r"unknown family 'scalenass' \(did you mean 'scalenas'\?\); known: scalenas"):
        get_space("scalenass")


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_probabilities_outside_0_to_1_are_refused(value: float) -> None:
    rng, spec = np.random.default_rng(0), SPACE.max()
    with pytest.raises(UserError, match=r"a probability is in 0\.\.1"):
        SPACE.mutate(spec, rng, probability=value)
    with pytest.raises(UserError, match=r"a probability is in 0\.\.1"):
        SPACE.crossover(spec, spec, rng, probability=value)
    with pytest.raises(UserError, match=r"rate of depth is .*a probability is in 0\.\.1"):
        SPACE.mutate(spec, rng, rates={"depth": value})


def test_variation_refuses_unknown_kinds_and_parents_of_other_settings() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"unknown kind of gene 'width'; known: depth, fuse"):
        SPACE.mutate(SPACE.max(), rng, rates={"width": 0.1})
    with pytest.raises(UserError, match="parents of a crossover need the same settings; width differ"):
        SPACE.crossover(SPACE.max(), SPACE.max({"width": 48}), rng)
