"""Training KTUP: users nearer to what they know than to what they do not, and TransH beside it."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.graph import TransH
from pipeline.models.ktup import KTUP
from pipeline.params import Graph
from pipeline.training.contrast import ContrastedPairs, Exposed, pair_auc
from pipeline.training.graph import Corruption, Triples, margin_loss
from pipeline.training.history import Row
from pipeline.training.loop import fit
from pipeline.training.session import Session


def preference_loss(distances: Tensor) -> Tensor:
    """BPR of distances (2, N), row 0 of exposures, row 1 of negatives: mean -log sigma(1 - 0)."""
    return F.softplus(distances[0] - distances[1]).mean()


def train_ktup(
    triples: Triples,
    exposures: Exposed,
    of_item: Tensor,
    params: Graph,
    *,
    seed: int,
    session: Session,
) -> tuple[KTUP, list[Row]]:
    """Train KTUP until it does best on what it is to stop by.

    A step takes a batch of exposures, each with an unseen item, and as many triples as make an
    epoch go through all of both. The loss is params.recommendation of the recommendation's, and the
    rest of the graph's.

    Args:
        triples: of the graph, on the device to train on.
        exposures: of users who may be learned from, on the same device.
        of_item: (I,) entity of each item, -1 for an item without.
        params: network and schedule.
        seed: of the weights, the order, the pairs to stop by, the negatives and the corruption.
        session: how to train.

    Returns:
        The network at its best epoch, and the history: epoch, train_loss, valid_loss, in which
        1 - the filtered MRR of triples to stop by takes the place of the graph's loss, and
        pair_auc, of exposures to stop by.

    Raises:
        PipelineError: a loss that is not a finite number.
    """
    device = of_item.device
    graph = TransH(entities=triples.entities, relations=triples.relations, dim=params.dim)
    model = KTUP(graph, of_item=of_item.cpu(), users=exposures.users)
    model.draw_weights(torch.Generator().manual_seed(seed))
    model.to(device)
    gen = torch.Generator(device).manual_seed(seed)
    corruption = Corruption.of(triples, bernoulli=params.negatives == "bernoulli")
    pairs = ContrastedPairs.of(exposures, params.held_out_share / 2, gen)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        steps = list(pairs.epoch(params.batch_size))
        order = torch.randperm(triples.learn.shape[1], generator=gen, device=device)
        each = -(-len(order) // len(steps))  # the last steps begin the triples again
        rows = order.repeat(1 + each * len(steps) // len(order))
        for (user, item), some in zip(steps, rows.split(each), strict=False):
            model.constrain()
            true = triples.learn[:, some]
            yield torch.cat([user[None], item]), torch.stack([true, corruption.draw(true, gen)], 1)

    def joint(of_pairs: Tensor, of_graph: Tensor) -> Tensor:
        return params.recommendation * of_pairs + (1 - params.recommendation) * of_graph

    def loss(pair: Tensor, triple: Tensor) -> Tensor:
        near, far = model.graph(triple)
        value = joint(
            preference_loss(model(pair[0], pair[1:])), margin_loss(near, far, params.margin)
        )
        return value + params.constraint * model.penalty() / pair.shape[1]

    def validate() -> Row:
        model.constrain()
        distances = model(*pairs.stop)
        value = joint(preference_loss(distances), torch.tensor(triples.surprise(model.graph)))
        return {"valid_loss": float(value), "pair_auc": pair_auc(-distances)}

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
