"""What this machine is: processor, limits, system, package versions. Stands beside every number that was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from scalenas_runtime.canonical import Json, digest

# Instruction sets that decide which kernels an engine picks; x86 names as Linux spells them, then Arm's.
CPU_FLAGS = (
    *("sse4_2", "avx", "fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"),
)
PACKAGES = (
    *("scalenas-export", "numpy", "opencv-python-headless", "msgspec"),
    *("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch", "onnx"),
)


def fingerprint() -> dict[str, Json]:
    """Returns the machine and its software as JSON values; takes some ten milliseconds and imports no engine.

    Memory is in MiB, frequency in MHz, `cpu.quota` in processors (None without a limit), `load` is the 1-minute load
    average. `device_key` names the machine alone: it stays the same when software, load or clock change.
    """
    cpu, gpus, memory = _cpu(), nvidia_gpus(), _memory()
    stable: dict[str, Json] = {
        "architecture": platform.machine(),
        "cpu": {key: cpu[key] for key in ("model", "flags", "logical_cores", "affinity", "quota")},
        "gpus": [gpu["name"] for gpu in gpus],
        "memory_gib": None if memory is None else round(memory / 1024),
    }
    return {
        "device_key": digest(stable),
        "architecture": platform.machine(),
        "cpu": cpu,
        "memory_mib": memory,
        "gpus": [dict(gpu) for gpu in gpus],
        "os": _system(),
        "container": _container(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "commit": _commit(Path(__file__)),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Returns the installed version of each distribution that is there, without importing it."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """Returns the processor's name as the system gives it."""
    model = _field("model name") or _read("/proc/device-tree/model").strip("\0\n")
    return model or platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Returns which instruction sets of `CPU_FLAGS` this processor has, in that order; empty where none can be read."""
    there = set((_field("flags") or _field("Features")).split())
    return tuple(flag for flag in CPU_FLAGS if flag in there)


def cpu_affinity() -> int:
    """Returns how many logical processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota() -> float | None:
    """Returns the processors that the control group allows (1.5 = one and a half), or None without a limit."""
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    if not quota:
        quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    if not quota.isdigit() or not period.isdigit():
        return None
    return round(int(quota) / int(period), 3)


def nvidia_gpus() -> list[dict[str, str]]:
    """Returns index, uuid, name and driver of each GPU that nvidia-smi lists; empty without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    keys = ("index", "uuid", "name", "driver_version")
    command = ["nvidia-smi", f"--query-gpu={','.join(keys)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.strip()]
    return [dict(zip(keys, row, strict=True)) for row in rows if len(row) == len(keys)]


def _cpu() -> dict[str, Json]:
    frequency = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").strip()
    return {
        "model": cpu_model(),
        "flags": list(cpu_flags()),
        "physical_cores": physical_cores(),
        "logical_cores": os.cpu_count(),
        "affinity": cpu_affinity(),
        "quota": cpu_quota(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "frequency_mhz": int(frequency) // 1000 if frequency.isdigit() else None,
    }


def physical_cores() -> int | None:
    """Returns the processor's cores, two hardware threads counted once; None where the system does not tell."""
    cores = set(re.findall(r"physical id\s*: (\d+).*?core id\s*: (\d+)", _read("/proc/cpuinfo"), re.DOTALL))
    return len(cores) or None


def _memory() -> int | None:
    found = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    return int(found.group(1)) // 1024 if found else None


def _system() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read("/etc/os-release"), re.MULTILINE)
    name = f"{found.group(1)}, " if found else ""
    return f"{name}{platform.system()} {platform.release()}"


def _container() -> str | None:
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    return "kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else None


def _commit(start: Path) -> str | None:
    # Read by hand: calling git would cost more than the rest together, and git may be missing.
    # Installed elsewhere, this file may lie inside somebody's own repository, whose commit says nothing about it.
    root = next((folder for folder in start.parents if (folder / ".git").is_dir()), None)
    if root is None or start.relative_to(root).parts[0] != "runtime":
        return None
    head = _read(str(root / ".git" / "HEAD")).strip()
    if not head.startswith("ref: "):
        return head or None
    name = head[5:]
    packed = re.search(rf"^([0-9a-f]+) {re.escape(name)}$", _read(str(root / ".git" / "packed-refs")), re.MULTILINE)
    return _read(str(root / ".git" / name)).strip() or (packed.group(1) if packed else None)


def _field(name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found.group(1) if found else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
