"""Whether a device computes in the precision that a run asks for, or imitates it."""

from __future__ import annotations

import torch

from scalenas.training.config import TrainConfig

_ONEDNN = "_is_mkldnn_bf16_supported"


def precision_note(config: TrainConfig, device: torch.device) -> str | None:
    """Returns a line where `bf16` is asked of a device that only imitates it, which is slow; None elsewhere."""
    if config.precision != "bf16" or computes_bf16(device):
        return None
    name = "GPU" if device.type == "cuda" else "CPU"
    return f"this {name} has no bfloat16 arithmetic and imitates it: precision=fp32 is likely to be faster here"


def computes_bf16(device: torch.device) -> bool:
    """Returns whether a device has bfloat16 arithmetic of its own, as far as torch knows."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN's own answer has no public name.
    return hasattr(torch.ops.mkldnn, _ONEDNN) and bool(getattr(torch.ops.mkldnn, _ONEDNN)())
