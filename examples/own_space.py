"""A family of your own: pose nets of one resolution, with an elastic depth and an optional wide path."""

from collections.abc import Mapping
from typing import ClassVar

from scalenas.genes import Gene
from scalenas.graph import Graph, Node
from scalenas.operators import AddReLU, BasicBlock, ConvBN, FuseDown, FuseUp, Operator, PoseHead
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json


class TinySpace(SearchSpace):
    """A stem of stride 4, one to three blocks, and a path at half the resolution that may be left out."""

    name = "tiny"
    title = "one branch, elastic depth, optional wide path"
    tasks = ("pose",)
    defaults: ClassVar = {"width": 8, "joints": 17}
    image = (3, 64, 64)

    def gene_table(self, settings: Mapping[str, Json]) -> tuple[Gene, ...]:
        """Returns the depth and whether there is a wide path."""
        return Gene("depth", (1, 2, 3), group="trunk"), Gene("wide", (False, True), group="side")

    def build(self, spec: SubnetSpec) -> Graph:
        """Returns the graph of one net."""
        width, joints = int(str(spec.settings["width"])), int(str(spec.settings["joints"]))
        nodes: list[Node] = []

        def add(name: str, operator: Operator, *inputs: str) -> str:
            nodes.append(Node(name, operator, inputs))
            return name

        last = add("stem.conv1", ConvBN(3, width, stride=2), "image")
        last = add("stem.conv2", ConvBN(width, width, stride=2), last)
        for index in range(int(str(spec.genes["depth"]))):
            last = add(f"trunk.block{index}", BasicBlock(width), last)
        if spec.genes["wide"]:
            down = add("side.down", FuseDown(width, 2 * width, steps=1), last)
            up = add("side.up", FuseUp(2 * width, width, scale=2), down)
            last = add("side.sum", AddReLU(), last, up)
        return Graph(("image",), (*nodes, Node("head", PoseHead(width, joints), (last,))), ("head",))


SPACE = TinySpace()
