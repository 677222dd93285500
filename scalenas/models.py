"""Nets by name."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from scalenas.names import resolve_spec
from scalenas.registry import get_space
from scalenas.spec import SubnetSpec
from scalenas.static import StaticNet, static_net
from scalenas.weights import Weights, load_into, load_weights
from scalenas_runtime.canonical import Json


def create_model(
    name: str | Path | SubnetSpec,
    *,
    task: str | None = None,
    size: tuple[int, int] | None = None,
    joints: int | None = None,
    classes: int | None = None,
    weights: Weights | str | Path | None = None,
    seed: int = 0,
) -> StaticNet:
    """Returns a named net, or that of a spec or spec file, as a static net in eval mode.

    Without weights the net has the initial weights of `seed` (see `scalenas.layers.initialise`), and so gives next
    to nothing until it is trained; `scalenas.recalibrate` on pictures gives it statistics that keep its ranges sane.

    Args:
        name: A name that `scalenas.list_models` lists, a spec file, or a spec (`weights.spec` of static weights).
        task: `pose` or `segmentation`, where the name leaves it open.
        size: Height and width of the input in pixels, the published size if None.
        joints: Number of joints of a pose net, that of the weights or else the published one if None.
        classes: Number of classes of a segmentation net, likewise.
        weights: Weights or a weights file, of this very net or of a supernet that has it as a member.
        seed: Seed of the initial weights.

    Raises:
        UserError: unknown name, a setting that does not go with it, or weights that do not fit.
    """
    if isinstance(weights, str | Path):
        weights = load_weights(Path(weights))
    if weights is not None:
        joints = joints if joints is not None else cast("int | None", weights.settings.get("joints"))
        classes = classes if classes is not None else cast("int | None", weights.settings.get("classes"))
    if isinstance(name, SubnetSpec):
        given: dict[str, Json] = {"task": task, "joints": joints, "classes": classes}
        settings = {key: value for key, value in given.items() if value is not None}
        spec = get_space(name.space).adapt(name, settings=settings, size=size)
    else:
        spec = resolve_spec(name, task=task, size=size, joints=joints, classes=classes)
    net = static_net(spec, seed=seed)
    if weights is not None:
        load_into(net, weights)
    return net.eval()
