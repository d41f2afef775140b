"""How well an embedding of a knowledge graph tells the missing end of a triple.

For each triple and each of its ends, all entities are ranked as candidates for that end by distance
(LOW = likely true). Filtered, as Bordes et al. (2013) define it: other candidates that make a known
triple, whether learned from or held out, take no part.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.models.graph import TransE
from pipeline.text_files import Scalar

ALL = "(all)"  # in the place of a relation
CELLS = 1 << 24  # distances in memory at a time


@torch.no_grad()
def filtered_ranks(model: TransE, triples: Tensor, known: Tensor) -> Tensor:
    """Rank of the true entity at either end of each triple; 1 is best.

    A rank is 1 plus the candidates that are nearer, plus half of those that are as near.

    Args:
        model: with its distances.
        triples: to be ranked, (3, N), among `known`.
        known: all known triples, (3, K), which are filtered out.

    Returns:
        (2, N) ranks of heads and of tails, as float32.
    """
    ranks = torch.empty(2, triples.shape[1], device=triples.device)
    for row, end in enumerate((0, 2)):
        key, entity = _completions(known, end, len(model.entity))
        for relation, chosen in _by_relation(triples[1]):
            points, translation = model.relation_space(relation)
            step = translation if end == 2 else -translation
            for part in chosen.split(max(1, CELLS // len(points))):
                given, answer = triples[2 - end, part], triples[end, part]
                distance = torch.cdist(points[given] + step, points, p=model.norm)
                other, candidate = _matches(key, entity, relation * len(points) + given)
                true = distance.gather(1, answer[:, None])
                distance[other, candidate] = torch.inf
                nearer = (distance < true).sum(1)
                as_near = (distance == true).sum(1)  # the answer itself was filtered out
                ranks[row, part] = 1 + nearer + as_near / 2
    return ranks


def mean_reciprocal_rank(model: TransE, triples: Tensor, known: Tensor) -> float:
    """Mean of one over the filtered rank, over both ends of the triples (3, N); 1 is best."""
    return float(filtered_ranks(model, triples, known).reciprocal().mean())


def by_relation(ranks: Tensor, relation: Tensor, names: list[str]) -> list[dict[str, Scalar]]:
    """How well triples are predicted, over both ends of each: a row for all, then one a relation.

    Args:
        ranks: (2, N).
        relation: (N,) of each triple.
        names: (R,) of the relations.

    Returns:
        Rows of relation, triples, mrr (mean of one over the rank) and hits10 (share of ranks up to
        10).
    """
    parts = {ALL: torch.ones_like(relation, dtype=torch.bool)}
    parts |= {names[one]: relation == one for one in relation.unique().tolist()}
    return [
        {
            "relation": name,
            "triples": int(chosen.sum()),
            "mrr": round(float(ranks[:, chosen].reciprocal().mean()), 6),
            "hits10": round(float((ranks[:, chosen] <= 10).float().mean()), 6),
        }
        for name, chosen in parts.items()
    ]


def _completions(known: Tensor, end: int, entities: int) -> tuple[Tensor, Tensor]:
    """Keys (K,) of relation and other end, rising, and the entities (K,) at `end` (0 or 2)."""
    key = known[1] * entities + known[2 - end]
    order = key.argsort()
    return key[order], known[end][order]


def _by_relation(relation: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each relation, and the places at which it stands: every relation has a space of its own."""
    for one in relation.unique().tolist():
        yield one, (relation == one).nonzero().squeeze(1)


def _matches(key: Tensor, entity: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (place in `wanted`, entity) for every one of the rising keys that is wanted."""
    start = torch.searchsorted(key, wanted)
    count = torch.searchsorted(key, wanted, right=True) - start
    place = torch.arange(len(wanted), device=key.device).repeat_interleave(count)
    first = start.repeat_interleave(count)
    within = torch.arange(len(place), device=key.device) - (count.cumsum(0) - count)[place]
    return place, entity[first + within]
