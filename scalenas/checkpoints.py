"""Reading the tensors of a checkpoint file, whatever framework wrote it, without running its code."""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas.unpickling import Placeholder, RestrictedUnpickler, StorageRecord, TensorRecord
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Where training scripts put the state dict, most specific first.
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "best_state_dict", "model")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

_StorageBytes = Callable[[StorageRecord], bytes]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Returns the state dict that a checkpoint file holds: owned, contiguous CPU tensors by name.

    Reads torch's zip format, its older pickle format and safetensors. The state dict may be the whole file or lie
    under one of `STATE_DICT_KEYS`. Objects of other classes (optimisers, histories of a training framework) are
    skipped; their classes are neither imported nor called.

    Raises:
        UserError: the file is no checkpoint, is truncated, names code to run, or holds no state dict of tensors.
        OSError: the file cannot be read.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        if data[:2] == b"PK":
            content, storage_bytes = _read_zip(data)
        elif data[8:9] == b"{":
            return _read_safetensors(data)
        elif data[:1] == b"\x80":
            content, storage_bytes = _read_legacy(data)
        else:
            raise UserError("it is neither a torch checkpoint nor a safetensors file")
        return _tensors(_state_dict(content), storage_bytes)
    except UserError as error:
        raise UserError(f"{path}: {one_line(str(error))}") from None
    except _BROKEN as error:
        reason = one_line(str(error)) or type(error).__name__
        raise UserError(f"{path}: the checkpoint is truncated or damaged ({reason}); download it again") from None


def one_line(text: str) -> str:
    """Returns `text` with every run of white space as one space, and `?` for what does not print.

    Names in a file come from anyone: a line break or a terminal's control sequence must not reach the screen.
    """
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _read_safetensors(data: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise ValueError(error) from None
    return tensors


def _read_zip(data: bytes) -> tuple[object, _StorageBytes]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
        raise UserError("it is a TorchScript archive, which is a program; save its state dict instead")
    if len(pickles) != 1:
        raise UserError("it is a zip file without torch's data.pkl")
    # torch stores records uncompressed; an archive that unpacks to more than its size is a bomb.
    if sum(record.file_size for record in archive.infolist()) > len(data):
        raise UserError("its records are compressed; torch.save does not write such files")
    prefix = pickles[0].removesuffix("data.pkl")
    if prefix + "byteorder" in names and archive.read(prefix + "byteorder") != b"little":
        raise UserError("it was saved on a big-endian machine; save it again on a little-endian one")
    content = RestrictedUnpickler(io.BytesIO(archive.read(pickles[0]))).load()
    return content, lambda storage: archive.read(f"{prefix}data/{storage.key}")


def _read_legacy(data: bytes) -> tuple[object, _StorageBytes]:
    stream = io.BytesIO(data)
    # Magic number, protocol, and what the machine was like.
    if RestrictedUnpickler(stream).load() != _LEGACY_MAGIC or RestrictedUnpickler(stream).load() != _LEGACY_PROTOCOL:
        raise UserError("it is a pickle, but not one that torch.save wrote")
    RestrictedUnpickler(stream).load()
    unpickler = RestrictedUnpickler(stream)
    content = unpickler.load()
    keys = RestrictedUnpickler(stream).load()
    if not isinstance(keys, list):
        raise pickle.UnpicklingError("the list of storages is missing")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        storage = unpickler.storages[str(key)]
        (numel,) = struct.unpack("<q", stream.read(8))
        length = numel * _element_size(storage.dtype)
        if numel != storage.numel or stream.tell() + length > len(data):
            raise EOFError(f"storage {key} ends early")
        places[storage.key] = (stream.tell(), length)
        stream.seek(length, io.SEEK_CUR)

    def storage_bytes(storage: StorageRecord) -> bytes:
        start, length = places[storage.key]
        return data[start : start + length]

    return content, storage_bytes


def _state_dict(content: object) -> Mapping[object, object]:
    if isinstance(content, Placeholder):
        raise UserError(
            f"it holds an object of class {content.origin} where a state dict was expected; "
            "save the model's state_dict() instead"
        )
    if not isinstance(content, dict):
        raise UserError(f"it holds a {type(content).__name__} where a state dict was expected")
    for key in STATE_DICT_KEYS:
        inner = content.get(key)
        if isinstance(inner, dict):
            # Some trainers wrap twice: {"model": {"state_dict": ...}}.
            nested = next((inner[name] for name in STATE_DICT_KEYS if isinstance(inner.get(name), dict)), inner)
            if any(isinstance(value, TensorRecord) for value in nested.values()):
                return nested
        elif isinstance(inner, Placeholder) and not _has_tensors(content):
            raise UserError(f"{key} is an object of class {inner.origin} where a state dict was expected")
    if not _has_tensors(content):
        keys = ", ".join(str(key) for key in list(content)[:8]) or "none"
        raise UserError(
            f"it holds no state dict, neither at the top nor under {', '.join(STATE_DICT_KEYS)} (keys: {keys})"
        )
    return content


def _has_tensors(content: Mapping[object, object]) -> bool:
    return any(isinstance(value, TensorRecord) for value in content.values())


def _tensors(state: Mapping[object, object], storage_bytes: _StorageBytes) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise UserError(f"the state dict has the key {name!r} where a name was expected")
        if not isinstance(value, TensorRecord):
            kind = value.origin if isinstance(value, Placeholder) else type(value).__name__
            raise UserError(f"{name} is an object of class {kind} where a tensor was expected")
        tensors[name] = _materialise(name, value, storage_bytes)
    return tensors


def _materialise(name: str, record: TensorRecord, storage_bytes: _StorageBytes) -> Tensor:
    import torch

    storage = record.storage
    raw = storage_bytes(storage)
    size, stride = record.size, record.stride
    if len(raw) != storage.numel * _element_size(storage.dtype):
        raise EOFError(f"{name} has {len(raw)} bytes for {storage.numel} elements")
    if len(size) != len(stride) or min((record.offset, *size, *stride)) < 0:
        raise ValueError(f"{name} has the impossible shape {size}")
    if math.prod(size) == 0:
        return torch.empty(size, dtype=getattr(torch, storage.dtype))
    last = record.offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    # A stride of 0 could repeat one element to any size; real state dicts hold every element once.
    if last >= storage.numel or math.prod(size) > storage.numel:
        raise ValueError(f"{name} of shape {size} reaches outside its {storage.numel} elements")
    flat = torch.frombuffer(bytearray(raw), dtype=getattr(torch, storage.dtype))
    return flat.as_strided(size, stride, record.offset).clone(memory_format=torch.contiguous_format)


def _element_size(dtype: str) -> int:
    import torch

    kind = getattr(torch, dtype)
    assert isinstance(kind, torch.dtype)
    return kind.itemsize
