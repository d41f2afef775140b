"""Scores of many (user, task) pairs by a trained ratio."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.models.ratio import RatioNet

BLOCK = 1 << 18  # pairs a block: their hidden layers fit into a processor's cache


@torch.no_grad()
def score_grid(net: RatioNet, x: Tensor, e: Tensor, block: int = BLOCK) -> Iterator[Tensor]:
    """Log ratios of every task and user, in blocks of tasks; HIGH = common.

    Shape: x (U, x_dim), e (M, task_dim) -> blocks (tasks, U), in the order of the tasks.
    """
    net.eval()
    of_user = net.user_side(x)
    for part in e.split(max(1, block // len(x))):
        yield net.of_grid(of_user, part)


def score_all(net: RatioNet, x: Tensor, e: Tensor) -> npt.NDArray[np.float32]:
    """Log ratios of every task and user as one array (M, U)."""
    scores: npt.NDArray[np.float32] = torch.cat(list(score_grid(net, x, e))).cpu().numpy()
    return scores
