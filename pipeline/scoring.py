"""Scores of many (user, task) pairs by a trained ratio."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.arrays import Singles
from pipeline.models.ratio import RatioNet
from pipeline.ranks import Ranks

BLOCK = 1 << 13  # pairs a block on a CPU: their hidden layers fit into a core's cache
ON_DEVICE = 1 << 22  # and elsewhere


@torch.no_grad()
def score_grid(net: RatioNet, x: Tensor, e: Tensor, block: int | None = None) -> Iterator[Tensor]:
    """Log ratios of every task and user, in blocks of tasks; HIGH = common.

    Shape: x (U, x_dim), e (M, task_dim) -> blocks (tasks, U), in the order of the tasks.
    """
    net.eval()
    size = block or _pairs_at_once(x)
    users = net.user_side(x).split(size)
    for part in e.split(max(1, size // len(x))):
        yield torch.cat([net.of_grid(of_user, part) for of_user in users], dim=1)


def score_all(net: RatioNet, x: Tensor, e: Tensor) -> Singles:
    """Log ratios of every task and user as one array (M, U)."""
    scores: Singles = torch.cat(list(score_grid(net, x, e))).cpu().numpy()
    return scores


def score_together(net: RatioNet, x: Tensor, e: Tensor, ranks: Ranks) -> Iterator[Singles]:
    """As `score_grid`; of several processes each scores a run of tasks, the lead is given all.

    A run is made of blocks of the one process that would score them all: equal bit for bit.
    """
    if ranks.alone:
        return (block.cpu().numpy() for block in score_grid(net, x, e))
    tasks = max(1, _pairs_at_once(x) // len(x))  # a block
    blocks = -(-len(e) // tasks)
    start, end = (tasks * (blocks * n // ranks.size) for n in (ranks.rank, ranks.rank + 1))
    own = torch.from_numpy(score_all(net, x, e[start:end]))
    return iter([torch.cat(ranks.gather(own, to_lead=True)).numpy()])


def _pairs_at_once(x: Tensor) -> int:
    return BLOCK if x.device.type == "cpu" else ON_DEVICE
