"""How anything is trained: where, by which processes, who is told, and where it is kept."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.ranks import ALONE, Ranks
from pipeline.training.history import Row
from pipeline.training.snapshot import Checkpoint

CPU = torch.device("cpu")


def silent(row: Row) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Session:
    """What a training is given besides what it learns.

    Attributes:
        device: where to train; what is given data on a device trains there.
        report: called with each epoch's row, where this process leads.
        checkpoint: where to keep the training, and to go on from if one is kept there; see `fit`.
        ranks: the processes that train together, in what can be shared: DeepFM and Algorithm 1.
    """

    device: torch.device = CPU
    report: Callable[[Row], None] = silent
    checkpoint: Checkpoint | None = None
    ranks: Ranks = ALONE
