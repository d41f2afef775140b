"""The conditional ratio of all tasks: Algorithm 1 from given task embeddings.

Scores are log ratios log q_t(x)/p(x) in nats: HIGH = common user, LOW = fresh (anomalous) user.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import Ints, Singles
from pipeline.auc import Sides
from pipeline.errors import PipelineError
from pipeline.estimation import estimate_ratio, make_estimation
from pipeline.examples import Examples
from pipeline.models.ratio import RatioNet, TaskRatios, head_dim
from pipeline.models.weights import draw_layers
from pipeline.platt import Platt
from pipeline.scoring import score_all
from pipeline.sections import Base, Scaling, Schedule, Stop, Visible
from pipeline.steps.dealt import fetch_rows
from pipeline.steps.grid import TaskGrid
from pipeline.steps.sampler import PairSampler
from pipeline.training.course import Batches
from pipeline.training.history import MISS, Row, best_row
from pipeline.training.session import Session
from pipeline.watch import watch_auc
from pipeline.yardsticks import exposure_sides

if TYPE_CHECKING:
    from pipeline.params import Ratio

WATCHED = 1 << 22  # scores behind the AUC of an epoch, at most
FETCHED = 1 << 16  # vectors of users that are fetched at a time for it


@dataclass(frozen=True)
class Conditional:
    """A trained network and the embeddings of its tasks, and how the training went."""

    net: RatioNet
    e: Singles  # (M, e_dim)
    history: list[Row]


def train_conditional(
    examples: Examples,
    task_init: Singles,
    *,
    params: "Ratio",
    seed: int,
    session: Session,
) -> Conditional:
    """Run Algorithm 1 on all tasks from the embeddings `task_init` (M, e_dim).

    Args:
        examples: users' vectors and their exposures to the tasks.
        task_init: where the embeddings start.
        params: base, whose exposures train, network and schedule.
        seed: of weights, batches, negatives and dropout.
        session: how to train; each of several processes learns from the exposures to its own tasks.
            A row of the history also holds `valid_auc`: the mean AUC over tasks of validation users
            with a held-out exposure against those without any.

    Returns:
        The network and the embeddings; with `params.linear` these are longer than `task_init` by
        the heads, see `RatioNet`.

    Raises:
        PipelineError: no exposures to learn from, or a loss that is not finite.
    """
    x_dim = examples.x.shape[1]
    # Heads start at 0.
    task_init = np.pad(task_init, ((0, 0), (0, head_dim(x_dim, params.linear))))
    net = RatioNet(
        x_dim=x_dim,
        task_dim=task_init.shape[1],
        hidden=params.hidden,
        dropout=params.dropout,
        linear=params.linear,
    )
    own = examples.on(session.ranks)
    return train_network(
        net,
        own,
        task_init,
        watched=exposure_sides(own.pairs, own.valid, own.tasks),
        base=params.base,
        visible=params.visible,
        stop=params.stop,
        scaling=params.scaling,
        grid_tasks=params.grid_tasks if params.mode == "grid" else None,
        freeze_e=params.freeze_e,
        schedule=params,
        seed=seed,
        session=session,
    )


def train_network(
    net: RatioNet,
    examples: Examples,
    task_init: Singles,
    *,
    watched: Sides,
    base: Base,
    visible: Visible = "train",
    stop: Stop = "loss",
    scaling: Scaling = "none",
    grid_tasks: int | None = None,
    within_batch: bool = False,
    freeze_e: bool,
    schedule: Schedule,
    seed: int,
    session: Session,
) -> Conditional:
    """The same for a network of one's own, whose weights are drawn here.

    Args, beside those of `train_conditional`:
        watched: the validation users that each task should tell apart, (M, valid users); theirs is
            the `valid_auc`. They and `examples` are of the process's own tasks, `task_init` of all.
        stop: whether the best epoch is that of the lowest validation loss or the highest
            `valid_auc`.
        scaling: whether the log ratios of a `RatioNet` are scaled once they are learned.
        grid_tasks: makes a step of so many tasks and all training users. Of a `RatioNet`, in one
            process.
        within_batch: makes the negatives of a step its positives, see
            `PairSampler.within_batches`. With base exposures, in one process.
    """
    ranks = session.ranks
    if grid_tasks is not None and not ranks.alone:
        raise PipelineError(
            f"ratio.mode grid trains in one process, but {ranks.size} were started; "
            "set runtime.processes to 1, or ratio.mode to sampled."
        )
    data = make_estimation(examples, base=base, visible=visible, device=session.device, ranks=ranks)
    draw_layers(net, torch.Generator().manual_seed(seed))
    x, e = torch.from_numpy(examples.deal_x(ranks).x), torch.from_numpy(task_init)
    model = TaskRatios(net, x=x, e=e, freeze_e=freeze_e, ranks=ranks)
    watch = watch_auc(
        watched,
        examples.valid,
        partial(_scores, model),
        most=WATCHED,
        ranks=ranks,
    )
    batches, loss = _steps(
        model, data.train, grid_tasks, within=schedule.batch_size if within_batch else None
    )
    history = estimate_ratio(
        model,
        data,
        schedule,
        seed=seed,
        session=session,
        batches=batches,
        loss=loss,
        scaling=scaling,
        figures=watch if stop == "loss" else partial(_missing, watch),
        tables=TaskRatios.of_tasks,
    )
    if scaling == "platt":
        kept = best_row(history)
        net.scale(Platt(kept["slope"], kept["offset"]), model.e)
    return Conditional(net.cpu().eval(), model.e.detach().cpu().numpy(), history)


def _scores(model: TaskRatios, tasks: Ints, users: Ints) -> Singles:
    """Scores (A, U) of rows of tasks (A,) and users (U,), whose vectors may have to be fetched."""
    rows = torch.from_numpy(users).to(model.x.device)
    at_once = FETCHED if model.ranks.deal_out else max(1, len(rows))
    found = (fetch_rows(model.x, some, model.ranks) for some in rows.split(at_once))
    e = model.e[tasks]
    return np.concatenate([score_all(model.net, x[place], e) for x, place in found], axis=1)


def _missing(watch: Callable[[], Row]) -> Row:
    """What is watched, and the share of users in the wrong order."""
    row = watch()
    if np.isnan(row["valid_auc"]):
        raise PipelineError(
            "ratio.stop auc: no task has a validation user with a held-out exposure and one "
            "without any; set it to loss, or raise data.held_out_share or data.valid_share."
        )
    return {**row, MISS: 1 - row["valid_auc"]}


def _steps(
    model: TaskRatios, train: PairSampler, grid_tasks: int | None, *, within: int | None
) -> tuple[Batches | None, Callable[[Tensor, Tensor], Tensor]]:
    """An epoch's batches, None for those of `train` itself, and the loss of one."""
    if within is not None:
        return partial(train.within_batches, within), model.loss_within
    if grid_tasks is None:
        return None, model.loss
    grid = TaskGrid.of(train)
    return lambda gen: grid.epoch(grid_tasks, gen), partial(model.grid_loss, grid)
