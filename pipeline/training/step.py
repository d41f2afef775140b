"""A training step: the loss of a batch, its gradient, and what the optimiser makes of it."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.training.capture import InTwo, Step
from pipeline.training.split import Split


def make_step(loss: Callable[..., Tensor], optimiser: torch.optim.Optimizer, split: Split) -> Step:
    """A step on a batch, which gives its loss: of several processes what this one adds to it.

    Each one's loss is its share of the loss of the whole batch, so gradients add up. Those of what
    every process holds go in one message, halfway.
    """

    def learn(*batch: Tensor) -> Tensor:
        optimiser.zero_grad()
        value = loss(*batch)
        value.backward()
        return value.detach()

    def alone(*batch: Tensor) -> Tensor:
        value = learn(*batch)
        optimiser.step()
        return value

    def first(*batch: Tensor) -> Tensor:
        value = learn(*batch)
        return torch.cat([*(gradient.reshape(-1) for gradient in split.shared()), value[None]])

    def meet(given: Tensor) -> None:
        split.ranks.add_(given[:-1])

    def second(given: Tensor) -> Tensor:
        shared = split.shared()
        sums = given[:-1].split([gradient.numel() for gradient in shared])
        for gradient, added in zip(shared, sums, strict=True):
            gradient.copy_(added.view_as(gradient))
        optimiser.step()
        return given[-1].clone()

    return alone if split.ranks.alone else InTwo(first, meet, second)
