"""From a knowledge graph to a vector of every item, and how well it predicts what it was not told.

The vectors are what `init: graph` starts from: extra knowledge, of items rather than of users.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from pipeline.arrays import Bools, Singles
from pipeline.errors import PipelineError
from pipeline.knowledge import KnowledgeGraph
from pipeline.link_prediction import by_relation, filtered_ranks
from pipeline.models.graph import TransE
from pipeline.pairs import ids_of, in_rows, rows_of, split_rows
from pipeline.params import Graph
from pipeline.text_files import Scalar
from pipeline.training.contrast import Exposed
from pipeline.training.graph import Triples, train_translation
from pipeline.training.history import Row
from pipeline.training.ktup import train_ktup
from pipeline.training.session import Session

SPLIT_SEED = 20_130_205  # the same triples are held out whatever the training's seed
UNMEASURED: list[dict[str, Scalar]] = [{"triples": 0}]  # the links where none was held out


@dataclass(frozen=True)
class GraphVectors:
    """A vector of each item, and what came of the graph.

    Attributes:
        x: (I, dim) of each row of the items table.
        known: (I,) items that the model knows; the others have the mean of these.
        history: a row an epoch.
        links: how well the held-out triples are predicted; from `by_relation`, or a row that says
            that there are none.
    """

    x: Singles
    known: Bools
    history: list[Row]
    links: list[dict[str, Scalar]]


def embed_items(
    graph: KnowledgeGraph,
    exposures: Callable[[], Exposed],
    params: Graph,
    *,
    seed: int,
    session: Session,
) -> GraphVectors | None:
    """Train the model that the params name, and give every item a vector.

    Where no triple can be spared, as where every item has one fact alone, all are learned from, the
    training stops by them too, and nothing is measured.

    Args:
        graph: triples and each item's entity.
        exposures: gives the `learned_exposures`; asked by KTUP alone.
        params: model and schedule.
        seed: of the training; the same triples are held out whatever it is.
        session: where and how to train.

    Returns:
        None where there is no triple.

    Raises:
        PipelineError: a loss that is not a finite number, or too few exposures.
    """
    device = session.device
    parts = graph.hold_out(params.held_out_share, np.random.default_rng(SPLIT_SEED))
    learn, stop, test = (torch.from_numpy(part).to(device) for part in parts)
    if not learn.shape[1]:
        return None
    if not stop.shape[1]:
        stop = learn
    everything = torch.from_numpy(graph.triples).to(device)
    triples = Triples(learn, stop, everything, graph.entities, len(graph.relations))
    of_item = torch.from_numpy(graph.of_item).to(device)
    known = of_item >= 0
    model: TransE
    if params.model == "ktup":
        met = exposures()
        joint, history = train_ktup(triples, met, of_item, params, seed=seed, session=session)
        known = known | (torch.bincount(met.item, minlength=len(of_item)) > 0)
        model, x = joint.graph, joint.items().detach()
    else:
        model, history = train_translation(triples, params, seed=seed, session=session)
        x = model.entity.detach()[of_item]
    x[~known] = x[known].mean(0)
    links = UNMEASURED
    if test.shape[1]:
        ranks = filtered_ranks(model, test, everything).cpu()
        links = by_relation(ranks, test[1].cpu(), graph.relations)
    return GraphVectors(x.cpu().numpy(), known.cpu().numpy(), history, links)


def learned_exposures(
    exposures: pa.Table, splits: pa.Table, items: pa.Table, device: torch.device
) -> Exposed:
    """The exposures of training users; none of theirs is held out.

    Users who have seen every item have no negatives, and are left out.

    Raises:
        PipelineError: fewer than two.
    """
    train = split_rows(splits, splits, "train")
    users = ids_of(splits, "user_id")
    user = rows_of(ids_of(exposures, "user_id"), users, "user")
    item_ids = ids_of(items, "item_id")
    item = rows_of(ids_of(exposures, "item_id"), item_ids, "item")
    of_train = in_rows(user, train, len(users)) & ~exposures.column("held_out").to_numpy()
    seen = np.bincount(user[of_train], minlength=len(users))
    chosen = of_train & (seen[user] < len(item_ids))
    if chosen.sum() < 2:  # one to learn from, one to stop by
        raise PipelineError(
            f"graph.model ktup: {chosen.sum():,} exposures of training users to learn from (users "
            "who have seen every item do not count); it needs more. Set graph.model to transh."
        )
    distinct, row = np.unique(user[chosen], return_inverse=True)
    return Exposed(
        torch.from_numpy(row).to(device),
        torch.from_numpy(item[chosen]).to(device),
        len(distinct),
        len(item_ids),
    )
