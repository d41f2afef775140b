"""Scores of many (user, task) pairs by a trained ratio."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.arrays import Singles
from pipeline.models.ratio import RatioNet
from pipeline.ranks import Ranks

BLOCK = 1 << 13  # pairs a block on a CPU: their hidden layers fit into a core's cache
ON_DEVICE = 1 << 22  # and elsewhere
TURN = 1 << 22  # pairs that one of several processes scores at a time


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
    """As `score_grid`; several processes take turns, and the one that leads is given all scores.

    A turn is made of blocks of the one process that would score them all: equal bit for bit. The
    others are given nothing, and go through it all the same.
    """
    if ranks.alone:
        yield from (block.cpu().numpy() for block in score_grid(net, x, e))
        return
    tasks = max(1, _pairs_at_once(x) // len(x))  # a block
    turn = tasks * max(1, TURN // (tasks * len(x)))
    for start in range(0, len(e), turn * ranks.size):
        first = start + turn * ranks.rank
        own = torch.zeros(0, len(x))
        if first < len(e):
            own = torch.from_numpy(score_all(net, x, e[first : first + turn]))
        parts = ranks.gather(own, to_lead=True)
        if ranks.leads:
            yield from (part.numpy() for part in parts if len(part))


def _pairs_at_once(x: Tensor) -> int:
    return BLOCK if x.device.type == "cpu" else ON_DEVICE
