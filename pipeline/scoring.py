"""Scores of many (user, task) pairs by a trained ratio."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.models.ratio import RatioNet

BLOCK = 1 << 13  # pairs a block on a CPU: their hidden layers fit into a core's cache
ON_DEVICE = 1 << 22  # and elsewhere


@torch.no_grad()
def score_grid(net: RatioNet, x: Tensor, e: Tensor, block: int | None = None) -> Iterator[Tensor]:
    """Log ratios of every task and user, in blocks of tasks; HIGH = common.

    Shape: x (U, x_dim), e (M, task_dim) -> blocks (tasks, U), in the order of the tasks.
    """
    net.eval()
    size = block or (BLOCK if x.device.type == "cpu" else ON_DEVICE)
    users = net.user_side(x).split(size)
    for part in e.split(max(1, size // len(x))):
        yield torch.cat([net.of_grid(of_user, part) for of_user in users], dim=1)


def score_all(net: RatioNet, x: Tensor, e: Tensor) -> npt.NDArray[np.float32]:
    """Log ratios of every task and user as one array (M, U)."""
    scores: npt.NDArray[np.float32] = torch.cat(list(score_grid(net, x, e))).cpu().numpy()
    return scores
