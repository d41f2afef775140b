"""A masked autoregressive flow for all tasks, bent towards each by 20 numbers of its own.

Paper: Bai et al., appendix B.2; Papamakarios et al., "Masked Autoregressive Flow" (2017). Five
blocks (section 5.1) of MADE, BatchNorm and reversal. In a MADE x_i = u_i exp(alpha_i) + mu_i, where
mu and alpha are functions of x_1, ..., x_{i-1}: two masked nets. Our reading of what the paper
leaves open: the output f of either net of each block becomes f tanh(s_t) + tanh(b_t), s and b
trainable scalars of task, block and net; and the prior of task t is N(u_t, I), u_t uniform in
[-1, 1]^d and fixed.

Outputs are log densities log q_t(x) in nats: HIGH = common user, LOW = fresh (anomalous) user.
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.models.masked import masked_net
from pipeline.models.weights import draw_layers
from pipeline.steps.gather import gather

ROWS = 1 << 14  # rows at a time: their hidden layers fit into a processor's cache
S_SPREAD = 0.5  # of s_t around 1 at the start


def lowest_where_undefined(log_density: Tensor) -> Tensor:
    """The same, with the lowest number for a density that overflowed: it counts as 0.

    Far from all that it has seen a flow stretches x beyond what a number can hold.
    """
    lowest = torch.finfo(log_density.dtype).min
    return log_density.nan_to_num(nan=lowest, neginf=lowest)


class FlowNorm(nn.Module):
    """BatchNorm as a layer of a flow: y = (x - m) / sqrt(v + eps) exp(gain) + shift.

    In training m and v are those of the batch. In eval mode they are those of the training set,
    which `settle` takes exactly: under running averages the likelihoods of a flow explode.

    Args:
        width: of x.

    Shape: (..., width) -> (..., width), and the log-determinant, a scalar.
    """

    EPS = 1e-5
    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width) - self.EPS)  # so that nothing is scaled

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.mean, self.variance
        if self.training:
            variance, mean = torch.var_mean(x, tuple(range(x.dim() - 1)), correction=0)
        log_scale = self.gain - 0.5 * (variance + self.EPS).log()
        return (x - mean) * log_scale.exp() + self.shift, log_scale.sum()

    def settle(self, x: Tensor) -> None:
        """Take mean and variance over the rows of the whole training set, (E, width)."""
        self.variance, self.mean = torch.var_mean(x, 0, correction=0)


class MadeBlock(nn.Module):
    """MADE and BatchNorm: x to u = (x - mu) exp(-alpha), then normalised.

    Args:
        width: of x.
        hidden: width of the hidden layers of both masked nets.

    Shape: x (..., width), scale and bias (..., 2) of the nets mu and alpha -> as x, and the
    log-determinant (...).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.mu = masked_net(width, hidden)
        self.alpha = masked_net(width, hidden)
        self.norm = FlowNorm(width)

    def made(self, x: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The MADE alone: u and its log-determinant."""
        mu, alpha = self._parameters_at(x, scale, bias)
        return (x - mu) * (-alpha).exp(), -alpha.sum(-1)

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        u, of_made = self.made(x, scale, bias)
        y, of_norm = self.norm(u)
        return y, of_made + of_norm

    def _parameters_at(self, x: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        mu: Tensor = self.mu(x) * scale[..., :1] + bias[..., :1]
        alpha: Tensor = self.alpha(x) * scale[..., 1:] + bias[..., 1:]
        return mu, alpha


class ConditionalMaf(nn.Module):
    """log q_t(x) by a flow that all tasks share but for s_t, b_t and u_t.

    Args:
        x_dim: width of a user vector, d.
        tasks: number of tasks, M.
        blocks: number of blocks (paper: 5).
        hidden: width of the hidden layers; 90 to 100 give 0.4 million parameters, as the paper has.

    Shape: x (..., x_dim), task (...) -> (...); the two broadcast against each other. In training
    mode the rows of x are one batch.
    """

    prior_mean: Tensor

    def __init__(self, *, x_dim: int, tasks: int, blocks: int = 5, hidden: int = 100) -> None:
        super().__init__()
        self.config = {"x_dim": x_dim, "tasks": tasks, "blocks": blocks, "hidden": hidden}
        self.blocks = nn.ModuleList(MadeBlock(x_dim, hidden) for _ in range(blocks))
        self.s = nn.Parameter(torch.ones(tasks, blocks * 2))  # of mu and alpha, block after block
        self.b = nn.Parameter(torch.zeros(tasks, blocks * 2))
        self.register_buffer("prior_mean", torch.zeros(tasks, x_dim))  # u_t

    def draw_weights(self, gen: torch.Generator) -> None:
        """Draw the layers, the prior means and s_t (normal around 1) from `gen`; the rest is 0."""
        draw_layers(self, gen)
        nn.init.uniform_(self.prior_mean, -1, 1, generator=gen)
        nn.init.normal_(self.s, 1.0, S_SPREAD, generator=gen)
        nn.init.zeros_(self.b)
        for block in cast(Iterable[MadeBlock], self.blocks):
            nn.init.zeros_(block.norm.gain)
            nn.init.zeros_(block.norm.shift)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        u, log_determinant = self.encode(x, task)
        z2 = (u - self.prior_mean[task]).square() + math.log(2 * math.pi)
        return log_determinant - 0.5 * z2.sum(-1)

    def encode(self, x: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """From x to u, and log |det du/dx|: shapes as in `forward`."""
        log_determinant = torch.zeros((), device=x.device)
        for block, scale, bias in self._modulated(task):
            x, of_block = block(x, scale, bias)
            x, log_determinant = x.flip(-1), log_determinant + of_block
        return x, log_determinant

    @torch.no_grad()
    def settle(self, x: Tensor, task: Tensor) -> None:
        """Give every BatchNorm its exact mean and variance over the training pairs.

        One pass: block after block, each over all pairs, because the statistics of a block are
        those of what the blocks before it give once they are settled. Holds x up to four times.

        Args:
            x: user vector of each pair, (E, x_dim).
            task: its task, (E,).
        """
        self.eval()
        for block, scale, bias in self._modulated(task):
            parts = zip(x.split(ROWS), scale.split(ROWS), bias.split(ROWS), strict=True)
            x = torch.cat([block.made(*part)[0] for part in parts])
            block.norm.settle(x)
            x = block.norm(x)[0].flip(-1)

    def _modulated(self, task: Tensor) -> list[tuple[MadeBlock, Tensor, Tensor]]:
        """Every block with its scale and bias for each task, (..., 2) of mu and alpha."""
        blocks = cast(Iterable[MadeBlock], self.blocks)
        scales, biases = gather(self.s.tanh(), task), gather(self.b.tanh(), task)
        return list(zip(blocks, scales.split(2, -1), biases.split(2, -1), strict=True))
