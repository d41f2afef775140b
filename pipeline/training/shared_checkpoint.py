"""A checkpoint of a training that several processes are at: one keeps it, all go on from it."""

import json
from collections.abc import Callable
from dataclasses import replace

import torch

from pipeline.ranks import Ranks
from pipeline.training.checkpoint import CheckpointFile
from pipeline.training.snapshot import Snapshot


class SharedCheckpoint:
    """A `Checkpoint` of all processes, in the file of the one that leads.

    Args:
        ranks: the processes.
        file: its file on the process that leads, None elsewhere.
    """

    def __init__(self, ranks: Ranks, file: CheckpointFile | None) -> None:
        self.ranks = ranks
        self.file = file

    def load(self) -> Snapshot | None:
        """What the process that leads finds in its file, everywhere."""
        kept = None if self.file is None else self.file.load()
        told = json.loads(self.ranks.told("null" if kept is None else _describe(kept)))
        if told is None:
            return None
        record, shapes = told
        if kept is None:
            kept = Snapshot(
                {n: torch.empty(s, dtype=getattr(torch, t)) for n, (t, s) in shapes}, *record
            )
        sent = {name: self.ranks.from_lead(tensor) for name, tensor in kept.tensors.items()}
        return replace(kept, tensors=sent)

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Keep a snapshot, which all processes take together, when it is time to."""
        if not self.ranks.told("now" if self.file is not None and self.file.due() else ""):
            return
        if self.file is None:
            take()
        else:
            self.file.save(take)


def _describe(kept: Snapshot) -> str:
    """All of a snapshot but its numbers."""
    shapes = [
        (name, (str(tensor.dtype).removeprefix("torch."), list(tensor.shape)))
        for name, tensor in kept.tensors.items()
    ]
    return json.dumps([[kept.history, kept.lowest, kept.waited], shapes])
