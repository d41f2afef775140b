"""A knowledge graph as arrays of rows: triples of entities and relations, the entity of each item.

A triple (head, relation, tail) states a fact, such as (Jumanji, director, Joe Johnston).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import Bools, Ints


@dataclass(frozen=True)
class KnowledgeGraph:
    """Distinct triples and the items that they tell of.

    Attributes:
        triples: (3, T) rows of the head, the relation and the tail; sorted, distinct.
        entities: number of entities; each is in a triple.
        relations: (R,) names of the relations, sorted; each is in a triple.
        of_item: (I,) entity of each row of the items table, -1 for an item without.
    """

    triples: Ints
    entities: int
    relations: list[str]
    of_item: Ints

    @classmethod
    def of_names(cls, facts: pa.Table, item_entity: pa.ChunkedArray) -> "KnowledgeGraph":
        """From names.

        Args:
            facts: columns head, relation and tail, of strings; repeats count once.
            item_entity: (I,) name of each item's entity, null for an item without. Names that are
                in no triple count as null.
        """
        ends = pa.chunked_array([*facts.column("head").chunks, *facts.column("tail").chunks])
        # Sorted, so that the rows do not depend on the order of the file.
        entities, relations = (_distinct(c) for c in (ends, facts.column("relation")))
        columns = [
            _rows(facts.column("head"), entities),
            _rows(facts.column("relation"), relations),
            _rows(facts.column("tail"), entities),
        ]
        return cls(
            np.unique(np.stack(columns), axis=1),
            len(entities),
            relations.to_pylist(),
            _rows(item_entity, entities),
        )

    def hold_out(self, share: float, gen: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        """Split the triples at random into those to learn from, to stop by and to test on.

        Args:
            share: of the triples to hold out, half of them to stop by and half to test on. Every
                entity and every relation keeps one to learn from, so there may be fewer.
            gen: the source of randomness.

        Returns:
            Three arrays (3, n).
        """
        order = gen.permutation(self.triples.shape[1])
        triples = self.triples[:, order]
        free = np.flatnonzero(~_first_of_each(triples))
        half = min(round(share * len(order) / 2), len(free) // 2)
        stop, test = free[:half], free[half : 2 * half]
        learn = np.setdiff1d(np.arange(len(order)), free[: 2 * half])
        return triples[:, learn], triples[:, stop], triples[:, test]


def _first_of_each(triples: Ints) -> Bools:
    """Whether a triple of (3, T) is the first with its head, its relation, or its tail, (T,)."""
    first = np.zeros(triples.shape[1], bool)
    ends = np.stack([triples[0], triples[2]], 1).reshape(-1)
    first[np.unique(ends, return_index=True)[1] // 2] = True
    first[np.unique(triples[1], return_index=True)[1]] = True
    return first


def _distinct(names: pa.ChunkedArray) -> pa.Array:
    distinct = pc.unique(names)
    return distinct.take(pc.sort_indices(distinct))


def _rows(names: pa.ChunkedArray, known: pa.Array) -> Ints:
    """Row of each name in `known`; -1 where it is not in, or null."""
    rows: Ints = pc.fill_null(pc.index_in(names, known), -1).to_numpy().astype(np.int64)
    return rows
