"""What a training on pairs goes through: batches, their loss, and the pairs that validate it.

A process alone draws everything from one stream; one of several draws from a stream of each of its
shards, see `shards`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.ranks import Ranks
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.sampler import PairSampler
from pipeline.training.shards import Shards, here, share_of_loss
from pipeline.training.snapshot import RandomSource

VALID_SEED = 20_220_909  # what validates is the same whatever the seed of the training

PairBatch = tuple[Tensor, Tensor]  # user (2, N), task (N,); of DeepFM user (N,), item (2, N)
Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Callable[[torch.Generator], Iterable[PairBatch]]


class Stepped(Protocol):
    """Pairs of a shard."""

    @property
    def user(self) -> Tensor:
        """(N,) of each pair."""

    def in_steps(self, steps: int, gen: torch.Generator) -> Iterator[PairBatch]:
        """All of them once, in so many batches."""


@dataclass(frozen=True)
class Course:
    """What a training on pairs goes through, epoch by epoch.

    Attributes:
        batches: gives one epoch of them.
        loss: of a batch, on this process.
        random: what both draw from, by name.
        valid: a fixed negative beside each pair, for every set of pairs that validates.
    """

    batches: Callable[[], Iterable[tuple[Tensor, ...]]]
    loss: Callable[..., Tensor]
    random: Mapping[str, RandomSource]
    valid: Sequence[PairBatch]


def make_course(
    model: nn.Module,
    loss: Loss,
    train: PairSampler,
    valid: Sequence[PairSampler],
    *,
    batch_size: int,
    seed: int,
    ranks: Ranks,
    batches: Batches | None = None,
) -> Course:
    """Lay a course for `model` over the pairs that lie on this process.

    Args:
        model: whose dropout draws its masks from it.
        loss: the model's, a mean over pairs.
        train: what is learned from.
        valid: sets of pairs that validate; their negatives do not depend on the seed.
        batch_size: positive pairs a step, of all processes together.
        seed: of the order of the pairs, the negatives and the masks.
        ranks: the processes.
        batches: gives an epoch of them for `loss`, of a process alone; None for pairs of `train`,
            each with a drawn negative.

    Raises:
        PipelineError: `batches` in one of several processes.
    """
    if batches is not None and not ranks.alone:
        raise PipelineError("batches of one's own are for one process; start no more.")
    device = train.user.device
    valid_gen = torch.Generator(device).manual_seed(VALID_SEED)
    if ranks.alone:
        gen = torch.Generator(device).manual_seed(seed)
        drawn = batches or partial(train.epoch, batch_size)
        fixed = [pairs.fixed(valid_gen) for pairs in valid]
        return course_alone(model, loss, drawn, fixed, gen=gen, seed=seed)
    fixed = [_fixed(pairs, ranks, valid_gen) for pairs in valid]
    parts = _by_shard(train, ranks)
    return course_in_shards(
        model, loss, parts, fixed, batch_size=batch_size, seed=seed, ranks=ranks
    )


def course_alone(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    valid: Sequence[PairBatch],
    *,
    gen: torch.Generator,
    seed: int,
) -> Course:
    """The course of a process alone: `gen` draws its batches, and `seed` is of the masks."""
    masks = MaskSource(seed, gen.device)
    set_masks(model, masks)
    return Course(lambda: batches(gen), loss, {"pairs": gen, "masks": masks}, valid)


def course_in_shards(
    model: nn.Module,
    loss: Loss,
    parts: Sequence[Stepped],
    valid: Sequence[PairBatch],
    *,
    batch_size: int,
    seed: int,
    ranks: Ranks,
) -> Course:
    """The course of one of several processes, on which the shards `parts` lie."""
    sizes, device = [len(part.user) for part in parts], parts[0].user.device
    shards = Shards(ranks, sizes, batch_size=batch_size, seed=seed, device=device)
    return Course(
        lambda: shards.epoch(lambda n, gen: parts[n].in_steps(shards.steps, gen)),
        share_of_loss(model, loss, shards.masks),
        {"shards": shards},
        valid,
    )


def _by_shard(pairs: PairSampler, ranks: Ranks) -> list[PairSampler]:
    """Those of each of the process's shards, to which its tasks are dealt out in turn."""
    count = len(here(ranks))
    chosen = [pairs.task % count == n for n in range(count)]
    return [replace(pairs, user=pairs.user[own], task=pairs.task[own]) for own in chosen]


def _fixed(pairs: PairSampler, ranks: Ranks, gen: torch.Generator) -> PairBatch:
    """Every pair here with the negative that a process alone would give it.

    That one goes through the pairs of all tasks by user, then task. So every process draws for all
    of them, and each takes the draws at the places of its own.
    """
    key = (pairs.user << 32) + pairs.task * ranks.size + ranks.rank
    of_all = torch.cat(ranks.gather(key)).sort().values
    place = torch.searchsorted(of_all, key)
    negative = pairs.unmet(lambda: pairs.draw_base(len(of_all), gen)[place], ranks.total)
    return torch.stack([pairs.user, negative]), pairs.task
