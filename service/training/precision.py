"""Half precision where the hardware multiplies it."""

import torch

from ..runtime.processor import current


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the device multiplies it in hardware: any recent GPU, and CPUs with AVX512-BF16 or AMX."""
    able = torch.cuda.is_bf16_supported() if device.type == "cuda" else current().bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)
