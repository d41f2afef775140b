"""Exposures, each against an item that its user has not seen: what DeepFM and KTUP learn from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pipeline.ranks import Ranks
from pipeline.steps.sampler import batch_count
from pipeline.training.negatives import UnseenItems
from pipeline.training.shards import here


@dataclass(frozen=True)
class Exposed:
    """Who was exposed to what, as rows on one device.

    Attributes:
        user: (E,) row of the user, sorted; none has seen every item.
        item: (E,) row of the item, rising within a user.
        users: number of users.
        items: number of items.
    """

    user: Tensor
    item: Tensor
    users: int
    items: int

    def unseen(self) -> UnseenItems:
        """What each of the users has not seen."""
        return UnseenItems.of(self.user, self.item, users=self.users, items=self.items)


@dataclass(frozen=True)
class ContrastedPairs:
    """The pairs to learn from and those to stop by, each with one negative.

    Negatives are uniform over the items, less what their user has seen, be it to learn from or to
    stop by.

    Attributes:
        user, item: to learn from, (N,).
        stop: to stop by, user (S,) and item (2, S), whose negatives in row 1 are fixed.
        unseen: where negatives are drawn.
        gen: what draws.
    """

    user: Tensor
    item: Tensor
    stop: tuple[Tensor, Tensor]
    unseen: UnseenItems
    gen: torch.Generator

    @classmethod
    def of(cls, data: Exposed, stop_share: float, gen: torch.Generator) -> Self:
        """Choose those to stop by."""
        unseen = data.unseen()
        order = torch.randperm(len(data.user), generator=gen, device=data.user.device)
        n_stop = min(max(1, round(stop_share * len(order))), len(order) - 1)
        stop, learn = order[:n_stop].sort().values, order[n_stop:].sort().values
        fixed = _contrast(data.user[stop], data.item[stop], unseen, gen)
        return cls(data.user[learn], data.item[learn], fixed, unseen, gen)

    def in_shards(self, own: Exposed, ranks: Ranks) -> list[Self]:
        """Those of each shard on this process, to which users are dealt out.

        `own` are those of all of its users, who are counted as there from here on.
        """
        shards, unseen, (user, item) = here(ranks), own.unseen(), self.stop
        count = len(shards) * ranks.size
        return [
            replace(
                self,
                user=self.user[learn] // ranks.size,
                item=self.item[learn],
                stop=(user[stop] // ranks.size, item[:, stop]),
                unseen=unseen,
            )
            for learn, stop in (
                (self.user % count == shard, user % count == shard) for shard in shards
            )
        ]

    def epoch(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every pair once, in random order: user (N,), item (2, N) with fresh negatives in row 1.

        Batches are of nearly equal size. Within one the pairs are sorted by user, which gathers
        and searches go through faster and the loss does not see.
        """
        order = self._order(self.gen)
        yield from self._batches(order.chunk(batch_count(len(order), batch_size)), self.gen)

    def in_steps(self, steps: int, gen: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """As `epoch`, in so many batches, some of them empty where there are fewer pairs."""
        yield from self._batches(self._order(gen).tensor_split(steps), gen)

    def _order(self, gen: torch.Generator) -> Tensor:
        return torch.randperm(len(self.user), generator=gen, device=self.user.device)

    def _batches(
        self, rows: Iterable[Tensor], gen: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for some in rows:
            in_order = some.sort().values
            yield _contrast(self.user[in_order], self.item[in_order], self.unseen, gen)


def _contrast(
    user: Tensor, item: Tensor, unseen: UnseenItems, gen: torch.Generator
) -> tuple[Tensor, Tensor]:
    return user, torch.stack([item, unseen.draw(user, gen)])


def pair_auc(logits: Tensor) -> float:
    """Chance that an exposure outscores a negative, from logits (2, N); ties count half."""
    negatives = logits[1].sort().values
    below = torch.searchsorted(negatives, logits[0])
    not_above = torch.searchsorted(negatives, logits[0], right=True)
    return float((below + not_above).double().mean()) / (2 * len(negatives))
