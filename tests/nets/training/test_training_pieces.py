"""Schedules, sampling, losses and configuration files: each against its definition."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from scalenas.data.description import read_description
from scalenas.registry import get_space
from scalenas.training.config import SamplingConfig, ScheduleConfig, config_json, differences, read_config
from scalenas.training.loss import TaskLoss, hard_pixel_loss, heatmap_loss, output_distance, pixel_loss
from scalenas.training.pictures import normalised
from scalenas.training.sampling import Sampling
from scalenas.training.schedules import rate_factor, total_steps
from scalenas.training.start import frame_of
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks.sets import pose_recipe
from tests.nets.training import toys

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "train"
SETTINGS: dict[str, Json] = {"width": 4, "modules": [1, 1, 1]}


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        pytest.param({"shape": "constant"}, 5, {0: 1.0, 4: 1.0}, id="constant"),
        pytest.param({"shape": "poly", "power": 0.9}, 10, {0: 1.0, 5: 0.5**0.9, 9: 0.1**0.9}, id="poly"),
        pytest.param(
            {"shape": "step", "milestones": [170 / 210, 200 / 210]},
            210,
            {169: 1.0, 170: 0.1, 199: 0.1, 200: 0.01},
            id="step at epochs 170 and 200 of 210",
        ),
        pytest.param({"shape": "cosine"}, 11, {0: 1.0, 5: 0.5, 10: 0.0}, id="cosine"),
        pytest.param(
            {"shape": "one-cycle", "warmup": 0.2, "start": 0.04},
            101,
            {0: 0.04, 10: 0.52, 20: 1.0, 60: 0.5, 100: 0.0},
            id="one-cycle",
        ),
        pytest.param(
            {"shape": "constant", "warmup": 0.5, "start": 0.0}, 8, {0: 0.0, 1: 0.25, 4: 1.0}, id="linear warm-up"
        ),
    ],
)
def test_schedules(schedule: dict[str, object], steps: int, expected: dict[int, float]) -> None:
    config = toys.config(schedule={**schedule, "steps": steps}).schedule
    assert {step: rate_factor(config, step, steps) for step in expected} == pytest.approx(expected, abs=0.02)


def test_epochs_become_steps() -> None:
    assert total_steps(ScheduleConfig(epochs=20), 3400, 32) == 2125
    assert total_steps(ScheduleConfig(steps=7), 3400, 32) == 7


@pytest.mark.parametrize("rule", ["cycle", "groups", "uniform", "sandwich"])
def test_subnets_follow_from_seed_and_step_alone(rule: str) -> None:
    space = get_space("scalenas")
    inputs = space.default_inputs(space.settings(SETTINGS))

    def sampling(seed: int) -> Sampling:
        return Sampling(space, space.settings(SETTINGS), inputs, SamplingConfig(rule=rule), seed)  # type: ignore[arg-type]

    forwards = [sampling(3).specs(step) for step in range(24)]
    backwards = [sampling(3).specs(step) for step in reversed(range(24))][::-1]
    assert forwards == backwards
    assert forwards != [sampling(4).specs(step) for step in range(24)]
    assert len(set(forwards)) > 20
    assert {len(specs) for specs in forwards} == {sampling(3).passes}


def test_steps_go_round_the_groups() -> None:
    space = get_space("scalenas")
    settings = space.settings(SETTINGS)
    inputs = space.default_inputs(settings)
    cycle = Sampling(space, settings, inputs, SamplingConfig(rule="cycle"), 0)
    assert [group.name for group in cycle.groups][::10] == ["smallest", "largest"]
    largest = space.max(settings, inputs)
    assert [step for step in range(33) if cycle.specs(step) == (largest,)] == [10, 21, 32]
    groups = Sampling(space, settings, inputs, SamplingConfig(rule="groups"), 0)
    names = [group.name for group in groups.groups]
    assert [name.split("_")[0] for name in names] == ["depth2-3", "depth3-4", "depth4-5"] * 3
    macs = [np.mean([space.cost(groups.specs(step)[0]).macs for step in range(slot, 90, 9)]) for slot in range(9)]
    assert [int(place) % 3 for place in np.argsort(macs)] == [0] * 3 + [1] * 3 + [2] * 3
    sandwich = Sampling(space, settings, inputs, SamplingConfig(rule="sandwich"), 0).specs(5)
    assert sandwich[0] == largest
    assert sandwich[1] == space.min(settings, inputs)


def test_heatmap_loss_is_half_the_mean_squared_error_of_each_joint() -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.rand(2, 2, 3, 4, 5, generator=generator)
    weight = torch.tensor([[1.0, 1, 0], [1, 0, 1]])
    # HRNet's own loop over joints.
    expected = sum(
        0.5 * functional.mse_loss(output[:, k] * weight[:, k, None, None], target[:, k] * weight[:, k, None, None])
        for k in range(3)
    )
    total = heatmap_loss(output, target, weight)
    assert float(total.sum / total.count) == pytest.approx(float(expected) / 3)
    peak = torch.zeros(1, 1, 3, 3)
    peak[0, 0, 1, 1] = 1
    plain, weighted = (heatmap_loss(torch.zeros_like(peak), peak, None, foreground=f) for f in (0.0, 9.0))
    assert float(weighted.sum) == pytest.approx(10 * float(plain.sum))


def test_pixel_loss_is_torchs_weighted_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, 6, 5, generator=generator)
    labels = torch.randint(0, 4, (2, 6, 5), generator=generator)
    labels[0, :2] = 255
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    for chosen in (None, weights):
        total = pixel_loss(logits, labels, ignore=255, weights=chosen)
        expected = functional.cross_entropy(logits, labels, weight=chosen, ignore_index=255)
        assert float(total.sum / total.count) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("threshold", "keep"), [(0.9, 1), (0.1, 17), (0.3, 4), (1e-6, 1000)], ids=["threshold", "keep", "both", "all"]
)
def test_hard_pixels_are_those_below_the_threshold_and_at_least_so_many(threshold: float, keep: int) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(2, 4, 6, 5, generator=generator)
    labels = torch.randint(0, 4, (2, 6, 5), generator=generator)
    labels[1, :, 0] = 255
    total = hard_pixel_loss(logits, labels, ignore=255, threshold=threshold, keep=keep)
    found = []
    for b, y, x in np.ndindex(2, 6, 5):
        label = int(labels[b, y, x])
        if label != 255:
            found.append(float(functional.softmax(logits[b, :, y, x], dim=0)[label]))
    below = [p for p in found if p < threshold]
    hard = below if len(below) >= keep else sorted(found)[:keep]
    assert int(total.count) == len(hard)
    assert float(total.sum) == pytest.approx(-sum(math.log(p) for p in hard), rel=1e-4)


def test_a_batch_that_is_all_ignored_has_no_loss_and_a_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    for total in (
        pixel_loss(logits, labels, ignore=255),
        hard_pixel_loss(logits, labels, ignore=255, threshold=0.9, keep=4),
    ):
        assert float(total.count) == 0
        assert float(total.sum.detach()) == 0
        total.sum.backward()  # type: ignore[no-untyped-call]


def test_distance_to_the_teacher_is_the_mean_squared_difference() -> None:
    one, other = torch.randn(2, 3, 4, 5, 6)
    total = output_distance(one.bfloat16(), other)
    assert float(total.sum / total.count) == pytest.approx(float(functional.mse_loss(one.bfloat16().float(), other)))


def test_logits_meet_labels_at_the_size_of_the_labels() -> None:
    loss = TaskLoss(toys.config().loss, toys.CLASSES, torch.device("cpu"))
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 16, 16), dtype=torch.uint8)
    larger = functional.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    total = loss(logits, labels, None)
    assert float(total.sum / total.count) == pytest.approx(float(functional.cross_entropy(larger, labels.long())))


def test_pictures_are_normalised_as_the_exported_graph_does() -> None:
    from scalenas_export.calibration import normalised_array

    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), np.uint8)
    ours = normalised(torch.from_numpy(pictures), toys.POSE)
    np.testing.assert_allclose(ours.numpy(), normalised_array(pictures, toys.POSE), rtol=0, atol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("loss", "recipe", "message"),
    [
        ({"kind": "ohem"}, toys.POSE, "loss.kind is no option of pose"),
        ({"foreground": 2.0}, toys.CLASSES, "loss.foreground is no option of segmentation"),
        ({"class_weights": [1.0, 2.0]}, toys.CLASSES, "2 numbers for 3 classes"),
    ],
)
def test_options_of_the_other_task_are_refused(loss: dict[str, object], recipe: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TaskLoss(toys.config(loss=loss).loss, recipe, torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    config = read_config(path)
    # The tiny ones train a supernet in one go, without a teacher.
    if not any(word in path.stem for word in ("smoke", "drawn")):
        assert (config.distillation is not None) == (config.phase == "supernet")
        assert config.phase in path.stem


@pytest.mark.parametrize(
    ("name", "spec", "params", "macs"),
    [
        ("coco-w32-finetune", "scalenet-p1", "28.484", "6.948"),
        ("coco-w48-finetune", "hrnet-w48", "63.596", "14.614"),
        ("coco-w32-384x288-finetune", "scalenet-p3", "26.168", "14.319"),
        ("coco-w48-384x288-finetune", "scalenet-p4", "64.280", "32.590"),
    ],
)
def test_the_nets_of_the_published_recipes_cost_what_is_published(name: str, spec: str, params: str, macs: str) -> None:
    config = read_config(CONFIGS / f"{name}.yaml")
    assert config.spec_text == spec
    frame = frame_of(config, pose_recipe("coco-17", size=config.model.size), None)
    cost = frame.space.cost(frame.spec(spec))
    assert (f"{cost.params / 1e6:.3f}", f"{cost.macs / 2**30:.3f}") == (params, macs)


def test_changes_on_the_command_line_win_over_file_and_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "phase: teacher\nmodel: {size: [64, 64], settings: {width: 8}}\ndata: {path: d.yaml}\n"
        "schedule: {steps: 10}\noptimiser: {lr: 0.1}\nbatch: 4\nevaluation: {limit: 3}\n"
    )
    (tmp_path / "own.yaml").write_text("base: base.yaml\nbatch: 8\noptimiser: {lr: 0.2, kind: sgd}\n")
    config = read_config(
        tmp_path / "own.yaml",
        ["optimiser.lr=0.3", "model.settings.depths=[1, 2]", "distillation.teacher=t.safetensors"],
    )
    assert (config.batch, config.optimiser.lr, config.optimiser.kind) == (8, 0.3, "sgd")
    assert config.model.settings == {"width": 8, "depths": [1, 2]}
    assert config.distillation is not None
    assert config.data.path == str(tmp_path / "d.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.lr=1", "unknown field `optimizer`.*did you mean `optimiser`"),
        ("schedule.milestone=[1]", "unknown field `milestone`.*did you mean `milestones`"),
        ("phase=student", "Invalid enum value 'student'"),
        ("schedule={steps: 3, epochs: 2}", "either steps or epochs"),
        ("schedule.epochs=.inf", "epochs is inf, it must be above 0 and finite"),
        ("optimiser.betas=[1, 0.9]", r"betas \[1.0, 0.9\] are outside 0..1"),
        ("optimiser={lr: 1, kind: sgd, nesterov: true, momentum: 0}", "nesterov needs a momentum above 0"),
        ("evaluation.limit=-1", "limit is -1, it must be above 0"),
        ("schedule.shape=step", "shape step needs milestones"),
        ("batch=0", "batch is 0, it must be above 0"),
        ("optimiser.lr=0", "lr is 0.* above 0"),
        ("optimiser.lr=.inf", "lr is inf, it must be above 0 and finite"),
        ("optimiser.lr=.nan", "lr is nan, it must be above 0 and finite"),
        ("schedule.gamma=0", "gamma is 0.0, it must be above 0"),
        ("schedule.power=-1", "power is -1.0, it must not be negative"),
        ("minutes=0", "minutes is 0.0, it must be above 0"),
        ("loss.foreground=.inf", "foreground is inf, it must not be negative, and finite"),
        ("model.bn_momentum=2", "bn_momentum is 2.*in 0..1"),
        ("data.workers=-1", "workers is -1, it must not be negative"),
        ("output.choose=best", "choose best needs evaluation.steps"),
        ("phase=finetune", "needs model.weights"),
        ("model.spec=min", "use phase alone"),
        ("batch", "--set takes key=value"),
        ("batch.size=3", "batch holds 4, which has no keys"),
        ("model.size.7=3", "7 is no place in a list of 2"),
        ("name=[", "is not YAML"),
        ("base=own.yaml", "unknown field `base`"),
    ],
)
def test_every_wrong_key_and_value_is_named(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "phase: teacher\nmodel: {size: [64, 64]}\ndata: {path: d.yaml}\nschedule: {steps: 10}\n"
        "optimiser: {lr: 0.1}\nbatch: 4\n"
    )
    with pytest.raises(UserError, match=message):
        read_config(path, [change])


def test_a_supernet_of_one_spec_is_refused() -> None:
    with pytest.raises(UserError, match=r"a supernet has no model\.spec: use phase finetune or alone for min"):
        read_config(CONFIGS / "smoke-pose.yaml", ["model.spec=min"])


def test_epochs_and_steps_on_the_command_line_take_each_others_place() -> None:
    path = CONFIGS / "pose-w16-teacher.yaml"
    schedule = read_config(path, ["schedule.epochs=20"]).schedule
    assert (schedule.steps, schedule.epochs) == (None, 20)
    with pytest.raises(UserError, match="cannot add the gradients of a sandwich step"):
        read_config(path, ["cuda_graphs=true", "sampling.rule=sandwich"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no configuration"),
        ("[1, 2]", "must hold keys and values, got list"),
        ("a: [", "is not YAML"),
        ("base: own.yaml", "own.yaml is its own base"),
        ("base: 3", "base is 3; it must be the name"),
    ],
)
def test_files_that_hold_no_configuration(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_config(tmp_path / "own.yaml")


def test_only_what_decides_the_weights_counts_as_another_configuration() -> None:
    old = config_json(toys.config())
    data = {"workers": 2, "path": "/elsewhere/none"}
    same = config_json(toys.config(minutes=3.0, log_steps=7, checkpoint_steps=9, data=data))
    assert differences(old, same) == []
    other = config_json(toys.config(optimiser={"lr": 0.5}, model={"settings": {"width": 6}}))
    assert [line.split(":")[0] for line in differences(old, other)] == [
        "model.settings.depths",
        "model.settings.modules",
        "model.settings.stage1_blocks",
        "model.settings.width",
        "optimiser.lr",
    ]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_data_of_every_shipped_config_is_described(path: Path) -> None:
    config = read_config(path)
    described = (path.parent / config.data.path).resolve()
    assert read_description(described).train
