"""Shipped weights: found by name, and naming the nets they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalenas import Supernet, Weights, get_space, save_weights
from scalenas.shipped import find_weights_file, shipped_weights
from scalenas_export.cli.app import run
from scalenas_export.recipes import spec_recipe
from scalenas_export.weight_sources import find_weights, weights_spec
from scalenas_runtime.bundle import Bundle
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

SIZE = (96, 64)
TASKS: dict[str, dict[str, Json]] = {"pose": {"joints": 14}, "segmentation": {"classes": 11}}


def small_weights(task: str) -> Weights:
    """Weights of a random supernet with a recipe, as shipped ones have."""
    space = get_space("scalenas")
    given: dict[str, Json] = {"task": task, "width": 4, "modules": [1, 1, 1], "depths": [2, 4], "stage1_blocks": 1}
    settings = space.settings({**given, **TASKS[task]})
    names = "lspet-14" if task == "pose" else "camvid-11"
    recipe = spec_recipe(space.max(settings, {"image": (3, *SIZE)}), names=names)
    return Weights("supernet", space.name, settings, Supernet(space, settings).state_dict(), None, recipe)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with shipped weights `tiny`, where commands are called."""
    save_weights(tmp_path / "weights" / "tiny.safetensors", small_weights("pose"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["max", "min", "hrnet-w4", "scalenas/max"])
def test_a_name_takes_settings_and_size_of_the_weights(task: str, name: str) -> None:
    weights = small_weights(task)
    spec = weights_spec(name, weights)
    assert spec.to_json()["settings"] == weights.settings
    assert spec.inputs == {"image": (3, *SIZE)}
    assert weights_spec(name, weights, size=(64, 64)).inputs == {"image": (3, 64, 64)}


def test_a_file_keeps_its_own_settings_and_size(tmp_path: Path) -> None:
    weights = small_weights("pose")
    spec = get_space("scalenas").min({**weights.settings, "joints": 3}, {"image": (3, 32, 32)})
    spec.write(tmp_path / "own.json")
    found = weights_spec(str(tmp_path / "own.json"), weights)
    assert (found.inputs, found.settings["joints"]) == (spec.inputs, 14)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hrnet-w18", r"hrnet-w18 is no net of these weights: hrnet-w18 has width 18, not 4; use hrnet-w4"),
        ("scalenet-p1", r"scalenet-p1 is no net of these weights: .*stage"),
        ("resnet", r"unknown net 'resnet'; known under these weights: max, min, .*or give a spec file"),
        ("none.json", r"there is no spec file none.json"),
    ],
)
def test_names_that_are_no_members_say_why(name: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        weights_spec(name, small_weights("pose"))


def test_shipped_weights_go_by_their_name(shipped: Path) -> None:
    assert shipped_weights()["tiny"] == shipped / "weights" / "tiny.safetensors"
    assert find_weights("tiny").source == "tiny"
    assert find_weights("tiny").weights.digest == small_weights("pose").digest
    assert find_weights("weights/tiny.safetensors").source == "tiny.safetensors"
    assert find_weights_file("other.safetensors") == Path("other.safetensors")
    with pytest.raises(UserError, match=r"no weights are called 'small'; shipped ones .* here: .*tiny"):
        find_weights_file("small")


def test_export_needs_no_more_than_a_name_and_shipped_weights(
    shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", "hrnet-w4", "--weights", "tiny", "--target", "onnxruntime:cpu/fp32", "--out", "out.bundle"]
    assert run(line) == 0, capsys.readouterr().err
    bundle = Bundle.open(shipped / "out.bundle")
    weights = small_weights("pose")
    assert bundle.recipe == weights.recipe
    assert bundle.manifest.digests["weights"] == weights.digest


def test_a_recipe_by_name_is_for_checkpoints_alone(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", small_weights("pose"))
    with pytest.raises(UserError, match=r"--recipe hrnet-pose says how a checkpoint .* is none"):
        find_weights(str(tmp_path / "w.safetensors"), importer="hrnet-pose")
