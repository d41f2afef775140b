"""Translation-based embeddings of a knowledge graph: TransE and TransH.

Bordes et al., "Translating Embeddings for Modeling Multi-relational Data" (2013); Wang et al.,
"Knowledge Graph Embedding by Translating on Hyperplanes" (2014). A triple (head, relation, tail) is
true if the relation's vector leads from the head to the tail. Distances: LOW = likely true.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.steps.gather import gather

ORTHOGONAL_WITHIN = 1e-3  # TransH's epsilon: how far from the hyperplane a translation may point


class TransE(nn.Module):
    """The distance |h + r - t| of triples; entities lie on the unit sphere.

    Args:
        entities: number of entities.
        relations: number of relations.
        dim: width of every vector.
        norm: which norm |.| is, 1 or 2.

    Shape: triples (3, ...), rows of heads, relations and tails -> (...).

    Example:
        >>> net = TransE(entities=5, relations=2, dim=4)
        >>> net(torch.tensor([[0, 1, 2], [0, 1, 0], [3, 4, 3]])).shape
        torch.Size([3])
    """

    def __init__(self, *, entities: int, relations: int, dim: int, norm: int = 1) -> None:
        super().__init__()
        self.norm = norm
        self.entity = nn.Parameter(torch.zeros(entities, dim))
        self.relation = nn.Parameter(torch.zeros(relations, dim))

    def draw_weights(self, gen: torch.Generator) -> None:
        """Draw vectors uniformly within 6 / sqrt(dim), then make them of unit length.

        The network is on the CPU, where draws are the same on every machine.
        """
        bound = 6 / self.entity.shape[1] ** 0.5
        for table in self.parameters():
            nn.init.uniform_(table, -bound, bound, generator=gen)
            make_unit(table)

    def constrain(self) -> None:
        """Put the entities back on the unit sphere; called before every batch, as in the paper."""
        make_unit(self.entity)

    def penalty(self) -> Tensor:
        """What the loss adds for constraints that are not held strictly: here none, 0."""
        return self.entity.new_zeros(())

    def project(self, vectors: Tensor, relation: Tensor) -> Tensor:
        """Vectors (..., dim) as `relation` (...) sees them; linear in the vectors."""
        return vectors

    def length(self, gap: Tensor) -> Tensor:
        """The length of what a translation misses by: (..., dim) -> (...)."""
        length: Tensor = torch.linalg.vector_norm(gap, self.norm, dim=-1)
        return length

    def forward(self, triples: Tensor) -> Tensor:
        head, relation, tail = triples
        apart = gather(self.entity, head) - gather(self.entity, tail)
        return self.length(self.project(apart, relation) + gather(self.relation, relation))

    def relation_space(self, relation: int) -> tuple[Tensor, Tensor]:
        """All entities (entities, dim) as `relation` sees them, and its translation (dim,)."""
        index = torch.tensor(relation, device=self.entity.device)
        return self.project(self.entity, index), self.relation[relation]


class TransH(TransE):
    """The squared distance |h' + r - t'|^2, h' and t' being projections on the relation's plane.

    With w the unit normal of the relation's hyperplane, h' = h - (w . h) w. One entity can then be
    in different places under different relations, which one-to-many relations ask for.

    Args:
        entities: number of entities.
        relations: number of relations.
        dim: width of every vector.

    Shape: triples (3, ...) -> (...).
    """

    def __init__(self, *, entities: int, relations: int, dim: int) -> None:
        super().__init__(entities=entities, relations=relations, dim=dim, norm=2)
        self.normal = nn.Parameter(torch.zeros(relations, dim))

    def constrain(self) -> None:
        """Make every normal a unit vector again; called before every batch, as in the paper."""
        make_unit(self.normal)

    def penalty(self) -> Tensor:
        """The constraints of equation 4, to be weighted by C.

        Summed over entities, by how much the squared length exceeds 1; over relations, by how much
        the squared cosine of translation and normal exceeds epsilon^2.
        """
        return excess_length(self.entity) + slant(self.relation, self.normal)

    def project(self, vectors: Tensor, relation: Tensor) -> Tensor:
        return on_hyperplane(vectors, gather(self.normal, relation))

    def length(self, gap: Tensor) -> Tensor:
        return gap.square().sum(-1)


@torch.no_grad()
def make_unit(table: Tensor) -> None:
    """Divide every row by its Euclidean length, in place."""
    table.copy_(F.normalize(table, dim=-1))


def on_hyperplane(vectors: Tensor, normal: Tensor) -> Tensor:
    """Project vectors (..., dim) on the hyperplanes of unit normals (..., dim)."""
    return vectors - (vectors * normal).sum(-1, keepdim=True) * normal


def excess_length(vectors: Tensor) -> Tensor:
    """By how much the squared lengths of rows (n, dim) exceed 1, summed."""
    return (vectors.square().sum(-1) - 1).relu().sum()


def slant(translation: Tensor, normal: Tensor) -> Tensor:
    """By how much translations (n, dim) leave the planes of unit normals (n, dim), summed."""
    square = (normal * translation).sum(-1).square() / translation.square().sum(-1)
    return (square - ORTHOGONAL_WITHIN**2).relu().sum()
