"""What a net takes from weights: whole tensors by name, rows of the head by the names of joints or classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from scalenas.registry import get_space
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet, extract, static_net
from scalenas.supernet import Supernet
from scalenas.training.judge import Judge, NetSession, members, typical
from scalenas.training.pictures import normalised
from scalenas.training.start import frame_of, inherit, new_net, single, teacher_net
from scalenas.weights import Weights, load_weights, rounded, save_weights
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe, Recipe
from tests.nets.lively import enliven
from tests.nets.training import toys

OTHER_TWO = msgspec.structs.replace(toys.POSE, joints=("nose", "neck"))
OTHER = msgspec.structs.replace(toys.POSE, joints=("nose", "left_shoulder", "neck", "right_hip"))


def _static(recipe: Recipe, seed: int, **settings: object) -> StaticNet:
    config = toys.config(phase="alone", model={"size": [toys.SIDE] * 2, "spec": "max"})
    model = {"width": 4, "modules": [1, 1, 1], "depths": [1, 2], "stage1_blocks": 1, **settings}
    config = toys.config(phase="alone", model={"settings": model, "spec": "max"})
    net = new_net(frame_of(config, recipe, None), config)
    assert isinstance(net, StaticNet)
    enliven(net, seed)
    return net


def test_a_supernet_starts_from_its_teacher() -> None:
    teacher = Weights.of(_static(toys.POSE, 1), recipe=toys.POSE)
    frame = frame_of(toys.config(), toys.POSE, teacher)
    net = new_net(frame, toys.config())
    assert isinstance(net, Supernet)
    report = inherit(net, frame, teacher)
    assert report.rows == ()
    assert report.copied == len(teacher.tensors)
    # What no net of the pose rule ever uses stays as it was.
    assert all(name.startswith("stage4.0.step") for name in report.fresh)
    x = torch.randn(1, 3, toys.SIDE, toys.SIDE)
    largest = frame.space.max(frame.settings, frame.inputs)
    assert torch.equal(net.eval()(x, largest), teacher_net(frame, teacher)(x))


def test_other_joints_take_the_rows_that_both_know_by_name() -> None:
    given = Weights.of(_static(toys.POSE, 1), recipe=toys.POSE)
    net = _static(OTHER, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    config = toys.config(phase="finetune", model={"weights": "w", "spec": "max"})
    report = inherit(net, frame_of(config, OTHER, given), given)
    assert report.rows == ("left_shoulder", "right_hip")
    assert report.fresh == ()
    after = net.state_dict()
    for name in ("head.conv.weight", "head.conv.bias"):
        assert torch.equal(after[name][[3, 1]], given.tensors[name]), name
        assert torch.equal(after[name][[0, 2]], before[name][[0, 2]]), name
    assert torch.equal(after["stem.conv1.conv.weight"], given.tensors["stem.conv1.conv.weight"])


def test_weights_without_a_recipe_start_a_head_of_another_size_anew() -> None:
    given = replace(Weights.of(_static(toys.POSE, 1), recipe=toys.POSE), recipe=None)
    config = toys.config(phase="finetune", model={"weights": "w", "spec": "max"})
    three = msgspec.structs.replace(toys.POSE, joints=("right_hip", "left_shoulder", "neck"))
    report = inherit(_static(three, 2), frame_of(config, three, given), given)
    assert (report.rows, report.fresh) == ((), ("head.conv.weight", "head.conv.bias"))
    whole = inherit(_static(OTHER_TWO, 2), frame_of(config, OTHER_TWO, given), given)
    assert (whole.rows, whole.fresh) == ((), ())


@pytest.mark.parametrize(
    ("recipe", "outputs", "message"),
    [
        pytest.param(None, None, "", id="same number, no recipe"),
        pytest.param(None, 3, "is of task pose with 2 joints, the data want pose with 3", id="other number, no recipe"),
        pytest.param({"color": "bgr"}, None, "the teacher's recipe has color bgr, the run's rgb", id="colour"),
        pytest.param({"affine": "udp"}, None, r"affine udp, the run's classic; set data.recipe.affine", id="affine"),
        pytest.param({"decode": "dark"}, None, "", id="what the net does not see"),
    ],
)
def test_a_teacher_sees_what_its_student_sees(
    recipe: dict[str, object] | None, outputs: int | None, message: str
) -> None:
    weights = Weights.of(_static(toys.POSE, 1), recipe=None)
    if recipe is not None:
        weights = replace(weights, recipe=msgspec.structs.replace(toys.POSE, **recipe))
    joints = toys.POSE.joints if outputs is None else ("right_hip", "left_shoulder", "neck")
    frame = frame_of(toys.config(), msgspec.structs.replace(toys.POSE, joints=joints), None)
    if message:
        with pytest.raises(UserError, match=message):
            teacher_net(frame, weights)
    else:
        assert teacher_net(frame, weights).spec == weights.spec


def test_another_task_keeps_the_trunk_and_starts_its_head_anew() -> None:
    given = Weights.of(_static(toys.POSE, 1), recipe=toys.POSE)
    config = toys.config(phase="alone", model={"spec": "max"})
    frame = frame_of(config, toys.CLASSES, given)
    net = new_net(frame, config)
    report = inherit(net, frame, given)
    assert {"head.classify.weight", "head.classify.bias", "head.mix.weight"} <= set(report.fresh)
    assert torch.equal(net.state_dict()["stem.conv1.conv.weight"], given.tensors["stem.conv1.conv.weight"])


def test_a_subnet_of_a_supernet_is_the_extracted_one() -> None:
    frame = frame_of(toys.config(), toys.POSE, None)
    net = Supernet(frame.space, frame.settings, frame.inputs, seed=3)
    enliven(net, 3)
    spec = frame.space.sample(np.random.default_rng(0), settings=frame.settings, inputs=frame.inputs)
    x = torch.randn(1, 3, toys.SIDE, toys.SIDE)
    assert torch.equal(single(frame, net.state_dict(), spec)(x), extract(net, spec).eval()(x))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("family", "of family other"),
        ("shape", "stem.conv1.conv.weight is .* in the weights"),
        ("nothing", "share no tensor"),
        ("teacher of a supernet", "weights are of a supernet"),
        ("teacher of others", "the teacher gives nose"),
        ("settings of the data", "model.settings.joints follows from the data"),
        ("name", "unknown net 'hrmet'"),
        ("file", "there is no spec file"),
    ],
)
def test_weights_and_names_that_do_not_fit(case: str, message: str) -> None:
    net = _static(toys.POSE, 1)
    tensors = dict(net.state_dict())
    settings = net.spec.to_json()["settings"]
    assert isinstance(settings, dict)
    space = "scalenas"
    if case == "family":
        space = "other"
    elif case == "shape":
        tensors["stem.conv1.conv.weight"] = torch.zeros(1)
    elif case == "nothing":
        tensors = {"x": torch.zeros(1)}
    kind = "supernet" if "supernet" in case else "static"
    recipe: PoseRecipe = OTHER if case == "teacher of others" else toys.POSE
    spec: SubnetSpec | None = None if kind == "supernet" else net.spec
    weights = Weights(kind, space, settings, tensors, spec, recipe)  # type: ignore[arg-type]
    frame = frame_of(toys.config(), toys.POSE, None)

    def use() -> object:
        if case.startswith("teacher"):
            return teacher_net(frame, weights)
        if case.startswith("settings"):
            return frame_of(toys.config(model={"settings": {"joints": 3}}), toys.POSE, None)
        if case in ("name", "file"):
            return frame.spec("hrmet" if case == "name" else "none.json")
        return inherit(net, frame, weights)

    with pytest.raises(UserError, match=message):
        use()


def test_members_are_the_ends_the_pattern_and_typical_ones() -> None:
    model = {"settings": {"width": 4, "modules": [1, 1, 1], "depths": [2, 3, 4, 5]}}
    frame = frame_of(toys.config(model=model), toys.POSE, None)
    found = members(frame)
    assert list(found) == ["max", "min", "hrnet-w4", "depth2-3_fuse0.2", "depth3-4_fuse0.5", "depth4-5_fuse0.8"]
    macs = [frame.space.cost(spec).macs for spec in found.values()]
    assert macs[1] < macs[3] < macs[4] < macs[5] < macs[0]
    assert typical(frame, "depth3-4_fuse0.5") == found["depth3-4_fuse0.5"]


@pytest.mark.parametrize("task", ["pose", "segmentation"])
def test_the_pattern_of_other_settings_is_hrnets_where_they_are_its_own(task: str) -> None:
    space = get_space("scalenas")
    found = space.pattern({"width": 32, "task": task})
    assert found is not None
    assert found[1].genes == space.named()[found[0]].genes
    small = space.named_spec("hrnet-w16", settings={"task": task, "modules": [1, 2, 1]}, size=(64, 64))
    assert small is not None
    assert list(small.genes) == ["stage2.0", "stage3.0", "stage3.1", "stage4.0"]
    assert space.pattern({"depths": [2, 3]}) is None


def test_a_net_behind_the_interface_of_an_engine_gives_its_own_outputs() -> None:
    net = _static(toys.POSE, 4).eval()
    pictures = np.stack([toys.dots(index)[0] for index in range(2)])
    with NetSession(net, toys.POSE, batch=2) as session:
        given = session.run({"image": pictures})["heatmaps"]
    with torch.no_grad():
        expected = net(normalised(torch.from_numpy(pictures), toys.POSE))
    np.testing.assert_array_equal(given, expected.numpy())


def test_recalibration_of_a_subnet_uses_the_calibration_pictures() -> None:
    supply = toys.pose_supply()
    net = _static(toys.POSE, 5)
    judge = Judge(toys.POSE, supply.search, toys.config().evaluation, supply.calibration, torch.device("cpu"))
    assert judge.recalibrate(net) == 32
    first = net.state_dict()["stem.conv1.bn.running_mean"].clone()
    x = normalised(torch.from_numpy(supply.calibration()), toys.POSE)
    torch.testing.assert_close(first, net.get_submodule("stem.conv1.conv")(x).mean((0, 2, 3)).detach())


def test_weights_are_stored_in_half_only_when_they_are_rounded(tmp_path: Path) -> None:
    space = get_space("scalenas")
    net = static_net(space.min({"width": 4, "modules": [1, 1, 1]}, {"image": (3, 64, 64)}))
    enliven(net, 6)
    weights = Weights.of(net)
    with pytest.raises(UserError, match="is not rounded to float16"):
        save_weights(tmp_path / "no.safetensors", weights, half=True)
    small = rounded(weights)
    save_weights(tmp_path / "half.safetensors", small, half=True)
    save_weights(tmp_path / "full.safetensors", small)
    half, full = (load_weights(tmp_path / f"{name}.safetensors") for name in ("half", "full"))
    assert half.digest == full.digest == small.digest
    assert all(torch.equal(half.tensors[name], full.tensors[name]) for name in full.tensors)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.7 * sizes[1]
    large = dict(weights.tensors) | {"stem.conv1.bn.running_var": torch.full((64,), 1e5)}
    with pytest.raises(UserError, match=r"running_var reaches 100000, and float16 ends at 65504"):
        rounded(_with(weights, large))


def _with(weights: Weights, tensors: dict[str, torch.Tensor]) -> Weights:
    return Weights(weights.kind, weights.space, weights.settings, tensors, weights.spec, weights.recipe)
