"""Reading checkpoints: every tensor of the formats people have, and nothing ever executed."""

import builtins
import collections
import importlib
import io
import os
import pickle
import shutil
import socket
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from scalenas.checkpoints import read_checkpoint
from scalenas_runtime.errors import UserError

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def write(path: Path, content: object, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def state() -> dict[str, Tensor]:
    shared = torch.arange(10.0)
    return {
        "float": torch.randn(3, 4),
        "half": torch.randn(2).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "double": torch.randn(2, 2).double(),
        "integer": torch.arange(5),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.randn(2, 2)),
        "strided": torch.randn(4, 6)[1:3, ::2],
        "transposed": torch.randn(3, 4).t(),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "first_half": shared[:5],
        "second_half": shared[5:],
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.0),
    }


def foreign_module() -> types.ModuleType:
    """A module that cannot be imported where the checkpoint is read."""
    module = types.ModuleType("training_framework_not_installed")
    exec(
        "class History:\n"
        "    def __init__(self): self.values = [1]\n"
        "    def __setstate__(self, state): raise AssertionError('state was set')\n"
        "class Box(list): pass\n"
        "class Table(dict): pass\n"
        "def note(path): open(path, 'w').close()\n",
        module.__dict__,
    )
    for value in vars(module).values():
        if getattr(value, "__module__", None) == "builtins" or isinstance(value, type):
            value.__module__ = module.__name__
    module.note.__module__ = module.__name__
    sys.modules[module.__name__] = module
    return module


def check(path: Path, expected: dict[str, Tensor]) -> None:
    got = read_checkpoint(path)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
        assert got[name].dtype == tensor.dtype
        assert got[name].is_contiguous()
        assert type(got[name]) is Tensor


@FORMATS
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        collections.OrderedDict,
        lambda state: {"epoch": 1, "model": "pose_hrnet", "state_dict": state, "optimizer": {"s": {0: torch.ones(3)}}},
        lambda state: {"model_state_dict": state},
        lambda state: {"best_state_dict": state},
        lambda state: {"model": {"state_dict": state}},
    ],
    ids=["plain", "ordered", "hrnet", "model_state_dict", "best_state_dict", "twice"],
)
def test_every_tensor_is_read(tmp_path: Path, zipped: bool, wrap: Callable[[dict[str, Tensor]], object]) -> None:
    expected = state()
    check(write(tmp_path / "c.pth", wrap(expected), zipped), expected)


def test_safetensors_is_read(tmp_path: Path) -> None:
    expected = {"a": torch.randn(2, 3), "b": torch.arange(4)}
    safetensors.torch.save_file(expected, tmp_path / "c.safetensors")
    check(tmp_path / "c.safetensors", expected)


def test_state_dict_of_a_module_is_read(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    check(write(tmp_path / "c.pth", net.state_dict()), dict(net.state_dict()))


@FORMATS
def test_foreign_objects_become_inert_and_are_never_imported(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = foreign_module()
    owned = tmp_path / "owned"
    history, box, table = module.History(), module.Box([1, 2]), module.Table(a=1)
    expected = state()
    content = {
        "state_dict": expected,
        "message_hub": {"loss": history, "nested": [history, (history, {"h": history})]},
        "box": box,
        "table": table,
        "getattr": Call(getattr, history, "values"),
        "called": Call(module.note, str(owned)),
        "numpy": torch.ones(1).numpy(),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "set": {1, 2},
    }
    path = write(tmp_path / "c.pth", content, zipped)
    del sys.modules[module.__name__]
    asked: list[str] = []
    original = builtins.__import__

    def watch(name: str, *args: object, **kwargs: object) -> object:
        asked.append(name)
        return original(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", watch)
    check(path, expected)
    monkeypatch.undo()
    assert module.__name__ not in asked
    assert module.__name__ not in sys.modules
    assert not owned.exists()


DANGEROUS: list[tuple[Callable[..., object], str]] = [
    (os.system, "os.system"),
    (os.remove, "os.remove"),
    (eval, "builtins.eval"),
    (exec, "builtins.exec"),
    (compile, "builtins.compile"),
    (open, "open"),
    (__import__, "builtins.__import__"),
    (subprocess.Popen, "subprocess.Popen"),
    (importlib.import_module, "importlib.import_module"),
    (shutil.rmtree, "shutil.rmtree"),
    (socket.socket, "socket.socket"),
    (sys.exit, "sys.exit"),
    (pickle.loads, "pickle.loads"),
    (torch.load, "torch.serialization.load"),
]


@FORMATS
@pytest.mark.parametrize(("function", "name"), DANGEROUS, ids=[name for _, name in DANGEROUS])
def test_checkpoint_that_would_run_code_is_refused_by_name(
    tmp_path: Path, zipped: bool, function: Callable[..., object], name: str
) -> None:
    owned = tmp_path / "owned"
    call = Call(function, f"touch {owned}")
    for content in ({"state_dict": state(), "x": [{"y": (call,)}]}, {"w": torch.ones(1), "v": call}, call):
        try:
            path = write(tmp_path / "c.pth", content, zipped)
        except (pickle.PicklingError, TypeError):
            pytest.skip(f"{name} cannot be pickled here")
        with pytest.raises(UserError, match=f"would need to run .*{name}; no code of a checkpoint is run"):
            read_checkpoint(path)
    assert not owned.exists()


def raw(opcodes: bytes) -> bytes:
    """A zip checkpoint around hand-written pickle opcodes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("c/data.pkl", opcodes)
        archive.writestr("c/data/0", b"\0" * 16)
    return buffer.getvalue()


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def tensor(arguments: bytes) -> bytes:
    return b"\x80\x02}X\x01\0\0\0w" + REBUILD + b"(" + STORAGE + arguments + b"\x89}tRs."


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (tensor(b"K\x00(K\x05t(K\x01t"), r"w of shape \(5,\) reaches outside its 4 elements"),
        (tensor(b"K\x02(K\x04t(K\x01t"), "reaches outside its 4 elements"),
        (tensor(b"K\x00(J\xff\xff\xff\xfft(K\x01t"), "impossible shape"),
        (tensor(b"K\x00(K\xffK\xfft(K\x00K\x00t"), "reaches outside its 4 elements"),
        (tensor(b"K\x00(K\x02K\x02t(K\x01t"), "impossible shape"),
        (tensor(b"K\x00X\x01\0\0\0a(K\x01t"), "shape is not made of integers"),
        # BUILD on what a name leads to would change the reader itself.
        (b"\x80\x02" + REBUILD + b"N}X\x08\0\0\0__code__K\x01s\x86b.", "tries to change how tensors are rebuilt"),
        (b"\x80\x02ccollections\nOrderedDict\nN}X\x01\0\0\0aK\x01s\x86b.", "truncated or damaged"),
        (b"\x80\x02ctorch\nFloatStorage\n}X\x05\0\0\0dtypeX\x03\0\0\0hubsb.", "truncated or damaged"),
        (b"\x80\x02ctorch\nFloatStorage\nN}X\x05\0\0\0dtypeX\x03\0\0\0hubs\x86b.", "truncated or damaged"),
        (b"\x80\x02}X\x01\0\0\0wcev\x1b[2Jil\nthing\ns.", r"no state dict"),
        (b"\x80\x02cev\x1b[2Jil\nthing\n)R.", r"an object of class ev\?\[2Jil\.thing where"),
        (b"\x80\x02X\x01\0\0\0aQ.", "an object outside the pickle is not a storage"),
        (b"\x80\x02cposix\nsystem\n(X\x02\0\0\0lstR.", r"would need to run os\.system"),
        (b"(S'ls'\nios\nsystem\n.", r"neither a torch checkpoint"),
    ],
    ids=[
        "long",
        "offset",
        "negative",
        "repeated",
        "ranks",
        "text",
        "build",
        "build-class",
        "build-type",
        "build-slots",
        "class",
        "control",
        "pid",
        "global",
        "inst",
    ],
)
def test_hand_written_pickles_end_in_one_line(tmp_path: Path, opcodes: bytes, message: str) -> None:
    path = tmp_path / "c.pth"
    path.write_bytes(raw(opcodes) if opcodes.startswith(b"\x80") else opcodes)
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@FORMATS
def test_object_in_the_place_of_a_tensor_is_named(tmp_path: Path, zipped: bool) -> None:
    module = foreign_module()
    path = write(tmp_path / "c.pth", {"a": torch.ones(1), "b": module.History()}, zipped)
    with pytest.raises(UserError, match=r"b is an object of class training_framework_not_installed\.History where"):
        read_checkpoint(path)
    path = write(tmp_path / "c.pth", {"state_dict": module.History()}, zipped)
    with pytest.raises(UserError, match=r"state_dict is an object of class .*History where a state dict"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Conv2d(1, 1, 1), r"an object of class torch\.nn\.modules\.conv\.Conv2d where a state dict.*state_dict\(\)"),
        ([1, 2], "it holds a list where a state dict was expected"),
        ({"epoch": 3}, r"no state dict, neither at the top nor under state_dict, .* \(keys: epoch\)"),
        ({"a": torch.ones(1), 3: torch.ones(1)}, "has the key 3 where a name was expected"),
        ({"a": torch.ones(1), "b": 4}, "b is an object of class int where a tensor was expected"),
    ],
    ids=["module", "list", "nothing", "key", "number"],
)
def test_what_is_no_state_dict_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_checkpoint(write(tmp_path / "c.pth", content))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_file_ends_in_one_line_wherever_it_is_cut(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c"
    tensors = {"a": torch.randn(20, 30), "b": torch.randn(3)}
    if kind == "safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        write(path, tensors, kind == "zip")
    data = path.read_bytes()
    for length in [*range(40), *range(40, len(data), 61), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"truncated or damaged|neither a torch checkpoint") as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_text_and_other_zip_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    path.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="neither a torch checkpoint nor a safetensors file"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"a zip file without torch's data\.pkl"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", b"\0" * 1_000_000)
    with pytest.raises(UserError, match="its records are compressed"):
        read_checkpoint(path)
    for copies in (1, 3):
        path.write_bytes(pickle.dumps([1, 2, 3]) * copies)
        with pytest.raises(UserError, match=r"a pickle, but not one that torch\.save wrote"):
            read_checkpoint(path)


@FORMATS
def test_element_types_that_are_not_read_are_named(tmp_path: Path, zipped: bool) -> None:
    path = write(tmp_path / "c.pth", {"a": torch.ones(2, dtype=torch.complex64)}, zipped)
    with pytest.raises(
        UserError, match=r"stored as torch\.ComplexFloatStorage, which is not read; known: float64, float32"
    ):
        read_checkpoint(path)


def test_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", b"\x80\x02}.")
        archive.writestr("c/constants.pkl", b"\x80\x02).")
    with pytest.raises(UserError, match="a TorchScript archive, which is a program"):
        read_checkpoint(path)


def test_big_endian_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", b"\x80\x02}.")
        archive.writestr("c/byteorder", b"big")
    with pytest.raises(UserError, match="saved on a big-endian machine"):
        read_checkpoint(path)
