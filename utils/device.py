"""Which device computes."""

import torch

from utils.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """'auto' -> CUDA if there is one, else Apple's MPS, else the CPU; other names as in torch.

    Raises:
        UserError: the name is no device, or this machine has none of that kind.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, there in available.items() if there), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"{name}: no such device; use auto, cuda, mps or cpu", setting="device"
        ) from None
    if not available.get(device.type, device.type == "cpu"):
        raise UserError(f"{name}: not available on this machine; use auto or cpu", setting="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"{name}: this machine has {count} GPU(s)", setting="device")
    return device


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices at least as fast as fp32 ones."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
