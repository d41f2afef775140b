"""Pairs in shards, so that however many processes they lie on, the same is learned from.

Tasks (DeepFM: users) are dealt out to shards, and shards to processes. What is drawn for a shard -
order, negatives, dropout masks - follows from the seed, the epoch and the shard's number alone, and
a batch holds an equal part of every shard. So 1, 2 and 4 processes under torchrun make the same
steps, but for the order of sums, and a training may go on with another number of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.ranks import Ranks
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.sampler import batch_count

LEAST = 4  # shards; there are as many, or as many more as the processes hold equally many of them

Batch = tuple[Tensor, Tensor]  # the last dimension of the first is that of the pairs


def here(ranks: Ranks) -> list[int]:
    """Numbers of the shards on this process; its rows are dealt out to them in turn."""
    return [n * ranks.size + ranks.rank for n in range(-(-LEAST // ranks.size))]


def _seeds(seed: int, epoch: int, shard: int) -> tuple[int, int]:
    """Of the pairs and of the masks of a shard in an epoch."""
    drawn = np.random.SeedSequence((seed, epoch, shard)).generate_state(2, np.uint32)
    return int(drawn[0]), int(drawn[1])


@dataclass(frozen=True)
class Part:
    """A shard's part of a batch."""

    batch: Batch
    masks: MaskSource
    weight: float  # its share of the pairs of the whole batch


class Shards:
    """The shards on this process, epoch by epoch; as a random source it is at an epoch.

    Args:
        ranks: the processes.
        sizes: number of pairs of each of its shards.
        batch_size: pairs a step, of all processes together.
        seed: of everything that is drawn.
        device: where it is drawn.

    Attributes:
        steps: how many an epoch has, everywhere.
    """

    def __init__(
        self,
        ranks: Ranks,
        sizes: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.ranks, self.seed, self.device = ranks, seed, device
        of_all = torch.cat(ranks.gather(torch.tensor(sizes)))
        wanted = batch_count(int(of_all.sum()), batch_size)
        self.steps = min(wanted, int(of_all.max()))  # no step without a pair anywhere
        step = torch.arange(self.steps)[:, None]  # as `tensor_split`: the first have one more
        self.pairs = (of_all // self.steps + (step < of_all % self.steps)).sum(1).tolist()
        self.epochs = 0

    def epoch(
        self, draw: Callable[[int, torch.Generator], Iterator[Batch]]
    ) -> Iterator[tuple[list[Part]]]:
        """One epoch of batches, each as its parts.

        Args:
            draw: all pairs of the n-th shard here, by `tensor_split` in as many batches as there
                are steps.
        """
        self.epochs += 1
        shards, masks = [], []
        for n, number in enumerate(here(self.ranks)):
            of_pairs, of_masks = _seeds(self.seed, self.epochs, number)
            shards.append(draw(n, torch.Generator(self.device).manual_seed(of_pairs)))
            masks.append(MaskSource(of_masks, self.device))
        for pairs, *batches in zip(self.pairs, *shards, strict=True):
            parts = zip(batches, masks, strict=True)
            yield ([Part(batch, of, batch[0].shape[-1] / pairs) for batch, of in parts],)

    def get_state(self) -> Tensor:
        """The epochs so far, which the next draws follow from."""
        return torch.tensor([self.epochs])

    def set_state(self, new_state: Tensor) -> None:
        """Go on after those epochs."""
        self.epochs = int(new_state)


def share_of_loss(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[list[Part]], Tensor]:
    """What this process adds to the loss of a whole batch, from the mean `loss` of pairs."""

    def share(parts: list[Part]) -> Tensor:
        losses = []
        for part in parts:
            set_masks(model, part.masks)
            of_part = loss(*part.batch)  # of no pairs too: what it fetches, others fetch with it
            losses.append(part.weight * of_part if part.weight else of_part.nan_to_num(0))
        return torch.stack(losses).sum()

    return share
