"""`verify`: do a bundle's engines, or two ONNX files, agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from scalenas_export.cli.common import emit, note, verb
from scalenas_export.cli.tables import table
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import CheckFailed, UserError
from scalenas_runtime.files import write_bytes

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.parity import Comparison
    from scalenas_runtime.targets import EngineConfig
    from scalenas_runtime.verify import VerifyReport

EXAMPLE = "onnxruntime:cpu/fp32"
_HEADS = ("target", "pictures", "max abs", "relative", "agreement", "decoded", "seconds", "verdict")


@verb("verify")
@click.argument("paths", metavar="BUNDLE | A.onnx B.onnx", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--target", multiple=True, help="backend:device/precision; all of the bundle's by default.")
@click.option("--batch", type=int, help="Pictures in one inference; that of each engine, or 1 with --target or --io.")
@click.option("--threads", type=int, help="CPU threads of one inference.")
@click.option(
    "--io",
    type=click.Choice(["raw", "end2end"]),
    help="Form of the graph; that of each engine, or raw with --target or --batch.",
)
@click.option("--worst", type=click.Path(path_type=Path), help="Write the worst picture of each target here.")
@click.option("--trust", is_flag=True, help="Load native engines from other machines.")
def command(  # noqa: PLR0913 - one parameter per option
    *,
    paths: tuple[Path, ...],
    target: tuple[str, ...],
    batch: int | None,
    threads: int | None,
    io: str | None,
    worst: Path | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Run golden pictures through each engine and compare with the recorded outputs.

    Without --target, --batch and --io these are all engines of the bundle that fit here, of any batch and form.
    With two ONNX files: run both on the same inputs (noise and drawn people) and compare. Exit code 4 when a
    figure is outside the tolerance of the target's precision.
    """
    from scalenas_runtime.targets import EngineConfig, Target

    form: Literal["raw", "end2end"] = "end2end" if io == "end2end" else "raw"
    size = 1 if batch is None else batch

    def config(text: str) -> EngineConfig:
        return EngineConfig(Target.parse(text), threads=threads, batch=size, io=form)

    def configs(bundle: Bundle) -> list[EngineConfig]:
        if target:
            return [config(text) for text in target]
        own = _own_configs(bundle)
        if batch is None and io is None:
            return [replace(each, threads=threads) for each in own]
        return [config(text) for text in sorted({str(each.target) for each in own})]

    if len(paths) == 2:
        if worst is not None or trust:
            raise UserError("--worst and --trust are for a bundle; leave them out to compare two ONNX files")
        if len(target) > 1:
            raise UserError(f"two models are compared on one target, got {', '.join(target)}")
        _verify_models(paths[0], paths[1], config((target or (EXAMPLE,))[0]), as_json=as_json)
    elif len(paths) == 1:
        _verify_bundle(paths[0], configs, worst=worst, trust=trust, as_json=as_json)
    else:
        raise UserError(f"verify takes one bundle or two ONNX files, got {len(paths)} paths")


def _verify_bundle(
    path: Path,
    configs: Callable[[Bundle], list[EngineConfig]],
    *,
    worst: Path | None,
    trust: bool,
    as_json: bool,
) -> None:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.records import to_plain
    from scalenas_runtime.verify import verify

    bundle = Bundle.open(path, trust=trust)
    reports = []
    for config in configs(bundle):
        report = verify(bundle, config, build="auto")
        reports.append(report)
        if worst is not None:
            note(f"wrote {_write_worst(bundle, config, report, worst)}")
    value: Json = {"bundle": str(path), "reports": [to_plain(report) for report in reports]}
    emit(value, table(_HEADS, [_row(report) for report in reports]) + _notes(reports), as_json=as_json)
    wrong = [report for report in reports if not report.verdict.passed]
    failed = [f"{_engine_name(report)}: {'; '.join(report.verdict.reasons)}" for report in wrong]
    if failed:
        raise CheckFailed(f"{path} does not verify on {'; '.join(failed)}")


def _verify_models(reference: Path, candidate: Path, config: EngineConfig, *, as_json: bool) -> None:
    from scalenas_runtime.records import to_plain
    from scalenas_runtime.verify import verify_models

    report = verify_models(reference, candidate, config)
    rows = [[name, *_figures(comparison)] for name, comparison in report.outputs.items()]
    text = table(("output", "max abs", "relative", "cosine"), [[row[0], row[1], row[2], row[4]] for row in rows])
    verdict = "passed" if report.verdict.passed else "FAILED"
    emit(to_plain(report), f"{text}\non {report.target}, inputs: {report.inputs}: {verdict}", as_json=as_json)
    if not report.verdict.passed:
        failed = [reason for reason in report.verdict.reasons if "no task recipe" not in reason]
        raise CheckFailed(f"{reference} and {candidate} differ: {'; '.join(failed)}")


def _own_configs(bundle: Bundle) -> list[EngineConfig]:
    """Returns target, batch and form of each engine of the bundle that fits here, sorted."""
    from scalenas_runtime.targets import EngineConfig, Target

    engines = bundle.engines()
    for engine in engines:
        if not engine.fits:
            note(f"passed over engines/{engine.name}: {engine.reason}")
    stated = [engine.entry for engine in engines if engine.fits]
    found = sorted({(entry.target, entry.config["batch"], entry.config["io"]) for entry in stated})
    if not found:
        raise UserError(
            f"{bundle.path} holds no engine that fits here; name what to verify, such as --target {EXAMPLE}"
        )
    return [EngineConfig(Target.parse(text), batch=batch, io=io) for text, batch, io in found]


def _engine_name(report: VerifyReport) -> str:
    from scalenas_runtime.bundle.engines import describe_config

    return describe_config(report.config)


def _write_worst(bundle: Bundle, config: EngineConfig, report: VerifyReport, folder: Path) -> Path:
    from scalenas_runtime.verify import worst_picture

    name = report.target.replace(":", "-").replace("/", "-")
    name += (f"-b{config.batch}" if config.batch != 1 else "") + (f"-{config.io}" if config.io != "raw" else "")
    path = folder / f"{name}-{report.worst}.png"
    write_bytes(path, worst_picture(bundle, config, report.worst))
    return path


def _row(report: VerifyReport) -> list[str]:
    from scalenas_runtime.parity import agreement_text

    first = report.undecoded or report.decoded
    verdict = ("passed" if report.verdict.informative else "passed*") if report.verdict.passed else "FAILED"
    figures = _figures(first)
    if report.undecoded is None:
        figures[:2] = ["-", "-"]
    return [
        _engine_name(report),
        str(report.pictures),
        *figures[:3],
        agreement_text(report.decoded),
        f"{report.seconds:.1f}",
        verdict,
    ]


def _figures(comparison: Comparison) -> list[str]:
    from scalenas_runtime.parity import agreement_text

    return [
        f"{comparison.max_abs:.3g}",
        f"{comparison.relative:.2e}",
        agreement_text(comparison),
        f"{comparison.cosine:.8f}",
    ]


def _notes(reports: list[VerifyReport]) -> str:
    lines = {f"\n* {reason}" for report in reports if report.verdict.passed for reason in report.verdict.reasons}
    return "".join(sorted(lines))
