"""Autoregressive networks: output i of d is a function of the inputs before i alone.

Germain et al., "MADE: Masked Autoencoder for Distribution Estimation" (2015).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS = 4  # of a net (paper)


class MaskedLinear(nn.Linear):
    """A fully connected layer of which only some weights count.

    Args:
        mask: which output (rows) sees which input (columns), bool (out, in).

    Shape: (..., in) -> (..., out).
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def masked_net(width: int, hidden: int) -> nn.Sequential:
    """Masked layers with ReLU between them, from `width` inputs to as many outputs.

    A hidden unit of degree k sees the inputs before k. Units take the degrees 1, ..., width - 1 in
    turn, so every layer should be at least that wide.

    Args:
        width: of the input and the output.
        hidden: width of every layer between.

    Shape: (..., width) -> (..., width).
    """
    degree = 1 + torch.arange(hidden) % max(1, width - 1)
    inner = [degree] * (LAYERS - 1)
    # Input i counts as degree i + 1: what sees it is of at least that degree. Output i sees what
    # is of degree i at most.
    sees = [*inner, torch.arange(width)]
    seen = [torch.arange(1, width + 1), *inner]
    masks = [high[:, None] >= low for high, low in zip(sees, seen, strict=True)]
    modules: list[nn.Module] = [MaskedLinear(masks[0])]
    for mask in masks[1:]:
        modules += [nn.ReLU(), MaskedLinear(mask)]
    return nn.Sequential(*modules)
