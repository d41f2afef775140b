"""Inner products of rows of two tables, and their way back."""

from typing import Any

import torch
from scipy.sparse import coo_array
from torch import Tensor

from pipeline.steps.gather import gather

BLOCK = 1 << 12  # rows at a time, which stay in the processor's cache


class _InnerProducts(torch.autograd.Function):
    """On a CPU. A gradient is a product with the sparse matrix of what flows back to each pair."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, i: Tensor, j: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(left, right, i, j)
        parts = [
            left.index_select(0, some).mul_(right.index_select(0, others)).sum(1)
            for some, others in zip(i.split(BLOCK), j.split(BLOCK), strict=True)
        ]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        left, right, i, j = ctx.saved_tensors
        places = (i.numpy(), j.numpy())
        matrix = coo_array((grads[0].numpy(), places), shape=(len(left), len(right))).tocsr()
        of_left, of_right, *_ = ctx.needs_input_grad
        return (
            torch.from_numpy(matrix @ right.detach().numpy()) if of_left else None,
            torch.from_numpy(matrix.T @ left.detach().numpy()) if of_right else None,
            None,
            None,
        )


def inner_products(left: Tensor, right: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Of row i of `left` (n, d) and row j of `right` (m, d), for all of two indices.

    Shape: i and j, broadcast to one shape -> that shape.
    """
    if left.device.type != "cpu":
        return (gather(left, i) * gather(right, j)).sum(-1)
    i, j = torch.broadcast_tensors(i, j)
    flat: Tensor = _InnerProducts.apply(left, right, i.reshape(-1), j.reshape(-1))  # type: ignore[no-untyped-call]
    return flat.view(i.shape)
