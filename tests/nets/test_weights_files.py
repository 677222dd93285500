import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from scalenas import StaticNet, Supernet, Weights, extract, get_space, load_into, load_weights, save_weights, static_net
from scalenas.space import Settings
from scalenas.weights import rounded
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe
from scalenas_runtime.tasks.sets import pose_recipe

SPACE = get_space("scalenas")
SMALL: Settings = {"task": "pose", "width": 4, "modules": [1, 1, 1]}
SPEC = SPACE.sample(np.random.default_rng(0), settings=SMALL)


def static_weights(seed: int = 1) -> Weights:
    net = static_net(SPEC, seed=seed)
    return Weights.of(net, recipe=pose_recipe("coco-17", decode="dark"), provenance={"importer": "hrnet-pose"})


def supernet_weights(settings: Settings = SMALL, seed: int = 1) -> Weights:
    net = Supernet(SPACE, settings, seed=seed)
    return Weights("supernet", "scalenas", net.settings, net.state_dict())


def same(net: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in net.state_dict().items())


def test_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    weights = static_weights()
    save_weights(tmp_path / "w.safetensors", weights)
    loaded = load_weights(tmp_path / "w.safetensors")
    for name in ("kind", "space", "spec", "recipe", "provenance", "digest"):
        assert getattr(loaded, name) == getattr(weights, name), name
    assert SPACE.settings(loaded.settings) == SPACE.settings(weights.settings)
    assert not any(name.endswith("num_batches_tracked") for name in loaded.tensors)
    net = static_net(SPEC, seed=9)
    load_into(net, loaded)
    assert same(net, static_net(SPEC, seed=1))


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, static_weights())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_half_precision_file_is_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = static_weights()
    halved = {name: tensor.half() for name, tensor in weights.tensors.items()}
    save_weights(path, dataclasses.replace(weights, tensors=halved))
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file(halved, path, metadata)
    loaded = load_weights(path)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.tensors.values())
    assert all(torch.equal(tensor, halved[name].float()) for name, tensor in loaded.tensors.items())


def test_supernet_weights_go_into_supernet_and_into_any_member(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", supernet_weights(seed=1))
    weights = load_weights(tmp_path / "w")
    net = Supernet(SPACE, SMALL, seed=2)
    load_into(net, weights)
    assert same(net, Supernet(SPACE, SMALL, seed=1))
    member = static_net(SPEC, seed=3)
    load_into(member, weights)
    assert same(member, extract(net, SPEC))


def renamed(weights: Weights, old: str, new: str) -> Weights:
    tensors = {new if name == old else name: tensor for name, tensor in weights.tensors.items()}
    return dataclasses.replace(weights, tensors=tensors)


def other_settings(**settings: Json) -> Weights:
    return supernet_weights({**SMALL, **settings})


def member() -> StaticNet:
    return static_net(SPEC, seed=3)


FIRST = "stem.conv1.conv.weight"


@pytest.mark.parametrize(
    ("weights", "net", "message"),
    [
        (renamed(static_weights(), FIRST, "x"), member(), rf"1 missing: {FIRST}; 1 surplus: x$"),
        (
            dataclasses.replace(static_weights(), tensors={**static_weights().tensors, FIRST: torch.ones(2)}),
            member(),
            rf"1 misshaped: {FIRST} \(2,\) instead of \(64, 3, 3, 3\)",
        ),
        (other_settings(width=6), member(), "width is 6 in the weights, 4 in the static net"),
        (other_settings(width=6), Supernet(SPACE, SMALL), "width is 6 in the weights, 4 in the supernet"),
        (other_settings(joints=3), member(), "joints is 3 in the weights, 17 in the static net"),
        (static_weights(), Supernet(SPACE, SMALL), "of kind static, the net is a supernet"),
        (dataclasses.replace(static_weights(), space="other"), member(), "of family other, the static net of scalenas"),
        (static_weights(), nn.Conv2d(1, 1, 1), "not into a Conv2d"),
    ],
    ids=["names", "shape", "width", "width-supernet", "joints", "kind", "family", "module"],
)
def test_weights_that_do_not_fit_leave_the_net_alone(weights: Weights, net: nn.Module, message: str) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_into(net, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def edited(path: Path, old: str, new: str) -> None:
    data = path.read_bytes()
    assert data.count(old.encode()) == 1
    assert len(old) == len(new)
    path.write_bytes(data.replace(old.encode(), new.encode()))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("scalenas.weights/1", "scalenas.weights/9", "its schema is 'scalenas.weights/9', this version reads"),
        ("provenance", "pr0venance", "its record has the keys .*pr0venance"),
        ('kind\\":\\"static', 'kind\\":\\"statik', "kind of weights is 'statik', known: supernet, static"),
        ('decode\\":\\"dark', 'decode\\":\\"dork', "pose recipe"),
        (
            'space\\":\\"scalenas\\",\\"spec',
            'space\\":[1,2,3,4.00],\\"spec',
            "space of its record is .*; needed is text",
        ),
    ],
    ids=["schema", "key", "kind", "recipe", "space"],
)
def test_edited_header_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, static_weights())
    edited(path, old, new)
    with pytest.raises(UserError, match=rf"w\.safetensors is not a weights file of this project: .*{message}"):
        load_weights(path)


def test_damaged_tensors_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, static_weights())
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged: the digest of its tensors"):
        load_weights(path)


@pytest.mark.parametrize("length", [0, 4, 100, -10], ids=str)
def test_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, static_weights())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="is not a weights file of this project"):
        load_weights(path)


def test_foreign_safetensors_and_absent_files_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "x")
    with pytest.raises(UserError, match="no record of kind and settings; `import-checkpoint` makes a file that has"):
        load_weights(tmp_path / "x")
    with pytest.raises(UserError, match="is not a file"):
        load_weights(tmp_path / "absent")


def test_file_that_exists_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already; name another file or pass --overwrite"):
        save_weights(path, static_weights())
    assert path.read_text() == "mine"
    save_weights(path, static_weights(), overwrite=True)
    assert load_weights(path).kind == "static"


def test_kind_and_spec_belong_together() -> None:
    with pytest.raises(UserError, match="weights of a static net need its spec"):
        Weights("static", "scalenas", SMALL, {})


def test_what_decodes_can_be_set_after_training(tmp_path: Path) -> None:
    path, tool = tmp_path / "w.safetensors", Path(__file__).parents[2] / "tools" / "set_recipe.py"
    weights = rounded(static_weights())
    save_weights(path, weights, half=True)
    done = subprocess.run([sys.executable, tool, path, "--set", "blur=3"], check=True, capture_output=True, text=True)
    assert "{'blur': [11, 3]}" in done.stdout
    again = load_weights(path)
    assert isinstance(again.recipe, PoseRecipe)
    assert again.recipe.blur == 3
    assert again.digest == weights.digest
    assert again.provenance["recipe_changes"] == {"blur": [11, 3]}
    refused = subprocess.run(
        [sys.executable, tool, path, "--set", "decode=dark"], capture_output=True, text=True, check=False
    )
    assert "decode is not among what can be changed after training" in refused.stderr
    assert load_weights(path).recipe == again.recipe
