"""Convolutions in bfloat16, where the device has units of its own for it: half the time or less."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def quick(x: Tensor) -> AbstractContextManager[object]:
    """Within it, products of what follows from `x` are of bfloat16 numbers, if that is quick."""
    if x.is_cuda:
        able = torch.cuda.get_device_capability(x.device) >= (8, 0)
    else:
        able = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.autocast(x.device.type, torch.bfloat16, enabled=able)
