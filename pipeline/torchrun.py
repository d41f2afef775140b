"""Whether torchrun is at work, asked without waiting for torch itself."""

import os


def under_torchrun() -> bool:
    """Whether torchrun started this process, as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ
