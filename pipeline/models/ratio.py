"""The networks of Algorithm 1: f(x, e) for all tasks, and the pre-embedding model.

Paper: Bai et al., "Collaborative Anomaly Detection", Table 5, Figure 5 and section 4.
Outputs are log ratios log q_t(x)/p(x) in nats: HIGH = common user, LOW = fresh (anomalous) user.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.platt import Platt
from pipeline.ranks import ALONE, Ranks
from pipeline.steps.dealt import fetch_rows
from pipeline.steps.dropout import ReluDropout
from pipeline.steps.gather import gather, gather_linear, linear_rows
from pipeline.steps.grid import TaskGrid
from pipeline.steps.grid_loss import grid_loss
from pipeline.steps.inner import inner_products
from pipeline.steps.pair_loss import TableRows, pair_loss
from pipeline.steps.sampler import shifted


def _layers(widths: Sequence[int], dropout: Sequence[float]) -> nn.Sequential:
    """ReLU and dropout after the first layer, then each further layer with its own."""
    layers: list[nn.Module] = [ReluDropout(dropout[0])]
    for n, (width_in, width_out) in enumerate(pairwise(widths)):
        layers += [nn.Linear(width_in, width_out), ReluDropout(dropout[n + 1])]
    return nn.Sequential(*layers)


class RatioNet(nn.Module):
    """f(x, e): log ratio of a user under a task (Table 5).

    With `linear` a task has, beside the network, a head of its own that is linear in x. Its weights
    and its bias are the last x_dim + 1 numbers of e, of which the network sees the others alone.

    Args:
        x_dim: width of a user vector (paper: 100).
        task_dim: width of a task embedding (paper: 16; M0 for learned ones).
        hidden: widths of the hidden layers (Table 5: 32, 32, 16).
        dropout: dropout rate after each hidden layer (Table 5: .5, .5, .3).
        linear: what a head's squared weights cost in training, in nats; None: there are no heads.

    Shape: x (..., x_dim), e (..., task_dim) -> (...).

    Example:
        >>> net = RatioNet(x_dim=4, task_dim=2).eval()
        >>> net(torch.zeros(3, 4), torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        *,
        x_dim: int,
        task_dim: int,
        hidden: Sequence[int] = (32, 32, 16),
        dropout: Sequence[float] = (0.5, 0.5, 0.3),
        linear: float | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "x_dim": x_dim,
            "task_dim": task_dim,
            "hidden": list(hidden),
            "dropout": list(dropout),
            "linear": linear,
        }
        self.linear = linear
        self.head_dim = head_dim(x_dim, linear)
        self.first = nn.Linear(x_dim + task_dim - self.head_dim, hidden[0])
        self.rest = nn.Sequential(*_layers(hidden, dropout), nn.Linear(hidden[-1], 1))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        e, head = self._parts(e)
        logits: Tensor = self.rest(self.first(torch.cat([x, e], dim=-1)))
        return logits.squeeze(-1) if self.linear is None else logits.squeeze(-1) + _linear(x, head)

    def seen(self, e: Tensor) -> Tensor:
        """What the network sees of embeddings e (..., task_dim): all but the heads."""
        return self._parts(e)[0]

    def _parts(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees of e (..., task_dim), and the head (..., head_dim)."""
        seen, head = e.split([e.shape[-1] - self.head_dim, self.head_dim], dim=-1)
        return seen, head

    def vectors(self, x: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """What `of_pairs` and `loss_of_pairs` take of users (...), and the row of each in it."""
        return x, user

    def of_pairs(self, x: Tensor, e: Tensor, user: Tensor, task: Tensor) -> Tensor:
        """Logits of pairs of rows.

        x (U, x_dim), e (M, task_dim), user (..., N), task (N,) -> (..., N).
        Equal to `forward(x[user], e[task])`; the first layer is applied to each side apart, once
        for every user and task rather than once for every pair.
        """
        e, head = self._parts(e)
        w_x, w_e = self.first.weight.split([x.shape[1], e.shape[1]], dim=1)
        of_user = gather_linear(x, w_x, user)  # (..., N, hidden[0])
        of_task = gather_linear(e, w_e, task) + self.first.bias  # (N, hidden[0])
        logits: Tensor = self.rest(of_user + of_task)
        if self.linear is None:
            return logits.squeeze(-1)
        return logits.squeeze(-1) + _linear(F.embedding(user, x), gather(head, task))

    def loss_of_pairs(self, x: Tensor, e: Tensor, user: Tensor, task: Tensor) -> Tensor:
        """`ratio_loss` of what `of_pairs` gives, for user (2, N), in one pass there and back."""
        e, head = self._parts(e)
        w_x, w_e = self.first.weight.split([x.shape[1], e.shape[1]], dim=1)
        of_user, user_row = linear_rows(x, w_x, user)
        of_task, task_row = linear_rows(e, w_e, task)
        inputs = [TableRows(of_user, user_row), TableRows(of_task + self.first.bias, task_row)]
        if self.linear is None:
            return pair_loss(inputs, self.rest, task)
        weight, bias = head[:, :-1], head[:, -1:]
        beside = inner_products(x, weight, user, task) + gather(bias, task)[:, 0]
        cost = self.linear * gather(weight.square().sum(1, keepdim=True), task).mean()
        return pair_loss(inputs, self.rest, task, beside) + cost

    def loss_of_grid(self, x: Tensor, e: Tensor, weight: Tensor, base: Tensor) -> Tensor:
        """`grid_loss` of users x (U, x_dim) under tasks e (T, task_dim); weight (T, U), base (U,).

        Both sides of the first layer are taken once, whatever the number of cells.
        """
        e, head = self._parts(e)
        w_x, w_e = self.first.weight.split([x.shape[1], e.shape[1]], dim=1)
        of_task, of_user = e @ w_e.T + self.first.bias, x @ w_x.T
        if self.linear is None:
            return grid_loss(of_task, of_user, self.rest, weight, base)
        cost = self.linear * (head[:, :-1].square().sum(1) * weight.sum(1)).sum()
        return grid_loss(of_task, of_user, self.rest, weight, base, _linear_of_grid(x, head)) + cost

    @torch.no_grad()
    def scale(self, platt: Platt, e: Tensor) -> None:
        """Scale f by its last layer and, of all embeddings e (M, task_dim), by their heads."""
        weight, bias = self.rest[-1].parameters()
        weight.mul_(platt.slope)
        bias.mul_(platt.slope).add_(platt.offset)
        self._parts(e)[1].mul_(platt.slope)

    def user_side(self, x: Tensor) -> Tensor:
        """All of f that does not depend on the task: x (U, x_dim) -> (U, hidden[0]).

        With heads x itself follows, which they are linear in: (U, hidden[0] + x_dim).
        """
        of_first = x @ self.first.weight[:, : x.shape[1]].T
        return torch.cat([of_first, x], dim=1) if self.head_dim else of_first

    def of_grid(self, of_user: Tensor, e: Tensor) -> Tensor:
        """Logits of every task and user: of_user from `user_side`, e (M, task_dim) -> (M, U)."""
        e, head = self._parts(e)
        of_first, x = of_user.tensor_split([self.first.out_features], dim=1)
        of_task = e @ self.first.weight[:, -e.shape[1] :].T + self.first.bias
        logits: Tensor = self.rest(of_task[:, None] + of_first)
        if self.linear is None:
            return logits.squeeze(-1)
        return logits.squeeze(-1) + _linear_of_grid(x, head)


def _linear(x: Tensor, head: Tensor) -> Tensor:
    """Of x (..., d) by the weights and the bias of a head (..., d + 1): (...)."""
    return (x * head[..., :-1]).sum(-1) + head[..., -1]


def _linear_of_grid(x: Tensor, head: Tensor) -> Tensor:
    """Of every x (U, d) by every head (M, d + 1): (M, U)."""
    return head[:, :-1] @ x.T + head[:, -1:]


def head_dim(x_dim: int, linear: float | None) -> int:
    """By how much heads make e wider: weights and a bias; see `RatioNet`."""
    return 0 if linear is None else x_dim + 1


class PreEmbeddingNet(nn.Module):
    """f_1(x), ..., f_M0(x): the same trunk without e, one output head a seed task (section 4).

    Args:
        x_dim: width of a user vector.
        heads: number of seed tasks, M0.
        hidden: widths of the hidden layers.
        dropout: dropout rate after each hidden layer.

    Shape: x (..., x_dim) -> (..., heads).
    """

    def __init__(
        self,
        *,
        x_dim: int,
        heads: int,
        hidden: Sequence[int] = (32, 32, 16),
        dropout: Sequence[float] = (0.5, 0.5, 0.3),
    ) -> None:
        super().__init__()
        self.config = {
            "x_dim": x_dim,
            "heads": heads,
            "hidden": list(hidden),
            "dropout": list(dropout),
        }
        self.first = nn.Linear(x_dim, hidden[0])
        self.rest = _layers(hidden, dropout)
        self.heads = nn.Linear(hidden[-1], heads)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.heads(self.rest(self.first(x)))
        return logits

    def vectors(self, x: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """What `of_pairs` and `loss_of_pairs` take of users (...), and the row of each in it."""
        return x, user

    def of_pairs(self, x: Tensor, user: Tensor, task: Tensor) -> Tensor:
        """The head of `task` (N,) only: x (U, x_dim), user (..., N) -> (..., N)."""
        h = self.rest(gather_linear(x, self.first.weight, user) + self.first.bias)
        weight = gather(self.heads.weight, task)  # (N, hidden[-1])
        bias = gather(self.heads.bias[:, None], task).squeeze(-1)
        logits: Tensor = (h * weight).sum(-1) + bias
        return logits

    def loss_of_pairs(self, x: Tensor, user: Tensor, task: Tensor) -> Tensor:
        """`ratio_loss` of what `of_pairs` gives, for user (2, N), in one pass there and back."""
        of_user, user_row = linear_rows(x, self.first.weight, user)
        inputs = [TableRows(of_user + self.first.bias, user_row)]
        return pair_loss(inputs, [*self.rest, self.heads], task)


class TaskRatios(nn.Module):
    """All tasks of a users table: a RatioNet, every task's trained embedding, the users' vectors.

    Args:
        net: the network.
        x: user vectors (U, x_dim), fixed.
        e: task embeddings to start from (M, task_dim).
        freeze_e: keep the embeddings where they start.
        ranks: the processes; where they deal users out, x holds this one's own.

    Shape: user (..., N), task (N,) -> (..., N), rows of x and e.
    """

    of_tasks = ("e",)  # parameters with a row a task
    x: Tensor

    def __init__(
        self,
        net: RatioNet,
        *,
        x: Tensor,
        e: Tensor,
        freeze_e: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.net = net
        self.ranks = ranks
        self.e = nn.Parameter(e.clone(), requires_grad=not freeze_e)
        self.register_buffer("x", x, persistent=False)

    def forward(self, user: Tensor, task: Tensor) -> Tensor:
        x, user = self.net.vectors(*fetch_rows(self.x, user, self.ranks))
        return self.net.of_pairs(x, self.e, user, task)

    def loss(self, user: Tensor, task: Tensor) -> Tensor:
        """Equation 3 of pairs (2, N), row 0 under q_t, row 1 under p; faster than by the logits."""
        x, user = self.net.vectors(*fetch_rows(self.x, user, self.ranks))
        return self.net.loss_of_pairs(x, self.e, user, task)

    def loss_within(self, user: Tensor, task: Tensor) -> Tensor:
        """Equation 3 of pairs (N,) under q_t, whose users under p are their own (`shifted`)."""
        x, row = self.net.vectors(self.x, user)
        return self.net.loss_of_pairs(x, self.e, shifted(row), task)

    def grid_loss(self, grid: TaskGrid, task: Tensor, weight: Tensor) -> Tensor:
        """The loss of a block of the grid, as `grid.epoch` gives it."""
        return self.net.loss_of_grid(self.x[grid.users], gather(self.e, task), weight, grid.base)


class SeedRatios(nn.Module):
    """The seed tasks of a users table: a PreEmbeddingNet and the users' vectors.

    Shape: user (..., N), task (N,) -> (..., N), rows of x and numbers of heads.
    """

    of_tasks = ("net.heads.weight", "net.heads.bias")  # parameters with a row a seed task
    x: Tensor

    def __init__(self, net: PreEmbeddingNet, *, x: Tensor, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.net = net
        self.ranks = ranks
        self.register_buffer("x", x, persistent=False)

    def forward(self, user: Tensor, task: Tensor) -> Tensor:
        x, user = self.net.vectors(*fetch_rows(self.x, user, self.ranks))
        return self.net.of_pairs(x, user, task)

    def loss(self, user: Tensor, task: Tensor) -> Tensor:
        """Equation 3 of pairs (2, N), row 0 under q_t, row 1 under p; faster than by the logits."""
        x, user = self.net.vectors(*fetch_rows(self.x, user, self.ranks))
        return self.net.loss_of_pairs(x, user, task)

    def loss_within(self, user: Tensor, task: Tensor) -> Tensor:
        """Equation 3 of pairs (N,) under q_t, whose users under p are their own (`shifted`)."""
        x, row = self.net.vectors(self.x, user)
        return self.net.loss_of_pairs(x, shifted(row), task)
