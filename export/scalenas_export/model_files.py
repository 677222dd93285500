"""Which files an ONNX model is made of: weights may lie beside the graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas_export.graph_names import graphs_of
from scalenas_runtime.canonical import Json, digest
from scalenas_runtime.files import file_sha256

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto


def model_digest(path: Path) -> str:
    """Returns the SHA-256 of an ONNX model as 64 hexadecimal digits.

    It is that of the file, or where weights lie in files beside it that of the canonical JSON
    `[[null, SHA-256 of the graph], [name, SHA-256], ...]`, by name.

    Raises:
        OSError: a file cannot be read.
    """
    import onnx

    own = file_sha256(path)
    beside = external_files(onnx.load(path, load_external_data=False))
    if not beside:
        return own
    parts: list[Json] = [[name, file_sha256(path.parent / name)] for name in beside]
    return digest([[None, own], *parts])


def external_files(model: ModelProto) -> list[str]:
    """Returns the names of all files with weights that a graph was stored with, relative to its own, sorted."""
    from onnx import TensorProto

    found = set()
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            found |= {item.value for item in tensor.external_data if item.key == "location"}
    return sorted(found)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
