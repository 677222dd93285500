"""OpenVINO: CPU, GPU and NPU by name.

The engine folder holds `model.blob`, what the device plugin exports (native: bound to the version and the CPU's
instruction sets), and beside it the same net as OpenVINO IR for other programs. A device that exports nothing runs
the IR (portable).
"""

from __future__ import annotations

import queue
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from scalenas_runtime.backends.base import Backend, Device, Kind, LayerTime, import_engine, property_text, static_shape
from scalenas_runtime.errors import UserError
from scalenas_runtime.session import Array, Feeds, Session, TensorSpec
from scalenas_runtime.targets import EngineConfig

BLOB_FILE, IR_FILE = "model.blob", "model.xml"
# Our precision: the hint's value, and the capability that a device must list for it.
_PRECISIONS = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}
_RECORDED = (
    *("INFERENCE_PRECISION_HINT", "EXECUTION_MODE_HINT", "PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS"),
    *("ENABLE_CPU_PINNING", "ENABLE_HYPER_THREADING", "SCHEDULING_CORE_TYPE", "EXECUTION_DEVICES"),
)


class OpenVino(Backend):
    """Compiles with every choice written out, since OpenVINO's own default precision depends on the device."""

    name = "openvino"
    extra = "openvino"
    native_files = (BLOB_FILE,)

    def version(self) -> str:
        """Returns the release of OpenVINO, without its build number."""
        return str(_package().__version__).split("-")[0]

    def devices(self) -> tuple[Device, ...]:
        """Returns OpenVINO's devices: `cpu`, `gpu` or `gpu0`, `gpu1`, ..., `npu`."""
        core = _core()
        found = []
        for name in core.available_devices:
            able = core.get_property(name, "OPTIMIZATION_CAPABILITIES")
            precisions = tuple(ours for ours, (_, need) in _PRECISIONS.items() if need in able)
            kind = name.partition(".")[0]
            description = f"{core.get_property(name, 'FULL_DEVICE_NAME')} ({kind})"
            found.append(Device(_our_name(name), description, precisions, host_memory=kind == "CPU"))
        return tuple(found)

    def equivalent_command(self, model: Path, config: EngineConfig, seconds: float) -> str:
        """Returns the `benchmark_app` line with the same precision, threads, streams and duration.

        Raises:
            UserError: the target is on another host.
        """
        config.target.check_here()
        latency = config.hint == "latency"
        words = ["benchmark_app", "-m", str(model), "-d", _their_name(config.target.device)]
        words += ["-infer_precision", _PRECISIONS[config.target.precision][0], "-t", str(max(1, round(seconds)))]
        if config.threads is None and config.streams is None:
            words += ["-hint", config.hint]
        else:  # the tool takes explicit numbers only together with `-hint none`
            words += ["-hint", "none", "-nstreams", str(config.streams or (1 if latency else "AUTO"))]
            words += ["-nthreads", str(config.threads)] if config.threads else []
        return shlex.join([*words, *(["-api", "sync"] if latency else ["-api", "async"])])

    def profile(self, model: Path, config: EngineConfig, feeds: Sequence[Feeds]) -> tuple[LayerTime, ...]:
        """Returns the time of each executed node, from OpenVINO's performance counters."""
        self._check_config(model, config)
        compiled = _compile(model, config, {"PERF_COUNT": True})
        request = compiled.create_infer_request()
        total: dict[tuple[str, str], float] = defaultdict(float)
        for feed in feeds:
            request.infer(dict(feed))
            for info in request.profiling_info:
                if str(info.status).endswith("EXECUTED"):
                    total[info.node_name, f"{info.node_type}:{info.exec_type}"] += info.real_time.total_seconds()
        return tuple(LayerTime(name, kind, 1000 * time / len(feeds)) for (name, kind), time in total.items())

    def _compile(self, model: Path, config: EngineConfig) -> Session:
        return _OpenVinoSession(_compile(model, config, {}), config)

    def _build(self, model: Path, config: EngineConfig, folder: Path) -> Kind:
        package = _package()
        network = _read(_core(), model, config.batch)
        _copy_metadata(network)
        package.save_model(network, folder / IR_FILE, compress_to_fp16=False)
        device = _their_name(config.target.device)
        if "EXPORT_IMPORT" not in _core().get_property(device, "OPTIMIZATION_CAPABILITIES"):
            return "portable"
        (folder / BLOB_FILE).write_bytes(_compile(model, config, {}).export_model().getvalue())
        return "native"

    def _load(self, folder: Path, config: EngineConfig) -> Session:
        blob = folder / BLOB_FILE
        if not blob.exists():
            return self._compile(folder / IR_FILE, config)
        device = _their_name(config.target.device)
        try:
            # The properties are given again: a CPU blob of f32 imported without them runs in bf16.
            compiled = _core().import_model(blob.read_bytes(), device, _properties(config))
        except RuntimeError as error:
            raise UserError(f"{blob} does not fit this machine: {_reason(error)}") from None
        return _OpenVinoSession(_confirmed(compiled, config), config)


class _OpenVinoSession(Session):
    def __init__(self, compiled: Any, config: EngineConfig) -> None:
        package = _package()
        latency = config.hint == "latency"
        parallel = 1 if latency else int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        super().__init__(
            [_spec(port) for port in compiled.inputs],
            [_spec(port) for port in compiled.outputs],
            parallel=parallel,
            properties=_recorded(compiled),
        )
        self._tensor = package.Tensor
        self._compiled = compiled
        self._inputs = {port.get_any_name(): index for index, port in enumerate(compiled.inputs)}
        self._outputs = {port.get_any_name(): index for index, port in enumerate(compiled.outputs)}
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(parallel):
            self._requests.put(compiled.create_infer_request())

    def _infer(self, feeds: Feeds, out: Mapping[str, Array]) -> None:
        request = self._requests.get()
        try:
            for name, array in feeds.items():
                shared = array.flags.writeable  # OpenVINO shares writeable arrays only; others are copied
                request.set_input_tensor(self._inputs[name], self._tensor(array, shared_memory=shared))
            for name, array in out.items():
                request.set_output_tensor(self._outputs[name], self._tensor(array, shared_memory=True))
            if self.parallel == 1:
                request.infer(share_outputs=True)
            else:
                request.start_async()
                request.wait()
        finally:
            self._requests.put(request)

    def _close(self) -> None:
        while not self._requests.empty():
            self._requests.get()
        del self._compiled


def _package() -> ModuleType:
    return import_engine("openvino", "openvino")


def _core() -> Any:
    return _core_of(_package())


@lru_cache(maxsize=1)
def _core_of(package: ModuleType) -> Any:
    """Returns the one core of this process.

    The CPU plugin of a core changes the thread's alternate signal stack and puts the earlier one back when it goes. Two
    cores that end in the order in which they began leave a stack behind that is freed, on which the next signal (Ctrl-C
    too) ends the process.
    """
    return package.Core()


def _our_name(device: str) -> str:
    return device.lower().replace(".", "")


def _their_name(device: str) -> str:
    kind = device.rstrip("0123456789")
    number = device[len(kind) :]
    return kind.upper() + (f".{number}" if number else "")


def _properties(config: EngineConfig) -> dict[str, Any]:
    precision = config.target.precision
    chosen: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision][0],
        "EXECUTION_MODE_HINT": "ACCURACY" if precision == "fp32" else "PERFORMANCE",
        "PERFORMANCE_HINT": config.hint.upper(),
    }
    if config.hint == "latency" and config.target.device == "cpu":
        chosen["NUM_STREAMS"] = "1"
    elif config.streams is not None:
        chosen["NUM_STREAMS"] = str(config.streams)
    if config.threads is not None:
        chosen["INFERENCE_NUM_THREADS"] = config.threads
    return chosen


def _read(core: Any, model: Path, batch: int) -> Any:
    try:
        network = core.read_model(model)
    except RuntimeError as error:
        raise UserError(f"{model}: OpenVINO cannot read it: {_reason(error)}") from None
    shapes = {}
    for index, port in enumerate(network.inputs):
        sizes = [size.get_length() if size.is_static else "?" for size in port.partial_shape]
        shapes[index] = static_shape(sizes, batch, what=f"input {port.get_any_name()!r}")
    if any(port.partial_shape.is_dynamic for port in network.inputs):
        network.reshape(shapes)
    return network


def _compile(model: Path, config: EngineConfig, extra: dict[str, Any]) -> Any:
    core = _core()
    network = _read(core, model, config.batch)
    device = _their_name(config.target.device)
    try:
        compiled = core.compile_model(network, device, {**_properties(config), **extra})
    except RuntimeError as error:
        raise UserError(f"{model}: OpenVINO cannot compile it for {config.target}: {_reason(error)}") from None
    return _confirmed(compiled, config)


def _confirmed(compiled: Any, config: EngineConfig) -> Any:
    # Asked for f16, this release's CPU plugin runs bf16 without a word: what counts is what it says it runs.
    runs = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    wanted = _PRECISIONS[config.target.precision][0]
    if runs != wanted:
        raise UserError(f"{config.target}: OpenVINO runs this engine in {runs}, not in {wanted}")
    return compiled


def _copy_metadata(network: Any) -> None:
    # Keys such as `model_info labels` of the ONNX file arrive under `framework`; Model API reads them one level up.
    if not network.has_rt_info("framework"):
        return
    for key, value in network.get_rt_info("framework").astype(dict).items():
        network.set_rt_info(value.value if hasattr(value, "value") else value, key.split())


def _spec(port: Any) -> TensorSpec:
    if port.partial_shape.is_dynamic:
        raise UserError(
            f"{port.get_any_name()!r} has the dynamic shape {port.partial_shape}; export it with fixed sizes"
        )
    return TensorSpec(port.get_any_name(), port.element_type.to_dtype().name, tuple(port.shape))


def _recorded(compiled: Any) -> dict[str, str]:
    known = compiled.get_property("SUPPORTED_PROPERTIES")
    values = {name: compiled.get_property(name) for name in _RECORDED if name in known}
    return property_text({name: getattr(value, "to_string", value.__str__)() for name, value in values.items()})


def _reason(error: Exception) -> str:
    # Its errors are several lines, of which the file names and conditions help nobody.
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("Exception from", "Check '")))


BACKEND = OpenVino()
