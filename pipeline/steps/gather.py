"""Rows of a table by index, and rows of a table times a matrix: the first layer, factored."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csc_array
from torch import Tensor


class _Gather(torch.autograd.Function):
    """F.embedding with `scatter_add` on the way back, ten times faster than its own on a CPU."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(index)
        ctx.shape = table.shape
        return F.embedding(index, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (index,) = ctx.saved_tensors
        rows = grads[0].reshape(-1, ctx.shape[1])
        return scatter_add(rows, index.reshape(-1), ctx.shape[0]), None


def scatter_add(rows: Tensor, index: Tensor, n: int) -> Tensor:
    """Sum of the `rows` (N, d) that belong to each of n places, by `index` (N,): -> (n, d)."""
    if rows.device.type != "cpu":
        return rows.new_zeros(n, rows.shape[1]).index_add_(0, index, rows)
    # A product with a sparse matrix of ones: twice as fast as `index_add_`, and in order.
    values = rows.detach().numpy()
    ones = np.ones(len(index), values.dtype)
    ends = np.arange(len(index) + 1)
    places = csc_array((ones, index.numpy(), ends), shape=(n, len(index)))
    return torch.from_numpy(places @ values)


def gather(table: Tensor, index: Tensor) -> Tensor:
    """Rows of `table` (n, d) at `index` (...) -> (..., d); differentiable in `table`."""
    rows: Tensor = _Gather.apply(table, index)  # type: ignore[no-untyped-call]
    return rows


def linear_rows(table: Tensor, weight: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Products of rows of `table` (n, d) with `weight` (h, d) transposed, and where each stands.

    Whichever side is smaller is multiplied: the whole table once, or only the gathered rows.

    Returns:
        Products (k, h), and for every entry of `index` (...) the row of its product, (...).
    """
    if len(table) <= index.numel():
        return table @ weight.T, index
    places = torch.arange(index.numel(), device=index.device).view(index.shape)
    return gather(table, index.reshape(-1)) @ weight.T, places


def gather_linear(table: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """Row `i` of `table` (n, d) times `weight` (h, d) transposed, for every i of `index` (...).

    Shape: -> (..., h).
    """
    return gather(*linear_rows(table, weight, index))
