"""Whether torchrun is at work, asked without waiting for torch itself."""

import os

# In the environment of processes that a stage started: its own number, and the file they meet by.
LAUNCHER, MEETING = "CAD_LAUNCHER", "CAD_MEETING"


def under_torchrun() -> bool:
    """Whether torchrun started this process, as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ
