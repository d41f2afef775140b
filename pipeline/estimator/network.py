"""The detector's network, made without moving torch's own stream of random numbers.

Torch's layers draw their weights from it as they are made. An application that trains something of
its own would go on otherwise for having made or loaded a detector.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.models.ratio import RatioNet
from pipeline.models.weights import draw_layers


def undrawn(config: Mapping[str, Any]) -> RatioNet:
    """The network of which `config` are the arguments; its weights are to be drawn or read."""
    with torch.random.fork_rng(devices=[]):
        return RatioNet(**config)


def drawn(
    *, x_dim: int, task_dim: int, hidden: Sequence[int], gen: np.random.Generator
) -> RatioNet:
    """A network without dropout, its weights drawn from `gen`."""
    dropout = [0.0] * len(hidden)
    net = undrawn({"x_dim": x_dim, "task_dim": task_dim, "hidden": hidden, "dropout": dropout})
    draw_layers(net, torch.Generator().manual_seed(int(gen.integers(2**31))))
    return net
