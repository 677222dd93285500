"""What goes into an exported graph and what comes out: `raw` (uint8 picture to heatmaps or logits) and `end2end`.

Both are surgery on a graph that takes normalised float pictures, ours or a third party's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scalenas_export.graph_names import graphs_of
from scalenas_export.graphs import (
    add_constant,
    constants,
    dtype_name,
    opset_version,
    prepend,
    set_initialiser,
    static_shape,
)
from scalenas_runtime.errors import UserError
from scalenas_runtime.geometry import heatmap_scale
from scalenas_runtime.tasks import PoseRecipe, Recipe, SegmentationRecipe

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

INPUT = "image"
# The first one with GatherElements, and with a Resize that says where its pixels lie.
MIN_OPSET = 11
IO_FORMS = ("raw", "end2end")


def output_name(recipe: Recipe, io: str = "raw") -> str:
    """Returns the name of the graph's output for a task and an io form."""
    names = {"raw": ("heatmaps", "logits"), "end2end": ("keypoints", "class_map")}[io]
    return names[0] if isinstance(recipe, PoseRecipe) else names[1]


def raw_output_shape(recipe: Recipe) -> tuple[int, ...]:
    """Returns the shape of one picture's undecoded output: (K, h, w) or (C, h, w)."""
    if isinstance(recipe, PoseRecipe):
        return (len(recipe.joints), *recipe.heatmap_size)
    return (len(recipe.classes), *recipe.logits_size)


def raw_form(core: ModelProto, recipe: Recipe) -> ModelProto:
    """Returns a copy of a graph over normalised pictures (B, 3, H, W) that takes uint8 pictures (B, H, W, 3), BGR.

    The mean stays a subtraction: folded into a padded convolution it would be wrong at the border, where the padding
    stands for the mean. Colour order and standard deviation scale and permute the weights of the first convolutions,
    which is exact, or become nodes of their own where something else reads the picture.
    """
    model = type(core)()
    model.CopyFrom(core)
    make_raw(model, recipe)
    return model


def make_raw(model: ModelProto, recipe: Recipe) -> None:
    """Does in place what `raw_form` does on a copy."""
    from onnx import TensorProto, helper

    graph = model.graph
    (value,) = graph.input
    batch, channels, height, width = static_shape(value)
    normalised = value.name
    # Pictures are BGR; `order[i]` is where the net's channel i lies in them.
    order = np.array([2, 1, 0] if recipe.color == "rgb" else [0, 1, 2])
    mean = np.array(recipe.mean, np.float64)[order].astype(np.float32)
    std = np.array(recipe.std, np.float64)
    centred = "input/Sub"
    nodes = [
        helper.make_node("Cast", [INPUT], ["input/Cast"], "input/Cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["input/Cast"], ["input/Transpose"], "input/Transpose", perm=[0, 3, 1, 2]),
        helper.make_node(
            "Sub",
            ["input/Transpose", add_constant(graph, "input.mean", mean.reshape(1, 3, 1, 1))],
            [centred],
            centred,
        ),
    ]
    if _fold_into_weights(graph, normalised, order, std):
        last = centred
    else:
        nodes += [
            helper.make_node(
                "Gather", [centred, add_constant(graph, "input.order", order)], ["input/Gather"], "input/Gather", axis=1
            ),
            helper.make_node(
                "Div",
                ["input/Gather", add_constant(graph, "input.std", std.astype(np.float32).reshape(1, 3, 1, 1))],
                ["input/Div"],
                "input/Div",
            ),
        ]
        last = "input/Div"
    _redirect(graph, normalised, last)
    prepend(graph, nodes)
    value.CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, (batch, height, width, channels)))


def end2end_form(raw: ModelProto, recipe: Recipe) -> ModelProto:
    """Returns a copy of a raw graph that decodes, too.

    Pose: `keypoints` float32 (B, K, 3): x, y in pixels of the input crop, score. Segmentation: `class_map` uint8
    (B, H, W), the class of each input pixel; of equal logits the lowest class wins.

    Raises:
        UserError: the recipe asks for what a graph of one pass cannot carry (see `check_end2end`), or the graph's
            opset has no operators for it.
    """
    check_end2end(recipe)
    model = type(raw)()
    model.CopyFrom(raw)
    opset = opset_version(model)
    if opset < MIN_OPSET:
        raise UserError(
            f"io end2end needs a graph of opset {MIN_OPSET} or newer, this one is of opset {opset}; use --io raw, or "
            "export it again"
        )
    if isinstance(recipe, PoseRecipe):
        _decode_pose(model.graph, recipe, opset)
    else:
        _decode_segmentation(model.graph, recipe, opset)
    return model


def check_end2end(recipe: Recipe) -> None:
    """Accepts recipes whose decoding fits into the graph.

    Raises:
        UserError: flip test, sliding windows, padded fit or DARK; the text names the field and what would work.
    """
    if recipe.flip_test:
        raise UserError("io end2end runs the net once and cannot carry flip_test; use --io raw, or flip_test false")
    if isinstance(recipe, PoseRecipe) and recipe.decode not in ("argmax", "quarter"):
        raise UserError(
            f"io end2end decodes by argmax or quarter, not by {recipe.decode}; use --io raw, or another decode"
        )
    if isinstance(recipe, SegmentationRecipe) and recipe.fit == "sliding":
        raise UserError("io end2end sees one window and cannot carry fit sliding; use --io raw, or fit stretch or pad")


def check_forms(model: ModelProto, recipe: Recipe) -> None:
    """Accepts graphs in raw form whose shapes fit the recipe.

    Raises:
        UserError: another input or output; the text gives both shapes.
    """
    _one(model.graph.input, "input")
    _one(model.graph.output, "output")
    (given,), (made,) = model.graph.input, model.graph.output
    wanted_input = (recipe.height, recipe.width, 3)
    if dtype_name(given) != "uint8" or static_shape(given)[1:] != wanted_input:
        raise UserError(
            f"the recipe gives pictures uint8 (B, {', '.join(map(str, wanted_input))}), the graph takes "
            f"{dtype_name(given)} {static_shape(given)}"
        )
    wanted = raw_output_shape(recipe)
    if dtype_name(made) != "float32" or static_shape(made)[1:] != wanted:
        what = "joints" if isinstance(recipe, PoseRecipe) else "classes"
        raise UserError(
            f"the recipe ({wanted[0]} {what}, stride {recipe.stride}) needs an output float32 "
            f"(B, {', '.join(map(str, wanted))}), the graph gives {dtype_name(made)} {static_shape(made)}"
        )


def _one(values: Iterable[ValueInfoProto], what: str) -> None:
    names = [value.name for value in values]
    if len(names) != 1:
        raise UserError(f"the graph must have one {what}, it has {len(names)}: {', '.join(names) or 'none'}")


def _fold_into_weights(graph: GraphProto, name: str, order: NDArray[np.int64], std: NDArray[np.float64]) -> bool:
    """Permutes and scales the weights of all readers of `name` if they are convolutions that allow it."""
    readers = [node for inner in graphs_of(graph) for node in inner.node if name in node.input]
    initialisers = {item.name for item in graph.initializer}
    weights = [node.input[1] for node in readers if _plain_convolution(node) and node.input[1] in initialisers]
    users = [node for inner in graphs_of(graph) for node in inner.node]
    shared = any(sum(weight in node.input for node in users) > 1 for weight in weights)
    if len(weights) != len(readers) or shared:
        return False
    arrays = constants(graph)
    for weight in weights:
        old = arrays[weight].astype(np.float64)
        new = np.empty_like(old)
        new[:, order] = old / std[None, :, None, None]
        set_initialiser(graph, weight, new.astype(np.float32))
    return True


def _plain_convolution(node: NodeProto) -> bool:
    groups = [attribute.i for attribute in node.attribute if attribute.name == "group"]
    return node.op_type == "Conv" and groups in ([], [1])


def _redirect(graph: GraphProto, old: str, new: str) -> None:
    for inner in graphs_of(graph):
        for node in inner.node:
            for index, value in enumerate(node.input):
                if value == old:
                    node.input[index] = new


class _Nodes:
    """Nodes that are added to a graph, each named after its one output."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph

    def add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Adds a node and returns the name of its output."""
        from onnx import helper

        self._graph.node.append(helper.make_node(kind, inputs, [f"decode/{name}"], f"decode/{name}", **attributes))
        return f"decode/{name}"

    def constant(self, name: str, value: object, kind: type = np.int64) -> str:
        """Adds a constant and returns its name."""
        return add_constant(self._graph, f"decode.{name}", np.array(value, kind))


def _decode_pose(graph: GraphProto, recipe: PoseRecipe, opset: int) -> None:
    from onnx import TensorProto, helper

    (output,) = graph.output
    batch, joints, _, width = static_shape(output)
    nodes = _Nodes(graph)
    flat = nodes.add("Reshape", [output.name, nodes.constant("flat", [0, 0, -1])], "flat")
    if opset < 18:  # axes became an input
        score = nodes.add("ReduceMax", [flat], "score", axes=[2], keepdims=1)
    else:
        score = nodes.add("ReduceMax", [flat, nodes.constant("last", [2])], "score", keepdims=1)
    best = nodes.add("ArgMax", [flat], "best", axis=2, keepdims=1)
    # A map without a value above 0 gives (0, 0), as in the runtime.
    found = nodes.add("Greater", [score, nodes.constant("zero", 0, np.float32)], "found")
    index = nodes.add("Where", [found, best, nodes.constant("origin", 0)], "index")
    places = {
        "x": nodes.add("Mod", [index, nodes.constant("width", width)], "column"),
        "y": nodes.add("Div", [index, nodes.constant("width", width)], "row"),
    }
    inside = _inside(nodes, places, recipe) if recipe.decode == "quarter" else None
    pixels = []
    for (axis, place), scale in zip(places.items(), heatmap_scale(recipe).tolist(), strict=True):
        value = nodes.add("Cast", [place], f"{axis}_whole", to=TensorProto.FLOAT)
        if inside is not None:
            step = _quarter(nodes, (flat, index, inside), axis, 1 if axis == "x" else width)
            value = nodes.add("Add", [value, step], f"{axis}_moved")
        pixels.append(nodes.add("Mul", [value, nodes.constant(f"{axis}_scale", scale, np.float32)], f"{axis}_pixels"))
    name = output_name(recipe, "end2end")
    graph.node.append(helper.make_node("Concat", [*pixels, score], [name], "decode/Concat", axis=2))
    output.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, joints, 3)))


def _inside(nodes: _Nodes, places: dict[str, str], recipe: PoseRecipe) -> str:
    """Adds HRNet's rule for the quarter offset (`get_final_preds`): 1 < x < w - 1 and 1 < y < h - 1."""
    height, width = recipe.heatmap_size
    within = []
    for axis, size in (("x", width), ("y", height)):
        above = nodes.add("Greater", [places[axis], nodes.constant("one", 1)], f"{axis}_above")
        below = nodes.add("Less", [places[axis], nodes.constant(f"{axis}_end", size - 1)], f"{axis}_below")
        within.append(nodes.add("And", [above, below], f"{axis}_inside"))
    return nodes.add("And", within, "inside")


def _quarter(nodes: _Nodes, values: tuple[str, str, str], axis: str, step: int) -> str:
    """Adds a quarter pixel towards the larger neighbour along an axis whose pixels lie `step` apart."""
    flat, index, inside = values
    ends = []
    for side, shift in (("after", step), ("before", -step)):
        moved = nodes.add("Add", [index, nodes.constant(f"{axis}_{side}", shift)], f"{axis}_{side}")
        # Elsewhere the neighbour may not exist: both ends then read the origin, and their difference is 0.
        kept = nodes.add("Where", [inside, moved, nodes.constant("origin", 0)], f"{axis}_{side}_kept")
        ends.append(nodes.add("GatherElements", [flat, kept], f"{axis}_{side}_value", axis=2))
    slope = nodes.add("Sign", [nodes.add("Sub", ends, f"{axis}_difference")], f"{axis}_sign")
    return nodes.add("Mul", [slope, nodes.constant("quarter", 0.25, np.float32)], f"{axis}_quarter")


def _decode_segmentation(graph: GraphProto, recipe: SegmentationRecipe, opset: int) -> None:
    from onnx import TensorProto, helper

    (output,) = graph.output
    batch, _, height, width = static_shape(output)
    factors = np.array([1, 1, recipe.height / height, recipe.width / width], np.float32)
    mode = "align_corners" if recipe.align_corners else "half_pixel"
    name = output_name(recipe, "end2end")
    # The region of interest may be left out since opset 13.
    region = "" if opset >= 13 else add_constant(graph, "decode.region", np.empty(0, np.float32))
    graph.node.extend(
        [
            helper.make_node(
                "Resize",
                [output.name, region, add_constant(graph, "decode.factors", factors)],
                ["decode/upsampled"],
                "decode/Resize",
                mode="linear",
                coordinate_transformation_mode=mode,
            ),
            helper.make_node("ArgMax", ["decode/upsampled"], ["decode/best"], "decode/ArgMax", axis=1, keepdims=0),
            helper.make_node("Cast", ["decode/best"], [name], "decode/Cast", to=TensorProto.UINT8),
        ]
    )
    size = (batch, recipe.height, recipe.width)
    output.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, size))
