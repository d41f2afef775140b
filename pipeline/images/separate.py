"""Separate learning: one model for each task, which sees no image of another (Bai et al., Table 2).

Only the ratio's negatives are of all tasks: they are drawn from p. The models of many tasks are
stacked and trained together, each until its own validation loss is lowest.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import Ints, Singles
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.models.stacked import EachAtItsBest, Stacked
from pipeline.pairs import in_rows
from pipeline.sections import Schedule
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.sampler import batch_count
from pipeline.training.course import VALID_SEED
from pipeline.training.history import Row
from pipeline.training.loop import fit
from pipeline.training.session import Session
from pipeline.training.snapshot import RandomSource

VALID_DRAWS = 64  # images of each task behind its validation loss
BLOCK = 256  # images that all models score at once


@dataclass(frozen=True)
class OwnImages:
    """The images of some tasks, on one device.

    Attributes:
        own: (M, longest) rows of each task's own images, its first again where it has fewer.
        count: (M,) how many of them there are.
        base: (B,) rows of all tasks' images: a uniform draw is one of p.
    """

    own: Tensor
    count: Tensor
    base: Tensor

    def weights(self) -> Tensor:
        """Of each task's own images, equal and 1 in all; 0 of the padding: (M, longest)."""
        mine = torch.arange(self.own.shape[1], device=self.own.device) < self.count[:, None]
        return mine / self.count[:, None]

    def draw(self, n: int, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """`n` own images of each task and `n` of p, with replacement: rows (M, n) each."""
        tasks = len(self.count)
        chance = torch.rand(tasks, n, generator=gen, device=self.own.device)
        own = self.own.gather(1, (chance * self.count[:, None]).long())
        pick = torch.randint(len(self.base), (tasks, n), generator=gen, device=self.own.device)
        return own, self.base[pick]


@dataclass(frozen=True)
class Apart:
    """What the models of some tasks learn from and stop by."""

    tasks: Ints  # (M,) rows of the tasks
    train: OwnImages
    valid: OwnImages
    draws: int | None = None  # of each in an epoch; None: as many as an average one has images

    def epoch(self, batch_size: int, gen: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Draws of every task, and as many of p, with replacement; rows (M, batch_size) each."""
        for _ in range(self.steps(batch_size)):
            yield self.train.draw(batch_size, gen)

    def steps(self, batch_size: int) -> int:
        """How many there are in an epoch."""
        draws = self.draws or float(self.train.count.double().mean())
        return batch_count(draws, batch_size)


def choose_tasks(examples: Examples, wanted: int | None, gen: np.random.Generator) -> Ints:
    """Draw `wanted` tasks that have both training and validation images, rising; None takes all.

    Raises:
        PipelineError: there are fewer.
    """
    pairs = examples.pairs
    of_train, of_valid = (
        pairs.task[in_rows(pairs.user, part, len(examples.x))]
        for part in (examples.train, examples.valid)
    )
    usable: Ints = np.intersect1d(of_train, of_valid)
    if wanted is None:
        return usable
    if wanted > len(usable):
        raise PipelineError(
            f"separate.tasks: {wanted} tasks are wanted; {len(usable)} have training and "
            "validation images. Lower it, or raise data.train_images or data.valid_images."
        )
    return np.sort(gen.choice(usable, wanted, replace=False))


def set_apart(
    examples: Examples, tasks: Ints, device: torch.device, draws: int | None = None
) -> Apart:
    """The images of `tasks`, as `choose_tasks` gives them, and the draws of an epoch."""
    pairs = examples.pairs

    def of(part: Ints) -> OwnImages:
        mine = pairs.where(in_rows(pairs.user, part, len(examples.x)))
        rows = [torch.from_numpy(mine.user[mine.task == t]) for t in tasks]
        longest = max(map(len, rows))
        own = torch.stack([torch.cat([one, one[:1].expand(longest - len(one))]) for one in rows])
        count = torch.tensor([len(one) for one in rows])
        base = torch.from_numpy(mine.user)
        return OwnImages(own.to(device), count.to(device), base.to(device))

    return Apart(tasks, of(examples.train), of(examples.valid), draws)


def train_apart(
    net: Stacked,
    data: Apart,
    loss: Callable[[Tensor, Tensor], Tensor],
    schedule: Schedule,
    *,
    seed: int,
    session: Session,
    also: torch.nn.Module | None = None,
    random: Mapping[str, RandomSource] | None = None,
    weight_decay: float = 0.0,
) -> list[Row]:
    """Train every copy of `net`; leave each at its own best epoch, in eval mode.

    Args:
        net: a copy for each task of `data`.
        data: the images.
        loss: of drawn rows, own (M, n) and of p (M, n), the loss of each task (M,).
        schedule: learning rate, images of a task a step, epochs, patience.
        seed: of the draws, and of what `also` draws.
        session: how to train.
        also: a module without weights that takes part in the loss, such as an augmentation; it
            follows the training in and out of eval mode.
        random: further sources that the loss draws from, by name.
        weight_decay: Adam's, of each network by itself.

    Returns:
        The history: epoch, train_loss, valid_loss (the mean over tasks of the lowest so far).
    """
    device = data.train.own.device
    gen, masks = torch.Generator(device).manual_seed(seed), MaskSource(seed, device)
    model = EachAtItsBest(net)
    if also is not None:
        model.also = also
        set_masks(model, masks)
    model.to(device)
    fixed = data.valid.draw(VALID_DRAWS, torch.Generator(device).manual_seed(VALID_SEED))
    history = fit(
        model,
        batches=lambda: data.epoch(schedule.batch_size, gen),
        loss=lambda own, base: loss(own, base).mean(),
        validate=lambda: {"valid_loss": model.note(loss(*fixed))},
        schedule=schedule,
        session=session,
        weight_decay=weight_decay / len(data.tasks),  # as the mean over tasks divides their losses
        random={"draws": gen, "masks": masks, **(random or {})},
        capture=True,
    )
    model.restore()
    return history


@torch.no_grad()
def score_apart(score: Callable[[Tensor], Tensor], x: Tensor, copies: int) -> Singles:
    """Scores of every image by the model of every task, (copies, U); HIGH = nominal.

    Args:
        score: of images (copies, B, ...), the same ones for every copy, to (copies, B).
        x: images (U, ...).
        copies: number of tasks.
    """
    blocks = [score(part.expand(copies, *part.shape)) for part in x.split(BLOCK)]
    scores: Singles = torch.cat(blocks, dim=1).cpu().numpy()
    return scores
