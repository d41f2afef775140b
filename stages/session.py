"""What a stage trains by: its device, progress, checkpoint, and the processes that share it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.training.session import Session
from stages.checkpoint import checkpoint
from stages.progress import EpochReporter
from stages.shell import P, Run


@contextmanager
def open_session(run: Run[P], *inputs: Path, max_epochs: int) -> Iterator[Session]:
    """Give what the stage trains by, with progress on stderr for as long as it lasts.

    To be called once the code of the training is imported; see `checkpoint`.

    Args:
        run: the stage.
        inputs: what it reads.
        max_epochs: the most epochs there can be.

    Raises:
        PipelineError: see `checkpoint`.
    """
    kept = checkpoint(run, *inputs, max_epochs=max_epochs)
    with EpochReporter(run.name, max_epochs, silent=not run.leads) as report:
        yield Session(run.device(), report, kept, run.ranks())
