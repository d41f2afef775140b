"""Training TransE and TransH: true triples nearer than corrupted ones, by a margin.

Bordes et al. (2013), algorithm 1, and Wang et al. (2014), section 3; Adam takes the place of plain
stochastic gradient descent.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.link_prediction import mean_reciprocal_rank
from pipeline.models.graph import TransE, TransH
from pipeline.params import Graph
from pipeline.steps.sampler import batch_count
from pipeline.training.history import Row
from pipeline.training.loop import fit
from pipeline.training.session import Session

WATCHED = 1 << 23  # distances behind the figure of an epoch, at most, at either end


@dataclass(frozen=True)
class Triples:
    """Triples of entities and relations, all on one device.

    Attributes:
        learn: (3, L) to learn from.
        stop: (3, S) to stop by.
        known: (3, K) all that are known to be true, those to test on too: the others are filtered.
        entities: number of entities.
        relations: number of relations.
    """

    learn: Tensor
    stop: Tensor
    known: Tensor
    entities: int
    relations: int

    def surprise(self, model: TransE) -> float:
        """How badly `model` predicts the triples to stop by: 1 - their filtered MRR.

        The hinge of the training's loss is soon at rest, when ranks still improve. Where all
        triples would be too many, the first ones stand for them.
        """
        watched = self.stop[:, : max(1, WATCHED // self.entities)]
        return 1 - mean_reciprocal_rank(model, watched, self.known)


@dataclass(frozen=True)
class Corruption:
    """How a true triple is made into one that is most likely false: another entity at one end.

    Attributes:
        head_chance: (R,) how likely it is the head that is replaced, for each relation.
        entities: number of entities; the other one is drawn uniformly.
    """

    head_chance: Tensor
    entities: int

    @classmethod
    def of(cls, data: Triples, *, bernoulli: bool) -> "Corruption":
        """Either end is as likely; or, with `bernoulli`, the head with chance tph / (tph + hpt).

        tph is the mean number of tails a head has under the relation, hpt that of heads a tail
        has. Another director of a film is a likelier falsehood than another film of a director.
        """
        if not bernoulli:
            return cls(torch.full((data.relations,), 0.5, device=data.learn.device), data.entities)
        head, relation, tail = data.learn
        triples = torch.bincount(relation, minlength=data.relations)
        tph, hpt = (
            triples / _distinct(relation, end, data.relations, data.entities).clamp(min=1)
            for end in (head, tail)
        )
        return cls((tph / (tph + hpt)).nan_to_num(0.5), data.entities)

    def draw(self, triples: Tensor, gen: torch.Generator) -> Tensor:
        """A corrupted triple for each of `triples` (3, N)."""
        head, relation, tail = triples
        at_head = torch.rand(head.shape, generator=gen, device=head.device)
        entity = torch.randint(self.entities, head.shape, generator=gen, device=head.device)
        chosen = at_head < self.head_chance[relation]
        return torch.stack(
            [torch.where(chosen, entity, head), relation, torch.where(chosen, tail, entity)]
        )


def _distinct(relation: Tensor, entity: Tensor, relations: int, entities: int) -> Tensor:
    """How many distinct entities go with each relation, (R,)."""
    pairs = torch.unique(relation * entities + entity)
    return torch.bincount(pairs // entities, minlength=relations)


def margin_loss(near: Tensor, far: Tensor, margin: float) -> Tensor:
    """Mean of [margin + near - far]_+ over distances (N,) of true and of corrupted triples."""
    return (margin + near - far).relu().mean()


def train_translation(
    data: Triples,
    params: Graph,
    *,
    seed: int,
    session: Session,
) -> tuple[TransE, list[Row]]:
    """Train a TransE or a TransH until it predicts the triples to stop by the best.

    Args:
        data: triples, on the device to train on.
        params: model and schedule.
        seed: of the weights, the order and the corruption.
        session: how to train.

    Returns:
        The model at its best epoch, and the history: epoch, train_loss, and valid_loss, which is
        1 - the filtered MRR of triples to stop by.

    Raises:
        PipelineError: a loss that is not a finite number.
    """
    device = data.learn.device
    size = {"entities": data.entities, "relations": data.relations, "dim": params.dim}
    model = TransH(**size) if params.model == "transh" else TransE(**size, norm=params.norm)
    model.draw_weights(torch.Generator().manual_seed(seed))
    model.to(device)
    gen = torch.Generator(device).manual_seed(seed)
    corruption = Corruption.of(data, bernoulli=params.negatives == "bernoulli")

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(data.learn.shape[1], generator=gen, device=device)
        for rows in order.chunk(batch_count(len(order), params.batch_size)):
            model.constrain()
            true = data.learn[:, rows]
            yield true, corruption.draw(true, gen)

    def loss(true: Tensor, corrupted: Tensor) -> Tensor:
        near, far = model(torch.stack([true, corrupted], 1))
        constraints = params.constraint * model.penalty() / true.shape[1]
        return margin_loss(near, far, params.margin) + constraints

    def validate() -> Row:
        model.constrain()
        return {"valid_loss": data.surprise(model)}

    history = fit(
        model,
        batches=batches,
        loss=loss,
        validate=validate,
        schedule=params,
        session=session,
        random={"draws": gen},
    )
    return model, history
