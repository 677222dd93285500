"""ONNX Runtime: the CPU provider, and CUDA where its wheel and a GPU are there.

The engine folder holds a copy of the ONNX file and is portable. Graph optimisation runs at load: saved optimised
graphs are either tied to the CPU (layout changes) or slower when run as they are, and save some ten milliseconds.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from scalenas_runtime.backends.base import Backend, Device, Kind, LayerTime, import_engine, property_text, static_shape
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import utf8_path
from scalenas_runtime.fingerprint import cpu_affinity, cpu_model, nvidia_gpus, physical_cores
from scalenas_runtime.session import Array, Feeds, Session, TensorSpec
from scalenas_runtime.targets import EngineConfig

MODEL_FILE = "model.onnx"
_SPINNING, _STOPS = "session.intra_op.allow_spinning", "session.force_spinning_stop"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntime(Backend):
    """Runs a model at the precision its graph has: fp32 here, since no provider lowers it by itself."""

    name = "onnxruntime"
    extra = "onnxruntime"

    def version(self) -> str:
        """Returns the version of ONNX Runtime."""
        return str(_package().__version__)

    def devices(self) -> tuple[Device, ...]:
        """Returns the CPU, and each NVIDIA GPU when the CUDA provider is in the wheel."""
        providers = _package().get_available_providers()
        found = [Device("cpu", f"{cpu_model()} (CPU)", ("fp32",))]
        if "CUDAExecutionProvider" in providers:
            found += [Device(f"cuda{gpu['index']}", gpu["name"], ("fp32",), host_memory=False) for gpu in nvidia_gpus()]
        return tuple(found)

    def profile(self, model: Path, config: EngineConfig, feeds: Sequence[Feeds]) -> tuple[LayerTime, ...]:
        """Returns the time of each node of the optimised graph, from ONNX Runtime's own trace."""
        self._check_config(model, config)
        with tempfile.TemporaryDirectory() as folder:
            options = _options(config)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")
            engine = _open(model, config, options)
            for feed in feeds:
                engine.run(None, dict(feed))
            trace = Path(engine.end_profiling())
            try:
                events = json.loads(trace.read_text())
            except ValueError:  # ONNX Runtime says nothing when it cannot write all of it
                free = shutil.disk_usage(folder).free
                raise UserError(f"the profile {trace} is incomplete ({free} bytes are free there)") from None
        total: dict[tuple[str, str], float] = defaultdict(float)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                total[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]] += event["dur"]
        return tuple(LayerTime(name, kind, micro / 1000 / len(feeds)) for (name, kind), micro in total.items())

    def _compile(self, model: Path, config: EngineConfig) -> Session:
        return _OnnxRuntimeSession(_open(model, config, _options(config)), config)

    def _build(self, model: Path, config: EngineConfig, folder: Path) -> Kind:
        shutil.copyfile(model, folder / MODEL_FILE)
        # Opened from the copy: a model whose weights lie in a side file fails now, not on the device.
        _open(folder / MODEL_FILE, config, _options(config))
        return "portable"

    def _load(self, folder: Path, config: EngineConfig) -> Session:
        return self._compile(folder / MODEL_FILE, config)


class _OnnxRuntimeSession(Session):
    def __init__(self, engine: Any, config: EngineConfig) -> None:
        options = engine.get_session_options()
        super().__init__(
            _input_specs(engine, config.batch),
            _output_specs(engine, config.batch),
            parallel=_parallel(config),
            properties=property_text(
                {
                    "provider": engine.get_providers()[0],
                    "intra_op_num_threads": options.intra_op_num_threads,
                    "inter_op_num_threads": options.inter_op_num_threads,
                    "graph_optimization_level": "all",
                    "allow_spinning": options.get_session_config_entry(_SPINNING),
                    "force_spinning_stop": options.get_session_config_entry(_STOPS),
                }
            ),
        )
        self._engine = engine

    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        binding = self._engine.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name, array in out.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._engine.run_with_iobinding(binding)

    def _infer_varying(self, feeds: Feeds) -> dict[str, Array]:
        names = [spec.name for spec in self.outputs]
        return dict(zip(names, self._engine.run(names, dict(feeds)), strict=True))

    def _close(self) -> None:
        del self._engine


def _package() -> ModuleType:
    package = import_engine("onnxruntime", "onnxruntime")
    # Sessions are nobody's business; a device id in the user's cache folder is written at import all the same.
    package.disable_telemetry_events()
    return package


def _parallel(config: EngineConfig) -> int:
    if config.hint == "latency":
        return 1
    return config.streams or cpu_affinity()


def _threads() -> int:
    """Returns a thread for every core that this process may run on; ONNX Runtime's own default counts all cores."""
    allowed = cpu_affinity()
    return min(physical_cores() or allowed, allowed)


def _options(config: EngineConfig) -> Any:
    options = _package().SessionOptions()
    # Throughput comes from whole inferences side by side, each on one thread unless the config says otherwise.
    options.intra_op_num_threads = config.threads or (_threads() if config.hint == "latency" else 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # More threads than processors that all spin would keep each other from working.
    spins = options.intra_op_num_threads <= cpu_affinity()
    options.add_session_config_entry(_SPINNING, "1" if spins else "0")
    # Otherwise they spin for some 50 ms after an inference, and take a core from whatever runs next, be it the engine
    # that this one is measured against. Inferences that follow each other take as long with it.
    options.add_session_config_entry(_STOPS, "1" if spins else "0")
    if config.target.device != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _open(model: Path, config: EngineConfig, options: Any) -> Any:
    device = config.target.device
    if device == "cpu":
        wanted: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    else:
        # TF32 would round the inputs of every multiplication to 10 bits, which is not fp32.
        wanted = ("CUDAExecutionProvider", {"device_id": device.removeprefix("cuda"), "use_tf32": "0"})
    name = utf8_path(model)
    try:
        engine = _package().InferenceSession(name, options, providers=[wanted])
    except Exception as error:  # its errors share no base class but Exception
        raise UserError(f"{model}: ONNX Runtime cannot use it: {' '.join(str(error).split())}") from None
    # Without its CUDA libraries the GPU wheel goes to the CPU and only logs it.
    used = engine.get_providers()[0]
    if used != wanted[0]:
        raise UserError(f"{config.target}: ONNX Runtime fell back to {used}; {wanted[0]} could not start")
    return engine


def _input_specs(engine: Any, batch: int) -> list[TensorSpec]:
    return [
        TensorSpec(item.name, _dtype(item), static_shape(item.shape, batch, what=f"input {item.name!r}"))
        for item in engine.get_inputs()
    ]


def _output_specs(engine: Any, batch: int) -> list[TensorSpec]:
    items = engine.get_outputs()
    shapes = [tuple(item.shape) for item in items]
    if not all(isinstance(size, int) for shape in shapes for size in shape):
        # Shape inference left a name for a size: one run tells what it is for this batch.
        feeds = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in _input_specs(engine, batch)}
        shapes = [value.shape for value in engine.run(None, feeds)]
    return [TensorSpec(item.name, _dtype(item), shape) for item, shape in zip(items, shapes, strict=True)]


def _dtype(item: Any) -> str:
    if item.type not in _DTYPES:
        raise UserError(f"{item.name!r} is a {item.type}; tensors of {', '.join(_DTYPES.values())} can be used")
    return _DTYPES[item.type]


BACKEND = OnnxRuntime()
