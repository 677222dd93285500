"""What a run takes from its data, and the fields of its recipe that come from the weights it starts from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from scalenas.training.config import TrainConfig, read_config
from scalenas.training.precision import precision_note
from scalenas.training.supply import Supply, open_supply
from scalenas.weights import Weights, save_weights
from scalenas_runtime.tasks import PoseRecipe
from scalenas_runtime.tasks.sets import pose_recipe
from tests.nets.data.small_data import PEOPLE_YAML, write_people, write_yaml
from tests.nets.training import toys

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "train"


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    text = "task: pose\nset: lspet-14\ntrain: [{kind: synthetic, seed: 1, count: 20}]\n"
    return write_yaml(tmp_path / "data.yaml", text)


def _supply(data: Path, weights: Path | None, **recipe: object) -> Supply:
    model = {"weights": None if weights is None else str(weights)}
    return open_supply(toys.config(model=model, data={"path": str(data), "recipe": recipe}))


def _weights(folder: Path, **fields: object) -> Path:
    recipe = pose_recipe("coco-17", size=(256, 192), **fields)
    path = folder / "w.safetensors"
    save_weights(path, Weights("supernet", "scalenas", {}, {"x": torch.zeros(1)}, None, recipe))
    return path


def test_the_recipe_of_the_weights_counts_where_configuration_and_data_say_nothing(drawn: Path, tmp_path: Path) -> None:
    weights = _weights(tmp_path, decode="dark", blur=7, color="bgr")
    supply = _supply(drawn, weights, blur=5)
    recipe = supply.recipe
    assert isinstance(recipe, PoseRecipe)
    assert (recipe.decode, recipe.color, recipe.blur) == ("dark", "bgr", 5)
    # Sizes and joints are the configuration's and the data's.
    assert (recipe.height, recipe.width, len(recipe.joints)) == (toys.SIDE, toys.SIDE, 14)
    notes = [line for line in supply.notes if line.startswith("recipe")]
    assert notes == [f"recipe   color bgr, as {weights} has it", f"recipe   decode dark, as {weights} has it"]
    plain = _supply(drawn, None).recipe
    assert isinstance(plain, PoseRecipe)
    assert plain.decode == "quarter"


def test_the_documented_fine_tuning_keeps_the_decoder_of_the_shipped_weights(drawn: Path) -> None:
    config = read_config(CONFIGS / "pose-w16-finetune.yaml", [f"data.path={drawn}"])
    recipe = open_supply(config).recipe
    assert isinstance(recipe, PoseRecipe)
    assert recipe.decode == "dark"


def test_weights_of_another_task_say_nothing_about_the_recipe(tmp_path: Path) -> None:
    text = "task: segmentation\nset: camvid-11\ntrain: [{kind: synthetic, seed: 1, count: 20}]\n"
    data = write_yaml(tmp_path / "streets.yaml", text)
    assert _supply(data, _weights(tmp_path, color="bgr")).recipe == _supply(data, None).recipe


def test_joints_that_no_source_labels_are_among_the_notes(tmp_path: Path) -> None:
    write_people(tmp_path)
    write_people(tmp_path / "more")
    more = "  - {kind: coco, annotations: more/people.json}\nnames: [left_hand, right_hnad]\nsplits"
    data = write_yaml(tmp_path / "own.yaml", PEOPLE_YAML.replace("splits", more))
    notes = _supply(data, None).notes
    assert any(line.startswith("warning: no train source labels the joint 'right_hnad'") for line in notes)


@pytest.mark.parametrize(
    ("precision", "there", "said"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_bf16_that_the_machine_only_imitates_is_said(
    precision: str, there: bool, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalenas.training.precision.computes_bf16", lambda _: there)
    config: TrainConfig = msgspec.structs.replace(toys.config(), precision=precision)
    line = precision_note(config, torch.device("cpu"))
    assert (line is not None) == said
    if line is not None:
        assert line.startswith("this CPU has no bfloat16 arithmetic and imitates it: precision=fp32")
