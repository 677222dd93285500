"""The `README.md` inside a bundle: what it is, how to run it, how it was checked, under which terms."""

from __future__ import annotations

from scalenas_runtime.bundle.manifest import Manifest
from scalenas_runtime.parity import ParityRecord, Rung, agreement_text
from scalenas_runtime.tasks import PoseRecipe

_HEAD = "| step | largest difference | relative | agreement | verdict |\n|---|---|---|---|---|\n"


def readme_text(manifest: Manifest, parity: ParityRecord | None) -> str:
    """Returns the README of a bundle as Markdown; it holds nothing that the manifest and the parity record do not."""
    recipe = manifest.task
    weights = manifest.provenance.weights
    if isinstance(recipe, PoseRecipe):
        title = f"top-down pose, {len(recipe.joints)} joints"
        module, wrapper = "pose", "PoseEstimator"
    else:
        title = f"semantic segmentation, {len(recipe.classes)} classes"
        module, wrapper = "segmentation", "Segmenter"
    call = (
        f"from scalenas_runtime.{module} import {wrapper}\n\n"
        f"net = {wrapper}.load('.', 'onnxruntime:cpu/fp32', build='auto')"
    )
    graphs = "\n".join(f"- `{item.file}`: batch {item.batch}, io {item.io}" for item in manifest.models)
    notice = f" {weights.notice}" if weights.notice else ""
    return (
        f"# {manifest.name}\n\n"
        f"A {manifest.schema} bundle made by {manifest.provenance.tool}: {title}, "
        f"input {recipe.height}x{recipe.width} (height x width), uint8 BGR pictures.\n\n{graphs}\n\n"
        "## Run\n\n"
        "```\nscalenas-export inspect .\nscalenas-export verify . --target onnxruntime:cpu/fp32\n"
        "scalenas-export run . PICTURE.jpg\n```\n\n"
        f"```python\n{call}\n```\n\n"
        f"## Checks\n\n{_parity(parity)}\n"
        f"## Weights\n\nSource: {weights.source}. Licence: {weights.licence}.{notice}\n"
    )


def parity_rows(parity: ParityRecord) -> list[list[str]]:
    """Returns one row of texts per rung: step, largest difference, relative error, agreement, verdict.

    Decoded results have agreement alone: pixels and class numbers have no range.
    """
    return [_row(rung) for rung in parity.rungs]


def _row(rung: Rung) -> list[str]:
    comparison = rung.comparison
    verdict = "passed" if rung.verdict.passed else "FAILED"
    if comparison.stage == "decoded":
        return [f"{rung.name}, decoded", "-", "-", agreement_text(comparison), verdict]
    figures = [f"{comparison.max_abs:.3g}", f"{comparison.relative:.2e}"]
    return [rung.name, *figures, agreement_text(comparison), verdict]


def _parity(parity: ParityRecord | None) -> str:
    if parity is None:
        return "No parity record.\n"
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in parity_rows(parity))
