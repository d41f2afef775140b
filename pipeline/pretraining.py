"""The pre-embedding model: log ratios of a few seed tasks, whose values place every other task.

Paper: Bai et al., section 4. Algorithm 1 on M0 seed tasks with a network that has a head a task.
Its task embeddings, which the paper drops, it does not have in the first place.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.arrays import Ints, Singles
from pipeline.estimation import estimate_ratio, make_estimation
from pipeline.examples import Examples
from pipeline.models.ratio import PreEmbeddingNet, SeedRatios
from pipeline.models.weights import device_of, draw_layers
from pipeline.pairs import Pairs
from pipeline.sections import Base, Schedule
from pipeline.training.history import Row
from pipeline.training.session import Session

if TYPE_CHECKING:
    from pipeline.params import Pretrain


@dataclass(frozen=True)
class Pretraining:
    """A trained pre-embedding model, the tasks of its heads, and how its training went."""

    net: PreEmbeddingNet
    seed_tasks: Ints  # (M0,) rows of tasks, rising; head s belongs to seed_tasks[s]
    history: list[Row]


def pretrain(
    examples: Examples,
    seed_tasks: Ints,
    *,
    base: Base,
    params: "Pretrain",
    seed: int,
    session: Session,
) -> Pretraining:
    """Train the pre-embedding model on the exposures to the seed tasks.

    Args:
        examples: of all tasks; those of other tasks take no part, neither in the base.
        seed_tasks: rows of tasks, rising, each with a pair.
        base: p, over the seed tasks' exposures or over users.
        params: network and schedule.
        seed: of weights, batches, negatives and dropout.
        session: how to train; each of several processes learns from the exposures to its own tasks.

    Raises:
        PipelineError: no exposures to learn from, or a loss that is not finite.
    """
    net = PreEmbeddingNet(
        x_dim=examples.x.shape[1],
        heads=len(seed_tasks),
        hidden=params.hidden,
        dropout=params.dropout,
    )
    return pretrain_network(
        net,
        examples,
        seed_tasks,
        base=base,
        schedule=params,
        seed=seed,
        session=session,
    )


def pretrain_network(
    net: PreEmbeddingNet,
    examples: Examples,
    seed_tasks: Ints,
    *,
    base: Base,
    within_batch: bool = False,
    schedule: Schedule,
    seed: int,
    session: Session,
) -> Pretraining:
    """The same for a network of one's own, with a head a seed task; its weights are drawn here.

    `within_batch` is that of `train_network`.
    """
    pairs = examples.pairs
    head = np.searchsorted(seed_tasks, pairs.task)
    of_seeds = Pairs(pairs.user, head, pairs.held_out).where(np.isin(pairs.task, seed_tasks))
    ranks = session.ranks
    own = replace(examples, pairs=of_seeds, tasks=len(seed_tasks)).on(ranks)
    data = make_estimation(own, base=base, device=session.device, ranks=ranks)
    draw_layers(net, torch.Generator().manual_seed(seed))
    model = SeedRatios(net, x=torch.from_numpy(own.deal_x(ranks).x), ranks=ranks)
    history = estimate_ratio(
        model,
        data,
        schedule,
        seed=seed,
        session=session,
        batches=partial(data.train.within_batches, schedule.batch_size) if within_batch else None,
        loss=model.loss_within if within_batch else model.loss,
        tables=SeedRatios.of_tasks,
    )
    return Pretraining(net.cpu().eval(), seed_tasks, history)


@torch.no_grad()
def seed_ratios(net: PreEmbeddingNet, x: Singles, block: int = 1 << 16) -> Singles:
    """The basis functions of section 4, f_1(x), ..., f_M0(x), of every user: (U, x_dim) -> (U, M0).

    In eval mode: without dropout. On the device of `net`.
    """
    net.eval()
    device = device_of(net)
    parts = [net(part.to(device)).cpu() for part in torch.from_numpy(x).split(block)]
    values: Singles = torch.cat(parts).numpy()
    return values
