"""Training DeepFM to tell exposures from items that a user has not seen.

Bai et al., appendix D.2.1, where x is what the trained embedding layer holds of a user. Only
visible exposures are learned from. Held-out pairs stay eligible as negatives: were they spared, the
network would know them by that.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.models.deepfm import DeepFM
from pipeline.params import Features
from pipeline.ranks import ALONE, Ranks
from pipeline.steps.dealt import alike
from pipeline.steps.pair_loss import ratio_loss
from pipeline.training.contrast import ContrastedPairs, Exposed, pair_auc
from pipeline.training.course import Course, course_alone, course_in_shards
from pipeline.training.history import Row
from pipeline.training.loop import fit
from pipeline.training.session import Session
from pipeline.training.split import Split


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

    @property
    def exposed(self) -> Exposed:
        """Who was exposed to what, without fields and genres."""
        return Exposed(self.user, self.item, len(self.codes), len(self.genres))

    @property
    def fields_of_users(self) -> list[int]:
        """The fields that have a code a user, as the user id has."""
        rows = torch.arange(len(self.codes), device=self.codes.device)
        return [n for n, field in enumerate(self.codes.unbind(1)) if field.equal(rows)]

    def on(self, ranks: Ranks) -> "Interactions":
        """Those of the users that lie on this process, who are counted from 0 again."""
        if ranks.alone:
            return self
        codes = ranks.own(self.codes).clone()
        for field in self.fields_of_users:
            codes[:, field] = torch.arange(len(codes), device=codes.device)
        own = self.user % ranks.size == ranks.rank
        user, item = self.user[own] // ranks.size, self.item[own]
        return replace(self, user=user, item=item, codes=codes)


def train_deepfm(
    data: Interactions,
    params: Features,
    *,
    seed: int,
    session: Session,
) -> tuple[DeepFM, list[Row]]:
    """Train DeepFM until the loss on the pairs kept for early stopping is lowest.

    Args:
        data: visible exposures, on the device to train on; every field has the codes 0, 1, ...
        params: network and schedule.
        seed: of the weights, the pairs kept, the order, the negatives and the dropout masks.
        session: how to train; each of several processes learns from the exposures of its users.

    Returns:
        The network at its best epoch, and the history: epoch, train_loss (under dropout),
        valid_loss and pair_auc (both on the pairs kept, each with one fixed negative).

    Raises:
        PipelineError: a loss that is not a finite number.
    """
    net = DeepFM(
        sizes=[int(field.max()) + 1 for field in data.codes.unbind(1)],
        genres=data.genres,
        width=params.f_dim // data.codes.shape[1],
        hidden=params.hidden,
        dropout=params.dropout,
    )
    net.draw_weights(params.init_std, torch.Generator().manual_seed(seed))
    ranks = session.ranks
    own = data.on(ranks)
    tables = [f"user_fields.{n}" for n in data.fields_of_users]
    if ranks.deal_out:
        tables.append("item_id")
    with Split(net, tables, ranks) as split:
        net.to(data.user.device)
        course = _make_course(net, data, own, params, seed, ranks)

        def validate() -> Row:
            logits = logits_of(net, own.codes, *course.valid[0], ranks=ranks)
            loss = ranks.mean(float(ratio_loss(logits)), logits.shape[1])
            of_all = torch.stack([torch.cat(ranks.gather(row)) for row in logits])
            return {"valid_loss": loss, "pair_auc": pair_auc(of_all)}

        history = fit(
            net,
            batches=course.batches,
            loss=course.loss,
            validate=validate,
            schedule=params,
            session=session,
            weight_decay=params.weight_decay,
            random=course.random,
            split=split,
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


def _make_course(
    net: DeepFM, data: Interactions, own: Interactions, params: Features, seed: int, ranks: Ranks
) -> Course:
    """What the training goes through on this process, and the pairs to stop by.

    Whichever process they lie on, the pairs to stop by are the same.
    """
    gen = torch.Generator(data.user.device).manual_seed(seed)
    pairs = ContrastedPairs.of(data.exposed, params.stop_share, gen)

    def loss(user: Tensor, item: Tensor) -> Tensor:
        return net.loss(*needed(own.codes, user), item, ranks)

    size = params.batch_size
    if ranks.alone:
        return course_alone(
            net, loss, lambda _: pairs.epoch(size), [pairs.stop], gen=gen, seed=seed
        )
    parts = pairs.in_shards(own.exposed, ranks)
    user, item = (torch.cat(column, -1) for column in zip(*(p.stop for p in parts), strict=True))
    return course_in_shards(
        net, loss, parts, [(user, item)], batch_size=size, seed=seed, ranks=ranks
    )


def logits_of(
    net: DeepFM,
    codes: Tensor,
    user: Tensor,
    item: Tensor,
    block: int = 1 << 15,
    *,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Logits (..., N) of pairs of rows, user (N,) and item (..., N), a block of pairs at a time."""
    users, items_of = net.user_side(net.embed_users(codes)), net.items_of(ranks)
    blocks = [*zip(user.split(block), item.split(block, dim=-1), strict=True)]
    logits = []
    for u, i in alike(blocks, ranks):
        items, row = items_of(i)
        logits.append(net.of_pairs(users, items, u, row))
    return torch.cat(logits, -1)
