"""Vectors for users whom DeepFM was not trained on, with everything it learned left as it is."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.deepfm import DeepFM, Side
from pipeline.training.negatives import UnseenItems

# Chosen by how folded-in validation users of MovieLens 1M rank their held-out items.
STEPS = 30
LR = 0.2  # at the first step, in standard deviations of the prior; falls to nothing
PRIOR = 0.2  # weight of the prior; without it the rows grow too long


@dataclass(frozen=True)
class Prior:
    """What a trained network knows before it knows a newcomer: the same for all of them.

    Attributes:
        mean: of each field's embeddings, (F, 1 + k).
        spread: standard deviations of each field's, (F, 1 + k).
        items: what items bring to their pairs.
    """

    mean: Tensor
    spread: Tensor
    items: Side

    @classmethod
    @torch.no_grad()
    def of(cls, net: DeepFM) -> Self:
        """Go through all users and items of the network once."""
        found = [torch.std_mean(table, 0, correction=0) for table in net.eval().user_fields]
        spread, mean = (torch.stack(rows) for rows in zip(*found, strict=True))
        return cls(mean, spread, net.item_side())


def fold_in(
    net: DeepFM,
    prior: Prior,
    codes: Tensor,
    user: Tensor,
    item: Tensor,
    *,
    own: int | None,
    gen: torch.Generator,
) -> Tensor:
    """Vectors of newcomers, before standardising.

    An unseen code takes the mean embedding of its field. Where the user id is a field, each
    newcomer's own row is fitted to tell their exposures from items they have not seen: the loss of
    the training, fresh negatives at every step, and a Gaussian prior with the mean and spread of
    the rows that were trained. Newcomers share nothing but the draws of negatives, so one or
    hundreds can be folded in at a time; one takes some milliseconds.

    Args:
        net: trained network.
        prior: of it.
        codes: (n, F) the newcomers' fields; an unseen code is one past the last of its field.
        user: (E,) row in `codes` of each exposure, sorted.
        item: (E,) row of its item, rising within a user.
        own: which field is the user id; None where none is.
        gen: draws the negatives; lives on the device of `net`.

    Returns:
        (n, F * k). A newcomer who has seen no item, or every item, stays at the mean.
    """
    net.eval()
    with torch.no_grad():
        embedded = net.embed_newcomers(codes, prior.mean)
    if own is not None:
        embedded[:, own] = _fit_own_rows(net, prior, embedded, user, item, own, gen)
    return embedded[..., 1:].flatten(1)


def _fit_own_rows(
    net: DeepFM,
    prior: Prior,
    embedded: Tensor,
    user: Tensor,
    item: Tensor,
    own: int,
    gen: torch.Generator,
) -> Tensor:
    """Fit field `own` of embedded newcomers (n, F, 1 + k): (n, 1 + k)."""
    items, mean, spread = prior.items, prior.mean[own], prior.spread[own]
    unseen = UnseenItems.of(user, item, users=len(embedded), items=len(items.total))
    drawable = unseen.count(user) > 0
    user, item = user[drawable], item[drawable]
    # Rows are mean + spread * z, so that a step is as long in every dimension as its prior is wide.
    z = torch.zeros_like(embedded[:, own], requires_grad=True)
    adam = torch.optim.Adam([z], lr=LR)
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = LR * (1 - step / STEPS)
        fields = embedded.clone()
        fields[:, own] = mean + spread * z
        pairs = torch.stack([item, unseen.draw(user, gen)])
        exposed, negative = net.of_pairs(net.user_side(fields), items, user, pairs)
        # Sums, not means: a newcomer's row depends neither on how many there are nor on the others.
        loss = (
            F.softplus(-exposed).sum() + F.softplus(negative).sum() + PRIOR / 2 * z.square().sum()
        )
        (z.grad,) = torch.autograd.grad(loss, [z])
        adam.step()
    return (mean + spread * z).detach()
