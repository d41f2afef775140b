"""Algorithm 1, ESTIMATECLR: learn log ratios by logistic regression against a base distribution.

For the pre-embedding model on the seed tasks, for all tasks, and for rows of groups.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.arrays import Bools, Ints
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.pairs import in_rows
from pipeline.platt import UNSCALED, Platt, fit_platt
from pipeline.ranks import ALONE, Ranks
from pipeline.sections import Base, Scaling, Schedule, Visible
from pipeline.steps.dealt import alike
from pipeline.steps.pair_loss import ratio_loss
from pipeline.steps.sampler import CountedSampler, PairSampler
from pipeline.training.course import Batches, make_course
from pipeline.training.history import MISS, PLATEAU, SCALED, Row
from pipeline.training.loop import fit
from pipeline.training.session import Session
from pipeline.training.split import Split
from pipeline.unmet import Met

CHANCE = 2 * math.log(2)  # the loss of f = 0
PLATEAUS = {"valid_loss": PLATEAU, MISS: 0.49}  # half of all answers are wrong by chance


@dataclass(frozen=True)
class Estimation:
    """What Algorithm 1 learns from and is judged by; `scaling` is what Platt scaling goes by."""

    train: PairSampler  # exposures of training users, or visible ones of all users
    valid: PairSampler  # exposures of validation users that nothing learns from: what ends training
    held_out: PairSampler  # held-out exposures of validation users; p as of `valid`
    scaling: PairSampler | None = None  # if not by `valid`: all exposures of validation users


def make_estimation(
    examples: Examples,
    *,
    base: Base,
    visible: Visible = "train",
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Estimation:
    """Sort the exposures into those that train and those that validate.

    The negatives of validation users are drawn from validation users too: against training users,
    whom the network has seen, the loss would be no held-out loss. Those of held-out exposures are
    users who have not met the item (`pipeline.unmet`); so by them alone, as with `visible` all, the
    order is judged but no ratio to the whole of p: that is scaled by all their exposures.

    Args:
        examples: exposures to the tasks in play.
        base: which p.
        visible: whose exposures train: training users' alone, so that validation users' visible
            ones validate; or the visible ones of all users, so that only held-out ones can.
        device: where the samplers live.
        ranks: the processes, to whose own tasks these exposures are; p is over those to all tasks.

    Raises:
        PipelineError: no exposure to learn from, none to validate by, or none to do it against.
    """
    pairs, train, valid = examples.pairs, examples.train, examples.valid
    of_valid = in_rows(pairs.user, valid, examples.users)
    if visible == "train":
        learners, learned = train, in_rows(pairs.user, train, examples.users)
        validating = of_valid & ~pairs.held_out
    else:
        learners, learned = np.arange(examples.users), ~pairs.held_out
        validating = of_valid & pairs.held_out

    def sampler(mask: Bools, rows: Ints, drawn_from: Bools, met: Met | None = None) -> PairSampler:
        chosen = pairs.where(mask)
        column = torch.from_numpy(pairs.user[drawn_from] if base == "exposures" else rows)
        user, task = (torch.from_numpy(of).to(device) for of in (chosen.user, chosen.task))
        if ranks.alone:
            return PairSampler(user, task, column.to(device), met)
        entries = column.bincount(minlength=examples.users)
        of_all = ranks.add_(entries) if base == "exposures" else entries
        return CountedSampler(user, task, of_all.cumsum(0).to(device), met)

    exposed = ranks.total(len(pairs))
    for name, mask in {"train": learned, "validate": validating}.items():
        if not ranks.total(mask.sum()):
            raise PipelineError(
                f"none of the {exposed:,} exposures to the tasks can {name}: with "
                f"ratio.visible {visible!r} that takes {_WHOSE[visible, name]}. Raise the number "
                "of exposures, or change the shares in `data`."
            )
    seen = of_valid & ~pairs.held_out
    if base == "exposures" and not ranks.total(seen.sum()):
        raise PipelineError(
            f"none of the {exposed:,} exposures to the tasks is a visible one of a validation "
            "user, from which validation draws its negatives with ratio.base 'exposures'; set it "
            "to users, or change the shares in `data`."
        )
    met = Met.of(pairs.user[seen], pairs.task[seen])
    held_out = sampler(of_valid & pairs.held_out, valid, seen, met)
    learns = sampler(learned, learners, learned)
    if visible == "all":
        return Estimation(learns, held_out, held_out, sampler(of_valid, valid, seen))
    return Estimation(learns, sampler(validating, valid, seen), held_out)


_WHOSE = {
    ("train", "train"): "exposures of training users",
    ("train", "validate"): "visible exposures of validation users",
    ("all", "train"): "visible exposures",
    ("all", "validate"): "held-out exposures of validation users",
}


def estimate_ratio(
    model: nn.Module,
    data: Estimation,
    schedule: Schedule,
    *,
    seed: int,
    session: Session,
    batches: Batches | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    scaling: Scaling = "none",
    figures: Callable[[], Row] = dict,
    tables: Collection[str] = (),
) -> list[Row]:
    """Train `model` (user (2, N), task (N,) -> logits (2, N)) until it validates best.

    Args:
        model: a TaskRatios, a SeedRatios, or anything with their shape.
        data: the pairs.
        schedule: learning rate, batch size, epochs, patience.
        seed: of the order of the pairs, the negatives and the dropout masks.
        session: how to train; `data`, on the device already, are the pairs of this process.
        batches: gives an epoch of batches for `loss`, of one process; None for pairs, each with a
            drawn negative.
        loss: the model's own way to the `ratio_loss` of its logits, where it has a faster one, or
            its loss of the `batches`.
        scaling: platt adds to each row the slope and the offset that suit the validation pairs, or
            those of `data.scaling`, and the losses with them; the model stays as it is.
        figures: further figures for each row, from the model in eval mode; see `fit`.
        tables: parameters of the model with a row a task, which several processes deal out.

    Returns:
        The history: epoch, train_loss (under dropout), valid_loss, held_out_loss, then by
        `scaling` slope, offset, scaled_valid_loss and scaled_held_out_loss, and `figures`.
    """
    ranks = session.ranks
    with Split(model, tables, ranks) as split:
        model.to(data.train.user.device)
        judged = [data.valid, data.held_out]
        if scaling == "platt" and data.scaling is not None:
            judged.append(data.scaling)
        course = make_course(
            model,
            loss or (lambda user, task: ratio_loss(model(user, task))),
            data.train,
            judged,
            batch_size=schedule.batch_size,
            seed=seed,
            ranks=ranks,
            batches=batches,
        )

        def mean(logits: Tensor, platt: Platt = UNSCALED) -> float:
            scaled = platt.slope * logits + platt.offset
            return ranks.mean(float(ratio_loss(scaled)), logits.shape[1])

        def validate() -> Row:
            valid, held_out, *by = (_logits(model, *pairs, ranks=ranks) for pairs in course.valid)
            row = {"valid_loss": mean(valid), "held_out_loss": mean(held_out)}
            if scaling == "platt":
                platt = _scaling(by[0] if by else valid, ranks)
                losses = mean(valid, platt), mean(held_out, platt)
                row |= zip(SCALED, (platt.slope, platt.offset, *losses), strict=True)
            return {**row, **figures()}

        return fit(
            model,
            batches=course.batches,
            loss=course.loss,
            validate=validate,
            schedule=schedule,
            plateaus=PLATEAUS,
            session=session,
            random=course.random,
            split=split,
            capture=True,
        )


def pair_losses(
    model: nn.Module, user: Tensor, task: Tensor, block: int = 1 << 17, *, ranks: Ranks = ALONE
) -> Tensor:
    """Equation 3 of each of fixed pairs (2, N) of this process, (N,), some at a time."""
    logits = _logits(model, user, task, block, ranks=ranks)
    return F.softplus(-logits[0]) + F.softplus(logits[1])


def _logits(
    model: nn.Module, user: Tensor, task: Tensor, block: int = 1 << 17, *, ranks: Ranks
) -> Tensor:
    """Of fixed pairs (2, N) of this process, (2, N), some at a time."""
    blocks = [*zip(user.split(block, dim=1), task.split(block), strict=True)]
    return torch.cat([model(u, t) for u, t in alike(blocks, ranks)], dim=1)


def _scaling(valid: Tensor, ranks: Ranks) -> Platt:
    """What makes the loss of validation logits (2, N) lowest; nothing if it turned the order round.

    Then nothing has been learned, and no order is there to keep.
    """
    common = np.array([[1.0], [0.0]])  # row 0 under q_t, row 1 under p
    platt = fit_platt(valid.cpu().numpy(), common, 1 - common, ranks.sums)
    return platt if platt.slope > 0 else UNSCALED
