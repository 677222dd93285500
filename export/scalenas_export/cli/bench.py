"""`bench`: latency and throughput of engines on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from scalenas_export.cli.common import emit, new_run_folder, note, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import MissingExtra, UserError

if TYPE_CHECKING:
    from scalenas_runtime.measure import MeasureJob
    from scalenas_runtime.targets import EngineConfig, Target

_LONGEST = 1e7


@verb("bench")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--target", multiple=True, help="backend:device/precision; again for more. A bundle's own, or all that work here."
)
@click.option("--grade", type=click.Choice(["search", "standard", "report"]), default="standard", show_default=True)
@click.option("--stat", type=click.Choice(["median", "p90", "p95", "p99"]), default="median", show_default=True)
@click.option("--seconds", type=float, help="Timed seconds a target, instead of the grade's seconds and samples.")
@click.option("--boundary", help="engine_wall, engine_wall_io, pipeline or paced@<fps>; the device's engine boundary.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures in one inference.")
@click.option("--hint", type=click.Choice(["latency", "throughput"]), default="latency", show_default=True)
@click.option("--streams", type=click.IntRange(min=1), help="Parallel inferences, with --hint throughput.")
@click.option("--io", type=click.Choice(["raw", "end2end"]), default="raw", show_default=True)
@click.option("--persons", type=click.IntRange(min=1), default=1, show_default=True, help="Boxes a picture: pipeline.")
@click.option("--reference", type=click.Path(path_type=Path), help="ONNX measured before and after, against drift.")
@click.option("--per-layer", is_flag=True, help="Also profile each layer.")
@click.option("--export-times", type=click.Path(path_type=Path), help="Write every sample to a .json or .csv file.")
@click.option("--print-equivalent", is_flag=True, help="Print the engine's own tool that measures the same, and stop.")
@click.option("--timeout", type=float, default=600.0, show_default=True, help="Seconds until a hung engine is ended.")
def command(  # noqa: PLR0913 - one parameter per option
    *,
    model: Path,
    target: tuple[str, ...],
    grade: str,
    stat: str,
    seconds: float | None,
    boundary: str | None,
    threads: int | None,
    batch: int,
    hint: Literal["latency", "throughput"],
    streams: int | None,
    io: Literal["raw", "end2end"],
    persons: int,
    reference: Path | None,
    per_layer: bool,
    export_times: Path | None,
    print_equivalent: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Measure MODEL, a bundle or an ONNX file, on every target, in turns and in processes of their own.

    The record, the raw samples and the machine's description go to runs/bench/<n>.
    """
    from scalenas_runtime.measure import MeasureJob, Plan, run_jobs
    from scalenas_runtime.measure import output as results
    from scalenas_runtime.targets import EngineConfig, Target

    if not model.exists():
        raise UserError(f"{model} does not exist; name a bundle or an ONNX file")
    if not 0 < timeout <= _LONGEST:
        raise UserError(f"--timeout is a positive number of seconds, at most {_LONGEST:.0e}, got {timeout}")
    if export_times is not None and export_times.suffix not in (".json", ".csv"):
        raise UserError(f"times are exported as .json or .csv, got {export_times}")
    targets = [Target.parse(text) for text in dict.fromkeys(target)] or _targets(model)
    configs = [EngineConfig(item, threads, hint, streams, batch, io) for item in targets]
    if print_equivalent:
        lines = [line for config in configs if (line := _equivalent(model, config, seconds))]
        if not lines:
            raise UserError("no tool measures the same: of the engines here only openvino brings one (benchmark_app)")
        emit({"commands": [*lines]}, "\n".join(lines), as_json=as_json)
        return
    jobs = [
        MeasureJob(model, config, grade, boundary or _boundary(config), stat, seconds, persons) for config in configs
    ]
    other = None
    if reference:
        other = replace(jobs[0], model=reference, boundary=_boundary(configs[0]), seconds=None, persons=1)
    with new_run_folder("bench") as folder:  # first, so that a read-only place shows before minutes of measuring
        records = run_jobs(jobs, Plan(reference=other, timeout=timeout, progress=note))
        layers = {str(job.config.target): _layers(job) for job in jobs} if per_layer else {}
        results.save(folder, records)
    if export_times is not None:
        results.export_times(export_times, records)
    text = [table(results.COLUMNS, results.rows(records)), *results.remarks(records)]
    text += [_layer_table(name, rows) for name, rows in layers.items()]
    plain: dict[str, Json] = {
        "measurements": [record.without_samples() for record in records],
        "layers": {name: [*rows] for name, rows in layers.items()},
        "folder": str(folder),
    }
    emit(plain, "\n".join([*text, f"records and samples: {folder}"]), as_json=as_json)


def _targets(model: Path) -> list[Target]:
    """Returns the targets that a bundle has engines for, or else all that work here."""
    from scalenas_runtime.backends import BACKENDS, get_backend
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.targets import Target

    if model.suffix != ".onnx" and (own := Bundle.open(model).targets()):
        return [Target.parse(text) for text in own]
    found = []
    for name in BACKENDS:
        try:
            devices = get_backend(name).devices()
        except MissingExtra:
            continue
        found += [Target(name, device.name, precision) for device in devices for precision in device.precisions]
    if not found:
        raise UserError("no engine is installed; add one with: pip install 'scalenas-export[onnxruntime]'")
    return found


def _boundary(config: EngineConfig) -> str:
    from scalenas_runtime.backends import get_backend

    device = get_backend(config.target.backend).check(config.target)
    return "engine_wall" if device.host_memory else "engine_wall_io"


def _graph(model: Path, config: EngineConfig) -> Path:
    from scalenas_runtime.bundle import Bundle

    return model if model.suffix == ".onnx" else Bundle.open(model).model(config.batch, config.io)


def _equivalent(model: Path, config: EngineConfig, seconds: float | None) -> str | None:
    from scalenas_runtime.backends import get_backend

    return get_backend(config.target.backend).equivalent_command(_graph(model, config), config, seconds or 10.0)


def _layers(job: MeasureJob) -> list[dict[str, Json]]:
    """Returns the executed layers, the slowest first."""
    from scalenas_runtime.backends import get_backend
    from scalenas_runtime.measure.subject import noise

    backend, graph = get_backend(job.config.target.backend), _graph(job.model, job.config)
    with backend.compile(graph, job.config) as session:
        feeds = noise(session.inputs, job.seed, count=20)
    layers = sorted(backend.profile(graph, job.config, feeds), key=lambda layer: -layer.milliseconds)
    return [{"name": layer.name, "kind": layer.kind, "milliseconds": layer.milliseconds} for layer in layers]


def _layer_table(target: str, layers: Sequence[dict[str, Json]], limit: int = 20) -> str:
    times = [float(str(layer["milliseconds"])) for layer in layers]
    total = sum(times) or 1.0
    rows = [
        [str(layer["name"]), str(layer["kind"]), f"{time:.3f}", f"{100 * time / total:.1f} %"]
        for layer, time in zip(layers[:limit], times, strict=False)
    ]
    rest = f"\n... {len(layers) - limit} more in --json" if len(layers) > limit else ""
    return f"\n{target}, slowest layers\n{table(('layer', 'ran as', 'ms', 'share'), rows)}{rest}"
