"""The first node from which two runs of one graph part, and the smallest piece of the graph that shows it.

Both sides are probes: functions that give inner values by name. Few values are looked at in a run, since every
value that an engine must hand out is a fusion it cannot do, and divergence may go away with the fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from scalenas_export.graphs import drop_unused
from scalenas_runtime.backends import get_backend
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import new_directory, write_text
from scalenas_runtime.session import Array
from scalenas_runtime.targets import EngineConfig

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from torch import nn

Probe = Callable[[Sequence[str]], dict[str, Array]]

_LOOKS = 12


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two runs part.

    Attributes:
        node: Name of the first node whose output differs by more than the tolerance.
        operator: Its operator, such as `Conv`.
        value: Name of that output.
        relative: Its largest absolute difference over the reference's range.
        inputs: The same figure of the values it was computed from, by name; all within the tolerance.
        piece: Names of the nodes of the smallest piece that fails on its own, from the reference's inputs.
    """

    node: str
    operator: str
    value: str
    relative: float
    inputs: dict[str, float]
    piece: tuple[str, ...] = ()

    def __str__(self) -> str:
        worst = max(self.inputs.values(), default=0.0)
        return (
            f"the first diverging node is {self.node} ({self.operator}): relative error {self.relative:.3g}, "
            f"its inputs {worst:.3g}"
        )


class Values:
    """The inner values of a graph that can be compared, and how they depend on each other.

    Args:
        model: The graph.
        comparable: Values that both probes can give; all float values unless given.
    """

    def __init__(self, model: ModelProto, comparable: Iterable[str] | None = None) -> None:
        import onnx

        self.model = onnx.shape_inference.infer_shapes(model)
        graph = self.model.graph
        kinds = {item.name: item for item in (*graph.value_info, *graph.output, *graph.input)}
        self.infos = kinds
        self.producers = {name: node for node in graph.node for name in node.output if name}
        floats = [
            name
            for name in self.producers
            if name in kinds and kinds[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        ]
        allowed = set(floats) if comparable is None else set(comparable)
        self.order = [name for name in floats if name in allowed]
        self._parents: dict[str, tuple[str, ...]] = {}

    def parents(self, value: str) -> tuple[str, ...]:
        """Returns the nearest comparable values (or inputs of the graph) that `value` is computed from."""
        if value not in self._parents:
            known, found, todo = set(self.order), dict[str, None](), list(self.producers[value].input)
            while todo:
                name = todo.pop(0)
                if name in known or (name in self.infos and name not in self.producers):
                    found[name] = None
                elif name in self.producers:
                    todo += list(self.producers[name].input)
            self._parents[value] = tuple(found)
        return self._parents[value]

    def ancestors(self, value: str) -> set[str]:
        """Returns all comparable values that `value` depends on."""
        seen: set[str] = set()
        todo = [value]
        while todo:
            for name in self.parents(todo.pop()):
                if name in self.producers and name not in seen:
                    seen.add(name)
                    todo.append(name)
        return seen

    def piece(self, inputs: Sequence[str], output: str) -> ModelProto:
        """Returns the part of the graph from `inputs` to `output` as a model."""
        part = type(self.model)()
        part.CopyFrom(self.model)
        graph = part.graph
        inner = [node for node in graph.node if not set(node.output) & set(inputs)]
        del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
        graph.node.extend(inner)
        graph.output.append(self.infos[output])
        drop_unused(graph)
        used = {name for node in graph.node for name in node.input}
        graph.input.extend(self.infos[name] for name in inputs if name in used)
        return part


def engine_probe(model: ModelProto, config: EngineConfig, feeds: Mapping[str, Array]) -> Probe:
    """Returns a probe that marks the wanted values as outputs, compiles the graph up to them, and runs it."""

    def probe(names: Sequence[str]) -> dict[str, Array]:
        return _run(_marked(model, names), config, feeds)

    return probe


def torch_probe(net: nn.Module, inputs: torch.Tensor, modules: Mapping[str, str]) -> Probe:
    """Returns a probe over a module: `modules` gives the path of the submodule whose output a value is."""

    def probe(names: Sequence[str]) -> dict[str, Array]:
        import torch

        found: dict[str, Array] = {}

        def keep(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
            return lambda _, __, output: found.update({name: output.detach().numpy().copy()})

        hooks = [net.get_submodule(modules[name]).register_forward_hook(keep(name)) for name in names]
        try:
            with torch.no_grad():
                net(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    return probe


def first_divergence(
    values: Values, reference: Probe, candidate: Probe, *, output: str, tolerance: float
) -> Divergence | None:
    """Returns where the candidate first differs from the reference by more than `tolerance`, or None.

    The search goes up from `output`: a value that agrees clears all that it was computed from, the first that does not
    becomes the new end. None means that the output itself is within the tolerance.

    Args:
        values: The graph.
        reference: Gives the right values.
        candidate: Gives the values under suspicion.
        output: The value that is known to differ.
        tolerance: Largest absolute difference over the reference's range that is still agreement.
    """
    errors = _errors(reference, candidate, [output])
    if not errors[output] > tolerance:
        return None
    end, cleared = output, set[str]()
    while True:
        above = values.ancestors(end) - cleared
        left = [name for name in values.order if name in above]
        if not left:
            break
        looks = [left[index] for index in sorted({*np.linspace(0, len(left) - 1, _LOOKS).astype(int).tolist()})]
        errors.update(_errors(reference, candidate, looks))
        for name in looks:
            if errors[name] > tolerance:
                end = name
                break
            cleared |= {name} | values.ancestors(name)
    parents = [name for name in values.parents(end) if name in values.producers]
    errors.update(_errors(reference, candidate, [name for name in parents if name not in errors]))
    node = values.producers[end]
    return Divergence(node.name, node.op_type, end, errors[end], {name: errors[name] for name in parents})


def save_piece(
    folder: Path, values: Values, found: Divergence, *, reference: Probe, config: EngineConfig, tolerance: float
) -> Divergence:
    """Writes the smallest piece around a divergence that fails on its own, and returns the divergence with its nodes.

    The folder gets `piece.onnx`, `inputs.npz` (the reference's values), `expected.npz` and `divergence.json`.

    Args:
        folder: A folder that is not there yet.
        values: The graph of the candidate.
        found: What `first_divergence` gave.
        reference: Gives the right values, and the graph's inputs under their names.
        config: The candidate's engine.
        tolerance: As in `first_divergence`.

    Raises:
        UserError: the folder is there.
        OSError: it cannot be written.
    """
    inputs = values.parents(found.value)
    expected = reference([found.value])[found.value]
    while True:
        part = values.piece(inputs, found.value)
        names = [item.name for item in part.graph.input]
        feeds = reference(names)
        made = _run(part, config, feeds)[found.value]
        wider = tuple(dict.fromkeys(up for name in inputs for up in _upwards(values, name)))
        # Rounding errors that add up over many nodes need as many to show: take one more layer until they do.
        if relative_error(expected, made) > tolerance or wider == inputs:
            break
        inputs = wider
    import onnx

    result = Divergence(
        found.node,
        found.operator,
        found.value,
        found.relative,
        found.inputs,
        tuple(node.name for node in part.graph.node),
    )
    with new_directory(folder) as target:
        onnx.save(part, target / "piece.onnx")
        np.savez(target / "inputs.npz", allow_pickle=False, **feeds)
        np.savez(target / "expected.npz", allow_pickle=False, **{found.value: expected})
        record: dict[str, Json] = {
            "node": result.node,
            "operator": result.operator,
            "value": result.value,
            "relative": result.relative,
            "inputs": dict(result.inputs),
            "piece": list(result.piece),
            "config": config.to_json(),
            "tolerance": tolerance,
        }
        write_text(target / "divergence.json", pretty_json(record))
    return result


def relative_error(reference: Array, candidate: Array) -> float:
    """Returns the largest absolute difference over the reference's range; infinite where only one is finite."""
    if not np.array_equal(np.isfinite(reference), np.isfinite(candidate)):
        return float("inf")
    finite = np.isfinite(reference)
    if not finite.any():
        return 0.0
    one, other = reference[finite].astype(np.float64), candidate[finite].astype(np.float64)
    return float(np.abs(other - one).max() / max(float(np.ptp(one)), float(np.finfo(np.float32).tiny)))


def _upwards(values: Values, name: str) -> tuple[str, ...]:
    return values.parents(name) if name in values.producers else (name,)


def _errors(reference: Probe, candidate: Probe, names: Sequence[str]) -> dict[str, float]:
    if not names:
        return {}
    right, given = reference(names), candidate(names)
    return {name: relative_error(right[name], given[name]) for name in names}


def _marked(model: ModelProto, names: Sequence[str]) -> ModelProto:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    infos = {item.name: item for item in (*graph.value_info, *graph.output)}
    wanted = [type(infos[name])() for name in names]
    for copy, name in zip(wanted, names, strict=True):
        copy.CopyFrom(infos[name])
    del graph.output[:], graph.value_info[:]
    graph.output.extend(wanted)
    drop_unused(graph)
    return inferred


def _run(model: ModelProto, config: EngineConfig, feeds: Mapping[str, Array]) -> dict[str, Array]:
    import onnx

    with TemporaryDirectory(prefix="scalenas-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        with get_backend(config.target.backend).compile(path, config) as session:
            needed = {spec.name for spec in session.inputs}
            return session.run({name: array for name, array in feeds.items() if name in needed})
