"""Reading the pickles of torch checkpoints without running what they ask for.

A pickle names the functions and classes it wants called. Here the names of torch's tensor rebuilding lead to
objects of this module, a few containers lead to themselves, and every other name leads to an inert class that is
made on the spot: nothing that a file names is ever imported or called.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
from collections.abc import Callable
from typing import NamedTuple

from scalenas_runtime.errors import UserError

# Functions that act on the machine: a file that names one is refused rather than read around.
_DANGEROUS = re.compile(
    r"(?:_io|_posixsubprocess|_winapi|asyncio|bdb|codeop|cProfile|ctypes|ensurepip|fcntl|ftplib|http|httplib|imp"
    r"|importlib|marshal|multiprocessing|nt|os|pdb|pickle|pip|pkgutil|popen2|posix|pty|pydoc|runpy|shelve|shutil"
    r"|signal|smtplib|socket|socketserver|subprocess|sys|tarfile|telnetlib|tempfile|threading|timeit|urllib|urllib2"
    r"|webbrowser|winreg|zipimport)\..+"
    r"|builtins\.(?:__import__|breakpoint|compile|delattr|eval|exec|execfile|exit|file|globals|input|locals|open"
    r"|quit|setattr)"
    r"|io\.(?:FileIO|open|open_code)|types\.(?:CodeType|FunctionType)|torch\.(?:|hub\.|jit\.|serialization\.)load"
)
# Names under which pickles refer to modules that people know by another name.
_KNOWN_AS = {"posix": "os", "nt": "os", "__builtin__": "builtins", "commands": "subprocess"}
_CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")  # Python 3 and the older pickle protocols
        for kind in (dict, list, tuple, set, frozenset)
    },
}
_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Placeholder:
    """Stands for an object of a class that is not known here: takes any arguments and any state, and keeps nothing."""

    origin = "?"

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> Placeholder:
        """Returns another placeholder, for pickles that call what a call gave."""
        return type(self)()

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Drops `item`."""

    def extend(self, items: object) -> None:
        """Drops `items`."""

    def add(self, item: object) -> None:
        """Drops `item`."""


# Named tuples: a pickle can set the attributes of what it holds (BUILD), and these take none.
class StorageType(NamedTuple):
    """The element type of a storage: the name torch gives it (`float32`)."""

    dtype: str


class StorageRecord(NamedTuple):
    """A storage that the pickle refers to; its bytes lie elsewhere in the file."""

    dtype: str
    key: str
    numel: int


class TensorRecord(NamedTuple):
    """A tensor as the pickle describes it: a view of a storage, counted in elements."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that gives containers, `TensorRecord`s and `Placeholder`s, and calls nothing else.

    Raises:
        UserError: from `load`, when the pickle names a function of a module that acts on the machine.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        # Latin-1 decodes every string of a Python 2 pickle.
        super().__init__(stream, encoding="latin1")
        self.storages: dict[str, StorageRecord] = {}

    def find_class(self, module: str, name: str) -> object:
        """Returns what stands for the global `module.name`."""
        _refuse_dangerous(module, name)
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module in ("torch", "torch.cuda") and name in _STORAGE_DTYPES:
            return StorageType(_STORAGE_DTYPES[name])
        if (module, name) in _REBUILDERS:
            return _Callable(_REBUILDERS[module, name])
        return type("Placeholder", (Placeholder,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: object) -> object:
        """Returns the `StorageRecord` of a torch persistent id ("storage", type, key, place, elements, view)."""
        if isinstance(pid, tuple) and len(pid) >= 2 and _text(pid[0]) == "module":
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or _text(pid[0]) != "storage":
            raise pickle.UnpicklingError("an object outside the pickle is not a storage")
        kind, key, numel = pid[1], pid[2], pid[4]
        if len(pid) == 6 and pid[5] is not None:
            raise pickle.UnpicklingError("views between storages (torch before 0.4) are not supported")
        if isinstance(kind, type) and issubclass(kind, Placeholder):
            raise UserError(
                f"it holds tensors stored as {kind.origin}, which is not read; "
                f"known: {', '.join(_STORAGE_DTYPES.values())}; save the state dict as one of these"
            )
        if not isinstance(kind, StorageType) or not isinstance(numel, int) or numel < 0:
            raise pickle.UnpicklingError(f"storage {_text(key)} has no known element type")
        return self.storages.setdefault(_text(key), StorageRecord(kind.dtype, _text(key), numel))


class _Callable:
    # In place of the function itself, which would take attributes too.
    __slots__ = ("_function",)
    _function: Callable[..., object]

    def __init__(self, function: Callable[..., object]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("the pickle tries to change how tensors are rebuilt")

    def __call__(self, *args: object) -> object:
        return self._function(*args)


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> TensorRecord:
    if not isinstance(storage, StorageRecord) or not isinstance(offset, int):
        raise pickle.UnpicklingError("a tensor without a storage")
    return TensorRecord(storage, offset, _integers(size), _integers(stride))


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


_REBUILDERS: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
}


def _refuse_dangerous(module: str, name: str) -> None:
    full = f"{_KNOWN_AS.get(module, module)}.{name}"
    if _DANGEROUS.fullmatch(full):
        raise UserError(
            f"the checkpoint would need to run {full}; no code of a checkpoint is run: "
            "get the file from a source you trust and save its state dict alone"
        )


def _integers(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(item) is int for item in value):
        raise pickle.UnpicklingError("a tensor whose shape is not made of integers")
    return tuple(value)


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
