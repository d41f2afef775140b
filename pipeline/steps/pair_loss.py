"""Equation 3 and its gradient by hand, a block of pairs at a time.

The networks are a few narrow layers on the sum of rows of tables. By autograd such a step moves
every activation through memory many times; here a block of pairs goes forwards and backwards while
its activations are in the processor's cache. `ratio_loss` on the networks' logits is the same loss,
and what the tests hold this to.

With y_k the k-th hidden layer after ReLU and mask, before dropout's scale s_k, and W_k, b_k the
layer that follows,

    y_k+1 = mask(relu(y_k (s_k W_k)^T + b_k)),    y_0 = mask(relu(sum of rows of the tables)).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.steps.dropout import ReluDropout, backward_to
from pipeline.steps.gather import scatter_add

BLOCK = 1 << 13  # pairs a block on a CPU; elsewhere all at once


def ratio_loss(logits: Tensor) -> Tensor:
    """Equation 3 on logits (2, N): row 0 under q_t, row 1 under p. At its minimum f = log q_t/p.

    Softplus is stable for large logits, where a logarithm of a sigmoid is not. Of several ratios
    side by side, (2, N, M), each has its own loss, (M,).
    """
    return F.softplus(-logits[0]).mean(0) + F.softplus(logits[1]).mean(0)


@dataclass(frozen=True)
class TableRows:
    """A table and, for each pair, a row of it."""

    table: Tensor  # (n, hidden[0])
    index: Tensor  # (2, N), or (N,) where the pairs of a task share it


def pair_loss(
    inputs: Sequence[TableRows],
    modules: Iterable[nn.Module],
    task: Tensor,
    beside: Tensor | None = None,
) -> Tensor:
    """Equation 3 of pairs (2, N), row 0 under q_t, row 1 under p: a scalar.

    Args:
        inputs: what is added up before the first ReLU.
        modules: the network from there on: a ReluDropout and a Linear in turn, the last of one
            output, or of one a task.
        task: (N,) output of each pair, where there are several.
        beside: (2, N) what is added to the network's logits.
    """
    layers = list(modules)
    plan = _Plan(
        indices=[rows.index.expand(2, len(task)).reshape(-1) for rows in inputs],
        output=task.repeat(2),
        hidden=[layer for layer in layers if isinstance(layer, ReluDropout)],
    )
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    tensors = [rows.table for rows in inputs]
    tensors += [tensor for layer in linears for tensor in (layer.weight, layer.bias)]
    flat = beside if beside is None else beside.reshape(-1)
    loss: Tensor = _PairLoss.apply(plan, flat, *tensors)  # type: ignore[no-untyped-call]
    return loss


@dataclass(frozen=True)
class _Plan:
    """All of a batch but the tensors that may want a gradient."""

    indices: Sequence[Tensor]  # for each table, the row of each pair (2 N,)
    output: Tensor  # (2 N,)
    hidden: Sequence[ReluDropout]


class _PairLoss(torch.autograd.Function):
    """The loss, whose gradient is known as soon as the loss is."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, beside: Tensor | None, *tensors: Tensor) -> Tensor:  # noqa: ANN401
        tables, rest = tensors[: len(plan.indices)], tensors[len(plan.indices) :]
        layers = layers_of(plan.hidden, rest)
        if len(rest[-1]) > 1:
            layers[-1] = _OutputOfTask(rest[-2], rest[-1], plan.hidden[-1].scale)
        loss, of_beside, of_tables = _loss_and_gradients(plan, beside, tables, layers)
        ctx.gradients = [of_beside, *of_tables, *(g for layer in layers for g in layer.gradients)]
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None, *(g if g is None else g.mul_(grads[0]) for g in ctx.gradients)


class Layer:
    """A fully connected layer on y, which dropout is still to scale, and its gradients so far."""

    def __init__(self, weight: Tensor, bias: Tensor, scale: float) -> None:
        self.weight, self.bias, self.scale = weight * scale, bias, scale
        self.of_weight, self.of_bias = torch.zeros_like(weight), torch.zeros_like(bias)

    def forward(self, y: Tensor, task: Tensor) -> Tensor:
        """Apply it to y (n, d), (n, outputs)."""
        return torch.mm(y, self.weight.T).add_(self.bias)

    def backward(self, grad: Tensor, y: Tensor, task: Tensor) -> Tensor:
        """Add to the gradients, from that of the outputs; gives that of y."""
        self.of_weight.addmm_(grad.T, y)
        self.of_bias.add_(grad.sum(0))
        return grad @ self.weight

    @property
    def gradients(self) -> tuple[Tensor, Tensor]:
        """Of the weight and of the bias."""
        return self.of_weight * self.scale, self.of_bias


class _OutputOfTask(Layer):
    """The last layer, where each task has an output: of each row only that of its task."""

    def forward(self, y: Tensor, task: Tensor) -> Tensor:
        return (y * self.weight[task]).sum(1, keepdim=True).add_(self.bias[task, None])

    def backward(self, grad: Tensor, y: Tensor, task: Tensor) -> Tensor:
        self.of_weight.index_add_(0, task, grad * y)
        self.of_bias.index_add_(0, task, grad[:, 0])
        return grad * self.weight[task]


def layers_of(hidden: Sequence[ReluDropout], tensors: Sequence[Tensor]) -> list[Layer]:
    """The layers after each of the hidden ones, from their weights and biases in turn."""
    return [
        Layer(weight, bias, below.scale)
        for weight, bias, below in zip(tensors[::2], tensors[1::2], hidden, strict=True)
    ]


def forwards(
    layers: Sequence[Layer], hidden: Sequence[ReluDropout], z: Tensor, task: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Every y, the first in place of z (n, d), and the logits (n, 1)."""
    ys = []
    for layer, below in zip(layers, hidden, strict=True):
        ys.append(below.masked_(z))
        z = layer.forward(ys[-1], task)
    return ys, z


def backwards(layers: Sequence[Layer], grad: Tensor, ys: Sequence[Tensor], task: Tensor) -> None:
    """From the gradient of the logits (n, 1) to that of the first z, in place of the first y."""
    for layer, y in zip(reversed(layers), reversed(ys), strict=True):
        grad = layer.backward(grad, y, task)
        backward_to(grad if y is not ys[0] else y, grad, y)


def _loss_and_gradients(
    plan: _Plan, beside: Tensor | None, tables: Sequence[Tensor], layers: Sequence[Layer]
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """The loss, and the gradients of `beside` (2 N,) and of each table.

    Those of the layers are left with them.
    """
    n = len(plan.output)
    first = tables[0].new_empty(n, tables[0].shape[1])  # hidden layer, later its gradient
    side = first.new_ones(n)  # of the margin: -1 where f should be high
    side[: n // 2] = -1
    of_beside = None if beside is None else torch.empty_like(beside)
    loss = first.new_zeros(())
    size = BLOCK if first.device.type == "cpu" else max(1, n)
    for start in range(0, n, size):
        part = slice(start, start + size)
        task = plan.output[part]
        z = torch.index_select(tables[0], 0, plan.indices[0][part], out=first[part])
        for table, index in zip(tables[1:], plan.indices[1:], strict=True):
            z.add_(table.index_select(0, index[part]))
        ys, z = forwards(layers, plan.hidden, z, task)
        if beside is not None:
            z.add_(beside[part, None])
        margin = z.mul_(side[part, None])
        loss += F.softplus(margin).sum()
        grad = margin.sigmoid_().mul_(side[part, None]).div_(n // 2)
        if of_beside is not None:
            of_beside[part] = grad[:, 0]
        backwards(layers, grad, ys, task)
    of_tables = [
        scatter_add(first, index, len(table))
        for table, index in zip(tables, plan.indices, strict=True)
    ]
    return loss / (n // 2), of_beside, of_tables
