"""The header of a safetensors file, read without the safetensors package and without touching the tensors."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

from scalenas_runtime.bundle.manifest import parse_json
from scalenas_runtime.errors import UserError

MAX_HEADER = 100_000_000
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 8),
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, dtype in safetensors' words, and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a safetensors file says about itself: its metadata texts, and its tensors sorted by name."""

    metadata: dict[str, str]
    tensors: tuple[TensorInfo, ...]

    @property
    def parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Returns the header of a safetensors file.

    The format: the header's length as 8 little-endian bytes, the header as JSON, then the tensors without gaps.

    Raises:
        UserError: truncated, a length that cannot be, not JSON, or tensors that do not fill the file exactly.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise UserError(f"{path} is not a safetensors file: its header claims {length} bytes, the file has {size}")
        text = stream.read(length)
    value = parse_json(text, what=f"{path}: header")
    if not isinstance(value, dict):
        raise UserError(f"{path}: the header must be a JSON object, got {type(value).__name__}")
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        raise UserError(f"{path}: __metadata__ must hold texts by name")
    entries = [_tensor(path, name, item) for name, item in value.items()]
    _check_coverage(path, [span for _, span in entries], size - 8 - length)
    return SafetensorsHeader(metadata, tuple(sorted((tensor for tensor, _ in entries), key=lambda item: item.name)))


def _tensor(path: Path, name: str, item: object) -> tuple[TensorInfo, tuple[int, int]]:
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise UserError(f"{path}: tensor {name!r} must have dtype, shape and data_offsets")
    dtype, shape, span = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise UserError(f"{path}: tensor {name!r} has the unknown dtype {dtype!r}; known: {', '.join(_BITS)}")
    if not (_are_sizes(shape) and _are_sizes(span) and len(span) == 2):
        raise UserError(f"{path}: tensor {name!r}: shape {shape} and data_offsets {span} must be whole numbers from 0")
    needed = math.prod(shape) * _BITS[dtype] // 8
    if span[1] - span[0] != needed:
        raise UserError(
            f"{path}: tensor {name!r} needs {needed} bytes, its data_offsets {span} hold {span[1] - span[0]}"
        )
    return TensorInfo(name, dtype, tuple(shape)), (span[0], span[1])


def _check_coverage(path: Path, spans: list[tuple[int, int]], size: int) -> None:
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise UserError(f"{path}: tensors overlap or leave a gap at byte {min(start, end)}")
        end = stop
    if end != size:
        raise UserError(f"{path}: the tensors need {end} bytes, the file holds {size}; it is truncated or has a tail")


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) and item >= 0 for item in value)
