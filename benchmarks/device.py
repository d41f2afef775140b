"""The CUDA device that a benchmark is of, and what it is called."""

import sys

import torch


def cuda_device(module: str) -> torch.device:
    """The device; without one the benchmark `module` ends here, in one line."""
    if not torch.cuda.is_available():
        sys.exit(f"{module}: torch finds no CUDA device here; run it where there is one.")
    return torch.device("cuda")


def called(device: torch.device, on_cpu: str) -> str:
    """The CUDA device by name, or a CPU and what is otherwise there."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"a CPU, {on_cpu}"
