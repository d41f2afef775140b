"""A table that is dealt out over the processes: each holds its own rows and fetches what it names.

Row n lies on process n modulo their number. Rows come with one exchange of their numbers and one of
themselves, whatever the number of processes; gradients go the same way back, and are added up where
the row lies. So all processes fetch at the same time, also who names no row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from pipeline.ranks import Ranks
from pipeline.steps.gather import scatter_add

LOW = (1 << 32) - 1  # the bits of a row's number on its process, below those of the process


@dataclass(frozen=True)
class Named:
    """The distinct rows that an index names, wherever they lie.

    Attributes:
        rows: (k,) their numbers in the whole table, those of process 0 first.
        place: (...) which of them each entry of the index names.
        wanted: how many of them lie on each process.
        asked: (a,) own rows that the processes want, process by process.
        given: how many each of them wants.
        ranks: the processes.
    """

    rows: Tensor
    place: Tensor
    wanted: Sequence[int]
    asked: Tensor
    given: Sequence[int]
    ranks: Ranks

    @classmethod
    def by(cls, index: Tensor, ranks: Ranks) -> Self:
        """Tell every process which of its rows are among those of an index (...)."""
        key = (index % ranks.size << 32) + index // ranks.size
        key, place = key.unique(return_inverse=True)
        home, own = key >> 32, key & LOW
        wanted = home.bincount(minlength=ranks.size).tolist()
        given = ranks.lengths(wanted)
        asked = ranks.exchange(own, wanted, given)
        return cls(own * ranks.size + home, place, wanted, asked, given, ranks)

    def fetch(self, own: Tensor) -> Tensor:
        """The rows (k, ...) of a table whose `own` rows every process gives; differentiable."""
        rows: Tensor = _Fetch.apply(own, self)  # type: ignore[no-untyped-call]
        return rows


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, named: Named) -> Tensor:  # noqa: ANN401
        ctx.named, ctx.rows = named, len(own)
        return named.ranks.exchange(own.index_select(0, named.asked), named.given, named.wanted)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        named = ctx.named
        home = named.ranks.exchange(grads[0].contiguous(), named.wanted, named.given)
        return scatter_add(home, named.asked, ctx.rows), None


def fetch_rows(table: Tensor, index: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Rows of a table among which are all that `index` (...) names, and where, (...).

    `table` is what the process holds: its own rows where they are dealt out, otherwise all.
    """
    if not ranks.deal_out:
        return table, index
    named = Named.by(index, ranks)
    return named.fetch(table), named.place


def alike(blocks: Sequence[Sequence[Tensor]], ranks: Ranks) -> list[Sequence[Tensor]]:
    """The blocks of pairs (..., N), and empty ones until all processes that fetch have as many."""
    missing = ranks.most(len(blocks)) - len(blocks) if ranks.deal_out else 0
    return [*blocks, *[[column[..., :0] for column in blocks[0]]] * missing]
