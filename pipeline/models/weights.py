"""Weights of layers, drawn from a generator of one's own."""

import torch
from torch import nn

Drawn = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def draw_linear(layer: Drawn, gen: torch.Generator, inputs: int | None = None) -> None:
    """Draw weight and bias uniformly within 1 / sqrt(inputs), as torch's layers do by themselves.

    Args:
        layer: on the CPU, where draws are the same on every machine.
        gen: the source of randomness.
        inputs: width of the layer's input; given where the layer is a part of a wider one.
    """
    bound = (inputs or layer.weight[0].numel()) ** -0.5
    for weight in layer.parameters():
        nn.init.uniform_(weight, -bound, bound, generator=gen)


def draw_layers(module: nn.Module, gen: torch.Generator) -> None:
    """Draw every fully connected and convolutional layer inside `module`, in order."""
    for layer in module.modules():
        if isinstance(layer, Drawn):
            draw_linear(layer, gen)


def device_of(model: nn.Module) -> torch.device:
    """Where the weights of `model` lie."""
    return next(model.parameters()).device
