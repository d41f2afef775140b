"""Pairs in shards, so that however many processes they lie on, the same is learned from.

Tasks (DeepFM: users) are dealt out to shards, and shards to processes. What is drawn for a shard -
order, negatives, dropout masks - follows from the seed, the epoch and the shard's number alone, and
a batch holds an equal part of every shard. So 1, 2 and 4 processes under torchrun make the same
steps, but for the order of sums, and a training may go on with another number of them.
"""

from collections.abc import Callable, Iterator, Sequence

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
        masks: of each of the shards; they begin anew with every epoch.
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
        self.masks = [MaskSource(seed, device) for _ in sizes]
        own = self._in_steps(torch.tensor(sizes)) / self._in_steps(of_all).sum(1, keepdim=True)
        self._weights = own.to(device, torch.float32)  # (steps, shards): of the whole batch's pairs
        self.epochs = 0

    def _in_steps(self, sizes: Tensor) -> Tensor:
        """How many pairs of each shard are in each step, as `tensor_split`: the first have more."""
        return sizes // self.steps + (torch.arange(self.steps)[:, None] < sizes % self.steps)

    def epoch(
        self, draw: Callable[[int, torch.Generator], Iterator[Batch]]
    ) -> Iterator[tuple[Tensor, ...]]:
        """One epoch of batches: for one shard after the other its pairs and its share of all pairs.

        Args:
            draw: all pairs of the n-th shard here, by `tensor_split` in as many batches as there
                are steps.
        """
        self.epochs += 1
        shards = []
        for n, (number, masks) in enumerate(zip(here(self.ranks), self.masks, strict=True)):
            of_pairs, of_masks = _seeds(self.seed, self.epochs, number)
            shards.append(draw(n, torch.Generator(self.device).manual_seed(of_pairs)))
            masks.seed(of_masks)
        for weights, *batches in zip(self._weights, *shards, strict=True):
            parts = zip(batches, weights, strict=True)
            yield tuple(column for batch, weight in parts for column in (*batch, weight))

    @property
    def generators(self) -> list[torch.Generator]:
        """Those that draw masks: pairs are drawn before a step, and not in it."""
        return [generator for masks in self.masks for generator in masks.generators]

    def get_state(self) -> Tensor:
        """The epochs so far, which the next draws follow from."""
        return torch.tensor([self.epochs])

    def set_state(self, new_state: Tensor) -> None:
        """Go on after those epochs."""
        self.epochs = int(new_state)


def share_of_loss(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], masks: Sequence[MaskSource]
) -> Callable[..., Tensor]:
    """What this process adds to the loss of a whole batch, from the mean `loss` of pairs.

    It is of what `Shards.epoch` gives; `masks` are those of the shards.
    """

    def share(*columns: Tensor) -> Tensor:
        losses = []
        parts = zip(columns[::3], columns[1::3], columns[2::3], masks, strict=True)
        for first, second, weight, of in parts:
            set_masks(model, of)
            of_part = loss(first, second)  # of no pairs too: what it fetches, others fetch with it
            losses.append(weight * of_part if first.shape[-1] else of_part.nan_to_num(0))
        return torch.stack(losses).sum()

    return share
