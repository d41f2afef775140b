"""Whether torchrun is at work, asked without waiting for torch itself."""

import os

LAUNCHER = "CAD_LAUNCHER"  # in the environment of processes that a stage started: its own number


def under_torchrun() -> bool:
    """Whether torchrun started this process, as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ
