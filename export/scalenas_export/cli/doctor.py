"""`doctor`: what works here, what is missing, and the line that adds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scalenas_export.cli.common import emit, verb
from scalenas_export.cli.tables import table

if TYPE_CHECKING:
    from scalenas_runtime.diagnosis import Diagnosis


@verb("doctor")
@click.option("--target", multiple=True, help="Check that this target can run here; may be given again.")
def command(*, target: tuple[str, ...], as_json: bool) -> None:
    """Show versions, engines, devices and precisions, and what is missing.

    With --target the exit code is 2 when one of the targets cannot run on this machine.
    """
    from scalenas_runtime.backends import get_backend
    from scalenas_runtime.diagnosis import diagnose
    from scalenas_runtime.errors import UserError
    from scalenas_runtime.targets import Target

    for text in target:
        parsed = Target.parse(text)
        if parsed.host is not None:
            raise UserError(f"{text}: this machine is checked; run doctor on {parsed.host}")
        get_backend(parsed.backend).check(parsed)
    diagnosis = diagnose()
    plain: dict[str, Any] = {
        "machine": diagnosis.machine,
        "engines": [
            {
                "name": engine.name,
                "version": engine.version,
                "problem": engine.problem,
                "devices": [
                    {"name": item.name, "description": item.description, "precisions": list(item.precisions)}
                    for item in engine.devices
                ],
            }
            for engine in diagnosis.engines
        ],
        "targets": list(diagnosis.targets),
        "missing": [{"name": item.name, "purpose": item.purpose, "remedy": item.remedy} for item in diagnosis.missing],
        "kernels": diagnosis.kernels,
        "warnings": list(diagnosis.warnings),
    }
    emit(plain, "\n".join(_lines(diagnosis, target)), as_json=as_json)


def _lines(diagnosis: Diagnosis, checked: tuple[str, ...]) -> list[str]:
    machine: Any = diagnosis.machine
    cpu = machine["cpu"]
    limit = "no limit" if cpu["quota"] is None else f"limited to {cpu['quota']:g}"
    memory = machine["memory_mib"]
    lines = [
        f"system    {machine['os']}, Python {machine['python']}" + (", container" if machine["container"] else ""),
        f"cpu       {cpu['model']}: {cpu['logical_cores']} processors, {cpu['affinity']} usable, {limit}; "
        f"load {machine['load']}",
        f"flags     {' '.join(cpu['flags']) or 'unknown'}",
        f"memory    {'unknown' if memory is None else f'{memory / 1024:.1f} GiB'}",
        f"gpus      {', '.join(gpu['name'] for gpu in machine['gpus']) or 'none listed by nvidia-smi'}",
        f"kernels   {diagnosis.kernels}",
        f"packages  {', '.join(f'{name} {version}' for name, version in machine['packages'].items())}",
        "",
    ]
    rows = [
        [engine.name, engine.version or "-", device.name, " ".join(device.precisions), device.description]
        for engine in diagnosis.engines
        for device in engine.devices
    ]
    rows += [[engine.name, "-", "-", "-", engine.problem or ""] for engine in diagnosis.engines if not engine.devices]
    lines.append(table(("engine", "version", "device", "precisions", "what"), rows))
    if diagnosis.missing:
        lines += [
            "",
            table(("missing", "for", "add it with"), [[i.name, i.purpose, i.remedy] for i in diagnosis.missing]),
        ]
    lines += ["", *(f"warning: {text}" for text in diagnosis.warnings)] if diagnosis.warnings else []
    lines += ["", *(f"{text} can run here" for text in checked)] if checked else []
    return lines
