"""Which device and precision the networks run on."""

from __future__ import annotations

import logging

import torch

from ICHAnalysisLib.errors import UsageError

logger = logging.getLogger(__name__)


def choose_device(name: str = "auto") -> torch.device:
    """The device asked for, or the best one there is; a missing one is said and replaced by the CPU.

    Raises UsageError for a name that does not exist.
    """
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise UsageError(f"Device {name!r} does not exist; choose auto, cpu, cuda or mps.")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available[name]:
        logger.warning("The device %s is not available here; the CPU is used instead.", name)
        return torch.device("cpu")
    return torch.device(name)


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively (AVX512-BF16, AMX, CUDA since Ampere), else float32.

    Elsewhere bfloat16 on a CPU is emulated and slower, and float16 is far slower.
    """
    if device.type == "cpu":
        supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if supported and _native_bf16() else torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def _native_bf16() -> bool:
    """True on a CPU with bfloat16 dot products, as its own flags say."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    if "AVX512" not in capabilities and "AMX" not in capabilities:
        return False
    checks = (getattr(torch.cpu, "_is_avx512_bf16_supported", None), getattr(torch.cpu, "_is_amx_tile_supported", None))
    return any(check() for check in checks if check is not None)
