"""The fingerprint of a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from scalenas_runtime import fingerprint as module
from scalenas_runtime.canonical import canonical_json
from scalenas_runtime.fingerprint import CPU_FLAGS, cpu_quota, fingerprint, nvidia_gpus


def test_agrees_with_psutil_and_the_system() -> None:
    psutil: Any = pytest.importorskip("psutil")
    machine: Any = fingerprint()
    canonical_json(machine)
    assert machine["cpu"]["logical_cores"] == psutil.cpu_count()
    assert machine["cpu"]["physical_cores"] in (None, psutil.cpu_count(logical=False))
    assert machine["cpu"]["affinity"] == len(psutil.Process().cpu_affinity())
    assert abs(machine["memory_mib"] - psutil.virtual_memory().total / 2**20) < 2
    assert machine["packages"]["numpy"] == version("numpy")
    assert set(machine["cpu"]["flags"]) <= set(CPU_FLAGS)
    assert machine["architecture"] == os.uname().machine


def test_device_key_is_the_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint()
    monkeypatch.setattr(module, "package_versions", lambda: {"numpy": "0"})
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    second = fingerprint()
    assert second["load"] == 99.0
    assert second["device_key"] == first["device_key"]
    monkeypatch.setattr(module, "cpu_flags", lambda: ("sme2",))
    assert fingerprint()["device_key"] != first["device_key"]


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        pytest.param({"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, id="version 2"),
        pytest.param({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, None, id="version 2, no limit"),
        pytest.param(
            {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            0.5,
            id="version 1",
        ),
        pytest.param({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"}, None, id="version 1, no limit"),
        pytest.param({}, None, id="no control group"),
    ],
)
def test_cpu_quota(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: float | None) -> None:
    monkeypatch.setattr(module, "_read", lambda path: files.get(path, ""))
    assert cpu_quota() == quota


def test_arm_flags_and_board_name(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/cpuinfo": "processor : 0\nFeatures : fp asimd i8mm bf16 unheard\nCPU implementer : 0x41\n",
        "/proc/device-tree/model": "Raspberry Pi 5 Model B\0",
    }
    monkeypatch.setattr(module, "_read", lambda path: files.get(path, ""))
    assert module.cpu_flags() == ("asimd", "bf16", "i8mm")
    assert module.cpu_model() == "Raspberry Pi 5 Model B"


def test_gpus_as_nvidia_smi_lists_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-1a, NVIDIA T4, 550.1'\necho '1, GPU-2b, NVIDIA T4, 550.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert [gpu["uuid"] for gpu in nvidia_gpus()] == ["GPU-1a", "GPU-2b"]
    tool.write_text("#!/bin/sh\necho 'no driver' >&2; exit 9\n")
    assert nvidia_gpus() == []


@pytest.mark.parametrize("packed", [False, True])
def test_commit_is_read_without_git(tmp_path: Path, packed: bool) -> None:
    git = tmp_path / ".git"
    (git / "refs/heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    commit = "0123456789abcdef0123456789abcdef01234567"
    if packed:
        (git / "packed-refs").write_text(f"# pack-refs\n{commit} refs/heads/main\n")
    else:
        (git / "refs/heads/main").write_text(f"{commit}\n")
    assert module._commit(tmp_path / "runtime" / "package" / "file.py") == commit
    (git / "HEAD").write_text(f"{commit[::-1]}\n")
    assert module._commit(tmp_path / "runtime" / "file.py") == commit[::-1]
    # Installed into an environment that lies in somebody's own repository.
    assert module._commit(tmp_path / ".venv" / "lib" / "site-packages" / "file.py") is None


def test_imports_nothing_heavy() -> None:
    code = (
        "import sys; from scalenas_runtime.fingerprint import fingerprint; fingerprint();"
        "assert not {'torch', 'onnx', 'openvino', 'onnxruntime', 'numpy', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
