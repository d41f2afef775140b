"""Gathering equals indexing, in value and in gradient; rows repeat, as users of a batch do."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pipeline.steps import inner
from pipeline.steps.gather import gather, gather_linear


def normal(*shape: int, seed: int = 0) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=gen, dtype=torch.float64).requires_grad_()


def rows(n: int, *shape: int) -> Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(2))


def gradients(value: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    weight = normal(*value.shape, seed=3).detach()
    return torch.autograd.grad((value * weight).sum(), leaves)


@pytest.mark.parametrize("shape", [(40,), (2, 40), (3,), (1, 1, 1), (0,)])
def test_gathered_rows_are_indexed_rows(shape: tuple[int, ...]) -> None:
    table, index = normal(7, 4), rows(7, *shape)
    found, expected = gather(table, index), table[index]
    assert torch.equal(found, expected)
    torch.testing.assert_close(gradients(found, table), gradients(expected, table))


@pytest.mark.parametrize("shape", [(40,), (2, 40), (7,), (6,), (2, 3), (1,)])
def test_rows_times_a_matrix_are_the_same_whichever_side_is_multiplied(
    shape: tuple[int, ...],
) -> None:
    """The table has 7 rows: it is multiplied whole for 7 indices and more, else what is asked."""
    table, weight, index = normal(7, 4), normal(5, 4, seed=1), rows(7, *shape)
    found, expected = gather_linear(table, weight, index), table[index] @ weight.T
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, table, weight), gradients(expected, table, weight))


@pytest.mark.parametrize(("pairs", "multiplied"), [(7, 7), (8, 7), (6, 6)])
def test_the_smaller_side_is_multiplied(pairs: int, multiplied: int) -> None:
    table, weight, index = normal(7, 4), normal(5, 4, seed=1), rows(7, pairs)
    with FlopCounterMode(display=False) as counter:
        gather_linear(table, weight, index)
    assert counter.get_total_flops() == 2 * multiplied * 4 * 5


@pytest.mark.parametrize(
    ("left", "right"), [((40,), (2, 40)), ((2, 40), (40,)), ((3,), (3,)), ((0,), (2, 0))]
)
def test_inner_products_are_those_of_indexed_rows(
    left: tuple[int, ...], right: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs repeat, and blocks of 7 do not show."""
    monkeypatch.setattr(inner, "BLOCK", 7)
    table, other, i, j = normal(3, 4), normal(5, 4, seed=1), rows(3, *left), rows(5, *right)
    found = inner.inner_products(table, other, i, j)
    expected = (table[i] * other[j]).sum(-1)
    torch.testing.assert_close(found, expected)
    of_table, of_other = gradients(expected, table, other)
    torch.testing.assert_close(gradients(found, table, other), (of_table, of_other))
    fixed = inner.inner_products(table.detach(), other, i, j)
    torch.testing.assert_close(gradients(fixed, other), (of_other,))
