"""A training run between two epochs, as something to keep and to go on from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """All that the next epoch follows from, and the history so far.

    Attributes:
        tensors: weights, weights of the best epoch, Adam's moments and random states, by name. They
            are those of the run itself, which changes them in place: copy or write them at once.
        history: a row an epoch.
        lowest: the lowest validation loss so far.
        waited: epochs since then, as `Patience` counts them.
    """

    tensors: Mapping[str, Tensor]
    history: list[dict[str, float]]
    lowest: float
    waited: int

    @property
    def epoch(self) -> int:
        """The last epoch so far."""
        return len(self.history)


class Checkpoint(Protocol):
    """Where the training loop keeps snapshots of itself."""

    def load(self) -> Snapshot | None:
        """The snapshot to go on from; None where there is none."""

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Called at the end of every epoch; need not `take` a snapshot of each."""


class Draws(Protocol):
    """Something random that can be put back to where it was.

    Attributes:
        generators: the torch generators behind it.
    """

    @property
    def generators(self) -> Sequence[torch.Generator]: ...

    def get_state(self) -> Tensor:
        """Where it is, as a tensor on the CPU."""

    def set_state(self, new_state: Tensor) -> object:
        """Go on from where `get_state` was called."""


RandomSource = torch.Generator | Draws
