"""The ratio of separate learning: LRatio and LRatio+ of Table 2, left.

A ratio is learned on raw images by the trunk of Table 4, and on features by two hidden layers.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.arrays import Singles
from pipeline.images.params import Network
from pipeline.images.separate import Apart, score_apart, train_apart
from pipeline.models.conv_ratio import Augment, Trunk
from pipeline.models.stacked import Stacked
from pipeline.sections import Schedule
from pipeline.steps.pair_loss import ratio_loss
from pipeline.training.session import Session


def feature_net(x_dim: int, hidden: Sequence[int]) -> nn.Module:
    """The ratio of one task on features: (B, x_dim) -> (B, 1)."""
    layers: list[nn.Module] = []
    for before, after in pairwise((x_dim, *hidden)):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


def image_net(channels: int, network: Network) -> nn.Module:
    """The ratio of one task on images, unaugmented: (B, channels, 32, 32) -> (B, 1)."""
    trunk = Trunk(channels=channels, width=network.width)
    head = feature_net(8 * network.width, [network.head])
    return nn.Sequential(trunk.layers, head)


def ratio_scores(
    make: Callable[[], nn.Module],
    data: Apart,
    x: Tensor,
    test: Tensor,
    schedule: Schedule,
    *,
    augment: Augment | None,
    seed: int,
    session: Session,
) -> Singles:
    """Learn the log ratio of every task by itself; score `test` (U', ...): (M, U').

    Args:
        make: gives the network of one task.
        data: the tasks' own images, and those of p.
        x: images or features (U, ...), on the device of `data`.
        test: those to score.
        schedule: learning rate, batch, epochs, patience.
        augment: what is done to images in training.
        seed: of weights, draws and augmentation.
        session: how to train.
    """
    tasks = len(data.tasks)
    net = Stacked(make, tasks, torch.Generator().manual_seed(seed))

    def loss(own: Tensor, base: Tensor) -> Tensor:
        rows = torch.cat([own, base], dim=1)  # (M, 2 B)
        inputs = x[rows.flatten()]
        if augment is not None:
            inputs = augment(inputs)
        logits = net(inputs.view(*rows.shape, *x.shape[1:])).squeeze(-1)
        return ratio_loss(torch.stack(logits.T.chunk(2)))  # (2, B, M) -> (M,)

    train_apart(net, data, loss, schedule, seed=seed, session=session, also=augment)
    return score_apart(lambda part: net(part).squeeze(-1), test, tasks)
