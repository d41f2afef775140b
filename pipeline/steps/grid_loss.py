"""The loss of a block of the grid and its gradient by hand, some cells at a time.

As `pair_loss`, but the first layer is an outer sum of what tasks and users bring, and a cell stands
for a positive and for its share of the negatives at once:

    a softplus(-f) + b softplus(f) = (a + b) softplus(f) - a f.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.steps.dropout import ReluDropout
from pipeline.steps.pair_loss import BLOCK, backwards, forwards, layers_of

ON_DEVICE = 1 << 22  # cells a block on a CUDA device; on a CPU BLOCK


def grid_loss(
    of_task: Tensor,
    of_user: Tensor,
    modules: Iterable[nn.Module],
    weight: Tensor,
    base: Tensor,
    beside: Tensor | None = None,
) -> Tensor:
    """Sum over cells of weight softplus(-f) + (the row's weight) base softplus(f): a scalar.

    Args:
        of_task: (T, h) what a task brings to the first hidden layer.
        of_user: (U, h) what a user brings.
        modules: the network from there on: a ReluDropout and a Linear in turn, the last of one
            output.
        weight: (T, U) of each cell's exposure.
        base: (U,) p.
        beside: (T, U) what is added to the network's logits.
    """
    layers = list(modules)
    hidden = [layer for layer in layers if isinstance(layer, ReluDropout)]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    tensors = [tensor for layer in linears for tensor in (layer.weight, layer.bias)]
    loss: Tensor = _GridLoss.apply(hidden, weight, base, beside, of_task, of_user, *tensors)  # type: ignore[no-untyped-call]
    return loss


class _GridLoss(torch.autograd.Function):
    """The loss, whose gradient is known as soon as the loss is."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden: Sequence[ReluDropout],
        weight: Tensor,
        base: Tensor,
        beside: Tensor | None,
        of_task: Tensor,
        of_user: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        layers = layers_of(hidden, rest)
        grad_task, grad_user = torch.zeros_like(of_task), torch.zeros_like(of_user)
        of_beside = None if beside is None else torch.empty_like(beside)
        loss = of_task.new_zeros(())
        row = weight.sum(1, keepdim=True)
        for some, users in _blocks(len(of_task), len(of_user), weight.device):
            positive = weight[some, users].contiguous()
            both = torch.addmm(positive, row[some], base[None, users]).view(-1, 1)
            z = (of_task[some, None] + of_user[users]).flatten(0, 1)
            ys, logits = forwards(layers, hidden, z, z)
            if beside is not None:
                logits.add_(beside[some, users].reshape(-1, 1))
            loss += (F.softplus(logits) * both - logits * positive.view(-1, 1)).sum()
            grad = logits.sigmoid_().mul_(both).sub_(positive.view(-1, 1))
            if of_beside is not None:
                of_beside[some, users] = grad.view_as(positive)
            backwards(layers, grad, ys, z)
            cells = ys[0].view(*positive.shape, -1)
            grad_task[some] += cells.sum(1)
            grad_user[users] += cells.sum(0)
        of_layers = (g for layer in layers for g in layer.gradients)
        ctx.gradients = [of_beside, grad_task, grad_user, *of_layers]
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None, None, None, *(g if g is None else g.mul_(grads[0]) for g in ctx.gradients)


def _blocks(tasks: int, users: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Parts of the grid, of some cells each."""
    size = BLOCK if device.type == "cpu" else ON_DEVICE
    wide = min(users, size)
    high = max(1, size // wide)
    for task in range(0, tasks, high):
        for user in range(0, users, wide):
            yield slice(task, task + high), slice(user, user + wide)
