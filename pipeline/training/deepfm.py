"""Training DeepFM to tell exposures from items that a user has not seen.

Bai et al., appendix D.2.1, where x is what the trained embedding layer holds of a user. Only
visible exposures are learned from. Held-out pairs stay eligible as negatives: were they spared, the
network would know them by that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.deepfm import DeepFM
from pipeline.params import Features
from pipeline.training.dropout import MaskSource, set_masks
from pipeline.training.loop import Patience, Row, fit
from pipeline.training.negatives import UnseenItems
from pipeline.training.snapshot import Checkpoint


def exposure_loss(logits: Tensor) -> Tensor:
    """Logistic loss of logits (2, N), row 0 exposures, row 1 negatives; 2 ln 2 for logits of 0."""
    return F.softplus(-logits[0]).mean() + F.softplus(logits[1]).mean()


def pair_auc(logits: Tensor) -> float:
    """Chance that an exposure outscores a negative, from logits (2, N); ties count half."""
    negatives = logits[1].sort().values
    below = torch.searchsorted(negatives, logits[0])
    not_above = torch.searchsorted(negatives, logits[0], right=True)
    return float((below + not_above).double().mean()) / (2 * len(negatives))


@dataclass(frozen=True)
class Interactions:
    """Exposures as rows, on one device, each with the user's fields and the item's genres at hand.

    Attributes:
        user: (E,) row of the user, sorted; none has seen every item.
        item: (E,) row of the item, rising within a user.
        codes: (U, F) code of each user in each field.
        genres: (I, G) share of each genre in each item.
    """

    user: Tensor
    item: Tensor
    codes: Tensor
    genres: Tensor


class ContrastedPairs:
    """The pairs to learn from and those to stop by, each with one negative.

    Negatives are uniform over the items, less what their user has seen, be it to learn from or to
    stop by.
    """

    def __init__(self, data: Interactions, stop_share: float, gen: torch.Generator) -> None:
        self.unseen = UnseenItems.of(
            data.user, data.item, users=len(data.codes), items=len(data.genres)
        )
        self.gen = gen
        order = torch.randperm(len(data.user), generator=gen, device=data.user.device)
        n_stop = min(max(1, round(stop_share * len(order))), len(order) - 1)
        stop, learn = order[:n_stop].sort().values, order[n_stop:].sort().values
        self.user, self.item = data.user[learn], data.item[learn]
        self.stop = self._with_negatives(data.user[stop], data.item[stop])  # fixed from here on

    def _with_negatives(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        return user, torch.stack([item, self.unseen.draw(user, self.gen)])

    def epoch(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every pair once, in random order: user (N,), item (2, N) with fresh negatives in row 1.

        Batches are of nearly equal size. Within one the pairs are sorted by user, which gathers
        and searches go through faster and the loss does not see.
        """
        order = torch.randperm(len(self.user), generator=self.gen, device=self.user.device)
        for rows in order.chunk(max(1, round(len(order) / batch_size))):
            in_order = rows.sort().values
            yield self._with_negatives(self.user[in_order], self.item[in_order])


def train_deepfm(
    data: Interactions,
    params: Features,
    *,
    seed: int,
    report: Callable[[Row], None],
    checkpoint: Checkpoint | None = None,
) -> tuple[DeepFM, list[Row]]:
    """Train DeepFM until the loss on the pairs kept for early stopping is lowest.

    Args:
        data: visible exposures, on the device to train on; every field has the codes 0, 1, ...
        params: network and schedule.
        seed: of the weights, the pairs kept, the order, the negatives and the dropout masks.
        report: called with each epoch's row.
        checkpoint: where to keep the training, and to go on from; see `fit`.

    Returns:
        The network at its best epoch, and the history: epoch, train_loss (under dropout),
        valid_loss and pair_auc (both on the pairs kept, each with one fixed negative).

    Raises:
        PipelineError: a loss that is not a finite number.
    """
    device = data.user.device
    net = DeepFM(
        sizes=[int(field.max()) + 1 for field in data.codes.unbind(1)],
        genres=data.genres,
        width=params.f_dim // data.codes.shape[1],
        hidden=params.hidden,
        dropout=params.dropout,
    )
    net.draw_weights(params.init_std, torch.Generator().manual_seed(seed))
    net.to(device)
    masks = MaskSource(seed, device)
    set_masks(net, masks)
    pairs = ContrastedPairs(data, params.stop_share, torch.Generator(device).manual_seed(seed))

    def validate() -> Row:
        logits = logits_of(net, data.codes, *pairs.stop)
        return {"valid_loss": float(exposure_loss(logits)), "pair_auc": pair_auc(logits)}

    history = fit(
        net,
        batches=lambda: pairs.epoch(params.batch_size),
        loss=lambda user, item: exposure_loss(net(*needed(data.codes, user), item)),
        validate=validate,
        schedule=params,
        patience=Patience(params.patience),
        report=report,
        weight_decay=params.weight_decay,
        random={"pairs": pairs.gen, "masks": masks},
        checkpoint=checkpoint,
    )
    return net, history


def needed(codes: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
    """The codes of the users of a batch, and the row in them of each of its pairs (N,), sorted.

    Those of all users where they are fewer than the pairs: a step then takes a time that does not
    grow with their number.
    """
    if len(codes) <= len(user):
        return codes, user
    present, row = user.unique_consecutive(return_inverse=True)
    return codes[present], row


def logits_of(
    net: DeepFM, codes: Tensor, user: Tensor, item: Tensor, block: int = 1 << 15
) -> Tensor:
    """Logits (..., N) of pairs of rows, user (N,) and item (..., N), a block of pairs at a time."""
    users, items = net.user_side(net.embed_users(codes)), net.item_side()
    blocks = zip(user.split(block), item.split(block, dim=-1), strict=True)
    return torch.cat([net.of_pairs(users, items, u, i) for u, i in blocks], -1)
