"""The densities of separate learning, on features: Gaussian+ and MAF+ of Table 2, left.

Scores are log densities in nats: HIGH = nominal, LOW = anomalous.
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.arrays import Singles
from pipeline.images.params import Flow
from pipeline.images.separate import Apart, score_apart, train_apart
from pipeline.models.gaussian import LOG_VARIANCE
from pipeline.models.maf import FlowNorm, MadeBlock, lowest_where_undefined
from pipeline.models.stacked import Stacked
from pipeline.training.session import Session

BLOCKS = 5  # of a flow (Bai et al., section 5.1)


class OwnFlow(nn.Module):
    """log q(x) of one task, by the blocks of the conditional flow without its modulation.

    Args:
        x_dim: width of x.
        hidden: width of the hidden layers.

    Shape: x (B, x_dim) -> (B,).
    """

    def __init__(self, *, x_dim: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MadeBlock(x_dim, hidden) for _ in range(BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        scale, bias, log_determinant = x.new_ones(2), x.new_zeros(2), x.new_zeros(())
        for block in self.blocks:
            x, of_block = block(x, scale, bias)
            x, log_determinant = x.flip(-1), log_determinant + of_block
        z2 = x.square() + math.log(2 * math.pi)
        return log_determinant - 0.5 * z2.sum(-1)

    def statistics(self, x: Tensor, weight: Tensor) -> Tensor:
        """Exact mean and variance of what each BatchNorm is given, block after block.

        Shape: x (N, x_dim), weight (N, 1), which adds up to 1 -> (BLOCKS, 2, x_dim).
        """
        found = []
        for block in cast(Iterable[MadeBlock], self.blocks):
            u, _ = block.made(x, x.new_ones(2), x.new_zeros(2))
            mean = (u * weight).sum(0)
            variance = ((u - mean).square() * weight).sum(0)
            found.append(torch.stack([mean, variance]))
            log_scale = block.norm.gain - 0.5 * (variance + FlowNorm.EPS).log()
            x = ((u - mean) * log_scale.exp() + block.norm.shift).flip(-1)
        return torch.stack(found)


def settle(net: Stacked, x: Tensor, weight: Tensor) -> None:
    """Give each BatchNorm of stacked flows its exact statistics: x (M, N, d), weight (M, N)."""
    statistics = net.call("statistics", x, weight[..., None])  # (M, BLOCKS, 2, d)
    tensors = net.tensors()
    for n in range(BLOCKS):
        tensors[f"blocks.{n}.norm.mean"].copy_(statistics[:, n, 0])
        tensors[f"blocks.{n}.norm.variance"].copy_(statistics[:, n, 1])


def maf_scores(
    data: Apart,
    x: Tensor,
    test: Tensor,
    params: Flow,
    *,
    seed: int,
    session: Session,
) -> Singles:
    """Log densities of `test` (U', d) under each task's own flow, (M, U').

    Args:
        data: the tasks' own images.
        x: features (U, d), on the device of `data`.
        test: those to score.
        params: width and schedule.
        seed: of weights and draws.
        session: how to train.
    """
    net = Stacked(
        lambda: OwnFlow(x_dim=x.shape[1], hidden=params.hidden),
        len(data.tasks),
        torch.Generator().manual_seed(seed),
    )

    def loss(own: Tensor, _: Tensor) -> Tensor:
        if not net.training:
            settle(net, x[data.train.own], data.train.weights())
        surprise: Tensor = -net(x[own]).mean(1)
        return surprise

    train_apart(
        net, data, loss, params, seed=seed, session=session, weight_decay=params.weight_decay
    )
    return score_apart(lambda part: lowest_where_undefined(net(part)), test, len(data.tasks))


def gaussian_scores(data: Apart, x: Tensor, test: Tensor) -> Singles:
    """Log densities of `test` (U', d) under each task's own diagonal Gaussian, (M, U').

    Its likelihood is greatest at the mean and the variance of the task's training features.
    """
    weight = data.train.weights()[..., None]  # (M, longest, 1)
    own = x[data.train.own]  # (M, longest, d)
    mean = (own * weight).sum(1)
    variance = ((own - mean[:, None]).square() * weight).sum(1)
    log_variance = variance.log().clamp(-LOG_VARIANCE, LOG_VARIANCE)[:, None]

    def score(part: Tensor) -> Tensor:
        z2 = (part - mean[:, None]).square() * (-log_variance).exp()
        return -0.5 * (z2 + log_variance + math.log(2 * math.pi)).sum(-1)

    return score_apart(score, test, len(data.tasks))
