"""Where the arithmetic runs."""

import os

import torch

from pipeline.errors import PipelineError
from pipeline.sections import Runtime


def prepare_cpu(runtime: Runtime) -> torch.device:
    """Set the number of threads, for what runs on a CPU whatever `device` says.

    A CPU gives the same bytes for the same number of threads.

    Numbers too small to be normal count as 0: moments of Adam that no gradient reaches shrink to
    such numbers, with which a step takes 20 times as long. Threads take this over when they begin,
    so it must be called before torch has done anything with several.
    """
    torch.set_flush_denormal(True)
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    return torch.device("cpu")


def prepare_device(runtime: Runtime) -> torch.device:
    """Choose the device, and prepare the CPU as well; CUDA is never replaced in silence.

    A CUDA device gives the same bytes each time only under `deterministic`; torch warns of an
    operation that has no such form.

    Of the processes that torchrun started, each takes the CUDA device of its number.

    Raises:
        PipelineError: `device: cuda` where there is none, or fewer than processes.
    """
    cpu = prepare_cpu(runtime)
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise PipelineError(
            "params.yaml: runtime.device is cuda, but torch finds no CUDA device here; "
            "set it to auto or cpu."
        )
    use_cuda = runtime.device != "cpu" and torch.cuda.is_available()
    if use_cuda and (number := os.environ.get("LOCAL_RANK")) is not None:
        if int(number) >= (there := torch.cuda.device_count()):
            raise PipelineError(
                f"process {number} of this machine has no CUDA device of its own: there are "
                f"{there}; start at most {there} processes, or set runtime.device to cpu."
            )
        torch.cuda.set_device(int(number))
    if use_cuda and runtime.deterministic:
        # Read by cuBLAS when it starts: without a workspace of its own it may sum in any order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    return torch.device("cuda") if use_cuda else cpu


def describe(device: torch.device) -> str:
    """The device in words, such as "NVIDIA H200" or "CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"
