"""The net that a run trains, and the weights that it starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from scalenas.registry import get_space
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet, static_net
from scalenas.supernet import Supernet
from scalenas.training.config import TrainConfig
from scalenas.weights import Weights
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe, Recipe

# Fields of a recipe that decide what a net sees and where its outputs lie: a student and its teacher share them.
_SEEN = ("color", "mean", "std", "affine", "align_corners")


@dataclass(frozen=True)
class Frame:
    """What all nets of a run have in common.

    Attributes:
        space: The family.
        settings: Complete settings; task and outputs are those of the data.
        inputs: One picture of the run's size.
        recipe: The task recipe.
    """

    space: SearchSpace
    settings: Mapping[str, Json]
    inputs: Mapping[str, Sequence[int | str]]
    recipe: Recipe

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.recipe.height, self.recipe.width

    def spec(self, text: str) -> SubnetSpec:
        """Returns the spec that a name or a spec file means under these settings.

        Raises:
            UserError: there is no such name or file, or it does not fit the settings.
        """
        if not text.endswith(".json"):
            found = self.space.named_spec(text, settings=self.settings, size=self.size)
            if found is None:
                known = ", ".join(["max", "min", *self.space.named()])
                raise UserError(f"unknown net {text!r}; known: {known}; or give a spec file (SPEC.json)")
            return found
        if not Path(text).is_file():
            raise UserError(f"there is no spec file {text}")
        return self.space.adapt(SubnetSpec.read(Path(text)), settings=self.settings, size=self.size)


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a net took from weights.

    Attributes:
        copied: Number of tensors taken whole.
        rows: Names of outputs (joints or classes) taken by name into tensors whose outputs differ.
        fresh: Names of tensors that kept their initial values.
    """

    copied: int
    rows: tuple[str, ...]
    fresh: tuple[str, ...]


def frame_of(config: TrainConfig, recipe: Recipe, weights: Weights | None) -> Frame:
    """Returns the frame of a run. Settings that the configuration leaves out are those of the weights.

    Raises:
        UserError: unknown family or setting, or a setting that the data decide.
    """
    space = get_space(config.model.space)
    task, key, outputs = _outputs(recipe)
    for name in ("task", key):
        if name in config.model.settings:
            raise UserError(f"model.settings.{name} follows from the data; leave it out")
    known = space.settings({"task": task})
    inherited = {} if weights is None else {name: item for name, item in weights.settings.items() if name in known}
    settings = space.settings({**inherited, **config.model.settings, "task": task, key: len(outputs)})
    inputs = space.inputs(settings, {"image": (3, *config.model.size)})
    return Frame(space, settings, inputs, recipe)


def new_net(frame: Frame, config: TrainConfig) -> Supernet | StaticNet:
    """Returns the net of a run with the initial weights of its seed, in train mode."""
    net: Supernet | StaticNet
    if config.phase == "supernet":
        net = Supernet(frame.space, frame.settings, frame.inputs, seed=config.seed)
    else:
        net = static_net(frame.spec(config.spec_text), space=frame.space, seed=config.seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = config.model.bn_momentum
            # It counts batches for a cumulative average alone; as a tensor it is one more small kernel for every BN.
            module.num_batches_tracked = None
    return net.train()


def inherit(net: nn.Module, frame: Frame, weights: Weights) -> Inheritance:
    """Copies weights into a net by name, in place.

    Tensors of outputs (a head's last layer) are taken row by row: joints or classes that both nets know by name keep
    their weights, the others start anew, and so does every tensor that the weights lack. Weights without a recipe name
    no outputs: theirs are taken whole where their number is that of the net, and start anew elsewhere.

    Raises:
        UserError: the weights are of another family, or a tensor other than a head's differs in shape.
    """
    if weights.space != frame.space.name:
        raise UserError(f"the weights are of family {weights.space}, the net of {frame.space.name}")
    ours = _outputs(frame.recipe)
    theirs = ours if weights.recipe is None else _outputs(weights.recipe)
    heads = _output_tensors(frame)
    named = [] if weights.recipe is None else theirs[2]
    pairs = [(row, named.index(name)) for row, name in enumerate(ours[2]) if name in named]
    same = ours == theirs
    copied, fresh, renamed = 0, [], False
    with torch.no_grad():
        for name, tensor in _tensors(net).items():
            given = weights.tensors.get(name)
            if given is None:
                fresh.append(name)
            elif name in heads and (not same or given.shape != tensor.shape):
                renamed = True
                if ours[0] != theirs[0] or given.shape[1:] != tensor.shape[1:] or not pairs:
                    fresh.append(name)
                    continue
                for row, other in pairs:
                    tensor[row] = given[other]
            elif given.shape != tensor.shape:
                raise UserError(
                    f"the weights do not fit the net: {name} is {tuple(given.shape)} in the weights and "
                    f"{tuple(tensor.shape)} in the net; take the settings of the weights (model.settings)"
                )
            else:
                tensor.copy_(given)
                copied += 1
    if not copied:
        raise UserError("the weights share no tensor with the net")
    return Inheritance(copied, tuple(ours[2][row] for row, _ in pairs) if renamed else (), tuple(fresh))


def single(frame: Frame, tensors: Mapping[str, Tensor], spec: SubnetSpec) -> StaticNet:
    """Returns a static net of `spec` in eval mode with copies of the tensors of its names."""
    net = static_net(spec, space=frame.space)
    with torch.no_grad():
        for name, tensor in _tensors(net).items():
            tensor.copy_(tensors[name])
    return net.eval()


def teacher_net(frame: Frame, weights: Weights) -> StaticNet:
    """Returns the frozen net that a run learns from, in eval mode: the net of static weights.

    Raises:
        UserError: weights of a supernet (their statistics fit no net), outputs that are not the run's, or a recipe that
            shows it other pictures than the run's.
    """
    if weights.spec is None:
        raise UserError("the teacher's weights are of a supernet; give those of one net, such as phase teacher leaves")
    ours = _outputs(frame.recipe)
    if weights.recipe is None:
        given = [weights.settings.get(name) for name in ("task", ours[1])]
        if given != [ours[0], len(ours[2])]:
            raise UserError(
                f"the teacher is of task {given[0]} with {given[1]} {ours[1]}, the data want {ours[0]} with "
                f"{len(ours[2])}"
            )
        return single(frame, weights.tensors, weights.spec)
    theirs = _outputs(weights.recipe)
    if ours != theirs:
        raise UserError(f"the teacher gives {', '.join(theirs[2])}, the data want {', '.join(ours[2])}")
    for name in _SEEN:
        mine, its = getattr(frame.recipe, name, None), getattr(weights.recipe, name, None)
        if mine != its:
            raise UserError(
                f"the teacher's recipe has {name} {its}, the run's {mine}; set data.recipe.{name} to the same"
            )
    return single(frame, weights.tensors, weights.spec)


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def _outputs(recipe: Recipe) -> tuple[str, str, tuple[str, ...]]:
    """Returns the task, the setting that counts its outputs, and their names."""
    if isinstance(recipe, PoseRecipe):
        return "pose", "joints", recipe.joints
    return "segmentation", "classes", recipe.classes


def _output_tensors(frame: Frame) -> set[str]:
    """Returns the names of the tensors whose shape follows the number of outputs, found by asking for one more."""
    _, key, outputs = _outputs(frame.recipe)
    more = {**frame.settings, key: len(outputs) + 1}
    with torch.device("meta"):
        ours = static_net(frame.space.min(frame.settings, frame.inputs), space=frame.space).state_dict()
        theirs = static_net(frame.space.min(more, frame.inputs), space=frame.space).state_dict()
    return {name for name, tensor in ours.items() if theirs[name].shape != cast(Tensor, tensor).shape}
