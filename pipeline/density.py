"""Learn log q_t(x) for all tasks by maximum likelihood: the baselines of Table 1.

Scores are log densities in nats: HIGH = common user, LOW = fresh (anomalous) user. Unlike the
ratio's, those of different tasks compare only if the tasks' densities are alike in spread.
"""

import math

import torch
from torch import Tensor

from pipeline.arrays import Singles
from pipeline.auc import Sides
from pipeline.estimation import make_estimation
from pipeline.examples import Examples
from pipeline.models.gaussian import ConditionalGaussian
from pipeline.models.maf import ConditionalMaf, lowest_where_undefined
from pipeline.sections import Schedule
from pipeline.steps.sampler import PairSampler
from pipeline.training.history import Row
from pipeline.training.loop import fit
from pipeline.training.session import Session
from pipeline.watch import watch_auc

Density = ConditionalGaussian | ConditionalMaf
BLOCK = 1 << 14  # pairs scored at a time
WATCHED = 1 << 17  # scores behind the AUC of an epoch, at most


def train_density(
    net: Density,
    examples: Examples,
    *,
    watched: Sides,
    schedule: Schedule,
    weight_decay: float,
    noise: float = 0.0,
    seed: int,
    session: Session,
) -> list[Row]:
    """Train `net` on the exposures of training users until its validation loss is lowest.

    Args:
        net: drawn anew here; left on the CPU at its best epoch, in eval mode.
        examples: users' vectors and their exposures to the tasks.
        watched: the validation users that each task should tell apart, (M, valid users); theirs is
            the `valid_auc`.
        schedule: learning rate, batch size, epochs, patience.
        weight_decay: Adam's.
        noise: what is added to x in training, normal, in standard deviations of each of its
            numbers. Where x are points that repeat, a density without any grows without bound.
        seed: of the weights, of the order of the pairs, and of the noise.
        session: where and how to train.

    Returns:
        The history: epoch, train_loss, valid_loss (the mean -log q_t(x) over the visible exposures
        of validation users), held_out_loss (over their held-out ones), and valid_auc.

    Raises:
        PipelineError: no exposures to learn from, or a loss that is not finite.
    """
    device = session.device
    data = make_estimation(examples, base="users", device=device)  # whose negatives stay undrawn
    net.draw_weights(torch.Generator().manual_seed(seed))
    net.to(device)
    x = torch.from_numpy(examples.x).to(device)
    gen = torch.Generator(device).manual_seed(seed)
    spread = noise * x.std(0)

    def loss(user: Tensor, task: Tensor) -> Tensor:
        near = x[user]
        if noise:
            drawn = torch.randn(near.shape, generator=gen, device=device)
            near = near + spread * drawn
        mean: Tensor = net(near, task).mean()
        return -mean

    watch = watch_auc(
        watched,
        examples.valid,
        lambda tasks, users: density_scores(net, x[users], torch.from_numpy(tasks).to(device)),
        most=WATCHED,
    )

    def validate() -> Row:
        if isinstance(net, ConditionalMaf):
            net.settle(x[data.train.user], data.train.task)
        return {
            "valid_loss": _mean_loss(net, x, data.valid),
            "held_out_loss": _mean_loss(net, x, data.held_out),
            **watch(),
        }

    history = fit(
        net,
        batches=lambda: data.train.positives(schedule.batch_size, gen),
        loss=loss,
        validate=validate,
        schedule=schedule,
        session=session,
        weight_decay=weight_decay,
        random={"batches": gen},
        capture=True,
    )
    net.cpu()
    return history


def density_scores(net: Density, x: Tensor, tasks: Tensor) -> Singles:
    """Log densities of users under tasks, a block of tasks at a time; high = common.

    See `lowest_where_undefined` for where a flow overflows.

    Shape: x (U, x_dim), tasks (A,) rows of tasks -> (A, U).
    """
    net.eval()
    with torch.no_grad():
        blocks = [net(x, part[:, None]) for part in tasks.split(max(1, BLOCK // len(x)))]
    scores: Singles = lowest_where_undefined(torch.cat(blocks)).cpu().numpy()
    return scores


def _mean_loss(net: Density, x: Tensor, pairs: PairSampler) -> float:
    """Mean -log q_t(x) over the pairs, in blocks; NaN where there are none."""
    if not len(pairs.user):
        return math.nan
    blocks = zip(pairs.user.split(BLOCK), pairs.task.split(BLOCK), strict=True)
    return -float(torch.cat([net(x[user], task) for user, task in blocks]).mean())
