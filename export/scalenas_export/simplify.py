"""Simplification by onnxsim, kept only where ONNX Runtime computes the same from both graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalenas_export.onnx_export import strip
from scalenas_runtime.parity import Comparison, Tolerance, Verdict

if TYPE_CHECKING:
    from onnx import ModelProto

# Both sides are fp32 in one engine; the order of additions may change, nothing else.
TOLERANCE = Tolerance(
    relative=1e-5,
    joint_shift_p99=0.05,
    class_agreement=0.999,
    reason="both sides run in one engine at fp32, so the range error of an fp32 rung is held ten times tighter",
)

Judge = Callable[["ModelProto"], tuple[Comparison, Verdict]]


@dataclass(frozen=True, slots=True)
class Simplified:
    """What became of a graph.

    Attributes:
        model: The simplified graph, or the one that was given where simplification was rolled back.
        comparison: Simplified against given; None where there was nothing to compare.
        warning: Why it was rolled back; empty where it was not.
    """

    model: ModelProto
    comparison: Comparison | None
    verdict: Verdict | None
    warning: str = ""


def simplify(
    model: ModelProto, judge: Judge, *, simplifier: Callable[[ModelProto], ModelProto] | None = None
) -> Simplified:
    """Returns a simplified graph that `judge` found equal to the given one, or the given one with a warning.

    Args:
        model: Any graph.
        judge: Runs a candidate on real-looking pictures and compares it with `model`.
        simplifier: What simplifies; onnxsim by default.
    """
    try:
        candidate = (simplifier or onnxsim)(model)
        comparison, verdict = judge(candidate)
    except Exception as error:  # onnxsim and engines raise anything, and none of it may cost the user the export
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Simplified(model, None, None, f"simplification failed and was rolled back ({reason})")
    if not verdict.passed:
        reasons = "; ".join(verdict.reasons)
        return Simplified(
            model, comparison, verdict, f"simplification changed the outputs and was rolled back ({reasons})"
        )
    return Simplified(candidate, comparison, verdict)


def onnxsim(model: ModelProto) -> ModelProto:
    """Returns the graph as onnxsim simplifies it, without the inner shapes it adds.

    Raises:
        RuntimeError: onnxsim's own check failed.
    """
    import onnxsim as package

    simplified, agrees = package.simplify(model)
    if not agrees:
        raise RuntimeError("onnxsim found its own result to differ")
    result: ModelProto = simplified
    strip(result, ir_version=model.ir_version)
    return result
