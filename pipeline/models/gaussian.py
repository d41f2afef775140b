"""One diagonal Gaussian a task, its mean and variance a function of the task's embedding.

Paper: Bai et al., section 5.1, the conditional Gaussian of Tables 1 and 2.
Outputs are log densities log q_t(x) in nats: HIGH = common user, LOW = fresh (anomalous) user.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.models.weights import draw_layers
from pipeline.steps.gather import gather

LOG_VARIANCE = 7.0  # log-variances lie within this of zero


class ConditionalGaussian(nn.Module):
    """log q(x | e_t), q a Gaussian with a diagonal covariance.

    Args:
        x_dim: width of a user vector.
        tasks: number of tasks, M; each has an embedding, trained from a random start.
        task_dim: width of a task embedding.
        hidden: widths of the layers between the embedding and the two output heads, mean and
            log-variance (paper: a 3-layer MLP, hence two of them).

    Shape: x (..., x_dim), task (...) -> (...); the two broadcast against each other.

    Example:
        >>> net = ConditionalGaussian(x_dim=4, tasks=2)
        >>> net(torch.zeros(3, 4), torch.tensor([[0], [1]])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, *, x_dim: int, tasks: int, task_dim: int = 16, hidden: Sequence[int] = (128, 128)
    ) -> None:
        super().__init__()
        self.config = {
            "x_dim": x_dim,
            "tasks": tasks,
            "task_dim": task_dim,
            "hidden": list(hidden),
        }
        self.e = nn.Parameter(torch.randn(tasks, task_dim))
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((task_dim, *hidden)):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.mean = nn.Linear(hidden[-1], x_dim)
        self.log_variance = nn.Linear(hidden[-1], x_dim)

    def draw_weights(self, gen: torch.Generator) -> None:
        """Draw the embeddings (standard normal) and the layers from `gen`."""
        nn.init.normal_(self.e, generator=gen)
        draw_layers(self, gen)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of every task, (M, x_dim) each."""
        h = self.trunk(self.e)
        return self.mean(h), self.log_variance(h).clamp(-LOG_VARIANCE, LOG_VARIANCE)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        mean, log_variance = (gather(moment, task) for moment in self.moments())
        z2 = (x - mean).square() * (-log_variance).exp()
        return -0.5 * (z2 + log_variance + math.log(2 * math.pi)).sum(-1)
