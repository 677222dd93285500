"""What works on this machine, what is missing, and the line that adds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scalenas_runtime import kernels
from scalenas_runtime.backends import BACKENDS, get_backend
from scalenas_runtime.backends.base import Device
from scalenas_runtime.errors import MissingExtra, UserError
from scalenas_runtime.fingerprint import cpu_affinity, cpu_quota, fingerprint, package_versions

# What each extra adds to the base install, by the distribution that stands for it.
EXTRAS = {
    "onnxruntime": ("onnxruntime", "engine for every CPU"),
    "openvino": ("openvino", "engine for Intel CPUs, GPUs and NPUs, and other x86 and Arm CPUs"),
    "search": ("torch", "supernets and search"),
    "export": ("onnx", "ONNX export and bundles"),
}


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One backend here. `version` is None and `problem` says why where it cannot be used."""

    name: str
    version: str | None
    devices: tuple[Device, ...]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that is not installed, what it is for, and the line that adds it."""

    name: str
    purpose: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """This machine as `doctor` sees it; `machine` is the fingerprint, `kernels` one line on the native code."""

    machine: dict[str, object]
    engines: tuple[EngineStatus, ...]
    missing: tuple[Missing, ...]
    kernels: str
    warnings: tuple[str, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target that works here, in text form."""
        return tuple(
            f"{engine.name}:{device.name}/{precision}"
            for engine in self.engines
            for device in engine.devices
            for precision in device.precisions
        )


def diagnose() -> Diagnosis:
    """Returns what works here. Engines are imported; nothing else is, and nothing is raised for a missing one."""
    installed = package_versions(("onnxruntime", "onnxruntime-gpu", "openvino", "openvino-telemetry", "torch", "onnx"))
    engines = tuple(_engine(name) for name in BACKENDS)
    there = {*installed, *({"onnxruntime"} if "onnxruntime-gpu" in installed else ())}
    missing = tuple(
        Missing(package, purpose, f"pip install 'scalenas-export[{extra}]'")
        for extra, (package, purpose) in EXTRAS.items()
        if package not in there
    )
    return Diagnosis(
        machine=dict(fingerprint()),
        engines=engines,
        missing=missing,
        kernels=kernels.status().detail,
        warnings=tuple(_warnings(installed, engines)),
    )


def _engine(name: str) -> EngineStatus:
    backend = get_backend(name)
    try:
        return EngineStatus(name, backend.version(), backend.devices(), None)
    except MissingExtra as error:
        return EngineStatus(name, None, (), str(error))
    except (UserError, RuntimeError, AttributeError) as error:
        # A broken install (two wheels in one folder, a missing library) shows in many ways; the doctor names it.
        return EngineStatus(name, None, (), f"{name} is installed but does not start: {error}")


def _warnings(installed: dict[str, str], engines: tuple[EngineStatus, ...]) -> list[str]:
    found = [engine.problem for engine in engines if engine.problem and "does not start" in engine.problem]
    if {"onnxruntime", "onnxruntime-gpu"} <= installed.keys():
        found.append(
            "onnxruntime and onnxruntime-gpu share one folder and overwrite each other; keep one: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'scalenas-export[cuda]'"
        )
    runtime = next((engine for engine in engines if engine.name == "onnxruntime"), None)
    if "onnxruntime-gpu" in installed and runtime and not any(device.name != "cpu" for device in runtime.devices):
        found.append("onnxruntime-gpu is installed, but no NVIDIA GPU was found (nvidia-smi lists none)")
    quota, processors = cpu_quota(), cpu_affinity()
    if quota is not None and quota < processors:
        found.append(
            f"the control group allows {quota:g} of {processors} processors: engines start a thread for each and get "
            f"throttled; pass --threads {max(1, int(quota))}"
        )
    if "openvino-telemetry" in installed and _telemetry_allowed():
        found.append("OpenVINO reports each import to Intel over the network; to end that: opt_in_out --opt_out")
    if not any(engine.devices for engine in engines):
        found.append("no engine is installed, so nothing can run; add one: pip install 'scalenas-export[onnxruntime]'")
    return found


def _telemetry_allowed() -> bool:
    # What `opt_in_out --opt_out` writes; no file means that reports are sent.
    answer = Path.home() / "intel" / "openvino_telemetry"
    return not answer.is_file() or answer.read_text().strip() != "0"
