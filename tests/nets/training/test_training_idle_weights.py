"""Weights that a step does not use get neither gradient, momentum nor decay, and keep their optimiser's state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from scalenas.data.loader import batches
from scalenas.training.config import OptimiserConfig
from scalenas.training.optimisers import Optimiser
from scalenas.training.run import Place, Run
from tests.nets.training import toys

KINDS = [
    pytest.param({"kind": "sgd", "momentum": 0.9, "nesterov": True}, id="sgd"),
    pytest.param({"kind": "adam"}, id="adam"),
    pytest.param({"kind": "adamw"}, id="adamw"),
]


@pytest.mark.parametrize("optimiser", KINDS)
def test_a_step_leaves_idle_weights_and_their_state_alone(
    optimiser: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = toys.config(optimiser={**optimiser, "lr": 0.01, "weight_decay": 0.1, "clip": 1.0})
    run = Run(config, toys.pose_supply(), Place(tmp_path_factory.mktemp("run"), quiet=True))
    space, frame = run.frame.space, run.frame
    largest, smallest = space.max(frame.settings, frame.inputs), space.min(frame.settings, frame.inputs)
    feed = batches(run.supply.samples, batch=2, seed=0, steps=3)
    # The largest net gives every weight momentum; the smallest one must not use it on the others.
    run.step([smallest], next(feed), 1.0)
    run.step([largest], next(feed), 1.0)
    before = {name: value.clone() for name, value in run.tensors().items()}
    state = {name: {key: value.clone() for key, value in each.items()} for name, each in run.optimiser.state().items()}
    run.step([smallest], next(feed), 1.0)
    used = {f"{node.name}." for node in space.graph(smallest).live()}
    idle = [name for name in state if not any(name.startswith(prefix) for prefix in used)]
    active = [name for name in state if name not in idle]
    assert len(idle) > 40
    for name in idle:
        assert torch.equal(run.tensors()[name], before[name]), name
        after = run.optimiser.state()[name]
        assert all(torch.equal(after[key], value) for key, value in state[name].items()), name
    assert all(not torch.equal(run.tensors()[name], before[name]) for name in active if "conv" in name)


@pytest.mark.parametrize("optimiser", KINDS)
def test_zeroed_gradients_would_move_idle_weights(optimiser: dict[str, object]) -> None:
    # Why gradients are dropped rather than zeroed: torch takes a zero gradient for a reason to move.
    weight = nn.Parameter(torch.ones(3))
    made = Optimiser(OptimiserConfig(lr=0.1, weight_decay=0.1, **optimiser), [("weight", weight)])  # type: ignore[arg-type]
    weight.grad = torch.ones(3)
    made.step(1.0)
    moved = weight.detach().clone()
    weight.grad = torch.zeros(3)
    made.step(1.0)
    assert not torch.equal(weight, moved)
    stays = weight.detach().clone()
    made.zero_grad()
    made.step(1.0)
    assert torch.equal(weight, stays)


@pytest.mark.parametrize("optimiser", KINDS)
def test_state_by_name_goes_on_as_the_optimiser_itself(optimiser: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    gradients = torch.from_numpy(rng.normal(size=(6, 4, 3)).astype(np.float32))

    def make(weight: nn.Parameter) -> Optimiser:
        config = OptimiserConfig(lr=0.1, weight_decay=0.1, decay_all=False, **optimiser)  # type: ignore[arg-type]
        idle = nn.Parameter(torch.ones(2))
        return Optimiser(config, [("weight", weight), ("idle", idle)])

    def go(made: Optimiser, weight: nn.Parameter, parts: torch.Tensor) -> None:
        for gradient in parts:
            weight.grad = gradient.clone()
            made.step(0.5)

    straight = nn.Parameter(torch.ones(4, 3))
    through = make(straight)
    go(through, straight, gradients)
    first = nn.Parameter(torch.ones(4, 3))
    before = make(first)
    go(before, first, gradients[:3])
    second = nn.Parameter(first.detach().clone())
    after = make(second)
    after.load_state({name: {k: v.clone() for k, v in each.items()} for name, each in before.state().items()})
    go(after, second, gradients[3:])
    assert torch.equal(second, straight)
    assert list(after.state()) == ["weight"]


def test_decay_can_leave_vectors_out() -> None:
    weights = {"matrix": nn.Parameter(torch.ones(2, 2)), "vector": nn.Parameter(torch.ones(2))}
    config = OptimiserConfig(lr=0.5, kind="sgd", momentum=0.0, weight_decay=0.1, decay_all=False)
    made = Optimiser(config, weights.items())
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    made.step(1.0)
    assert float(weights["matrix"].detach()[0, 0]) == pytest.approx(0.95)
    assert float(weights["vector"].detach()[0]) == 1.0
