"""KTUP: recommendation and a knowledge graph learned together, by translation.

Cao et al., "Unifying Knowledge Graph Learning and Recommendation: Towards a Better Understanding of
User Preferences" (2019). A user is led to an item by a preference as a head is led to a tail by a
relation. There are as many preferences as relations, and each takes in its relation's vectors; an
item takes in its entity's. Distances: LOW = the user likely knows the item.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.graph import TransH, excess_length, make_unit, on_hyperplane, slant
from pipeline.steps.gather import gather


class KTUP(nn.Module):
    """The squared distance |u' + p - i'|^2 of users and items, beside the TransH of a graph.

    The preference is the soft one: p is the mean of all preferences, weighted by the softmax of
    their inner products with u + i; so is the normal of the hyperplane on which u' and i' lie.

    Args:
        graph: of the entities and relations.
        of_item: (I,) entity of each item, -1 for an item without.
        users: number of users.

    Shape: user (N,), item (..., N) -> (..., N), rows of users and items.
    """

    of_item: Tensor

    def __init__(self, graph: TransH, *, of_item: Tensor, users: int) -> None:
        super().__init__()
        relations, dim = graph.relation.shape
        self.graph = graph
        self.register_buffer("of_item", of_item)
        self.user = nn.Parameter(torch.zeros(users, dim))
        self.item = nn.Parameter(torch.zeros(len(of_item), dim))
        self.preference = nn.Parameter(torch.zeros(relations, dim))
        self.normal = nn.Parameter(torch.zeros(relations, dim))

    def draw_weights(self, gen: torch.Generator) -> None:
        """Draw all vectors as those of the graph are drawn, of unit length; on the CPU."""
        self.graph.draw_weights(gen)
        bound = 6 / self.user.shape[1] ** 0.5
        for table in (self.user, self.item, self.preference, self.normal):
            nn.init.uniform_(table, -bound, bound, generator=gen)
            make_unit(table)

    def constrain(self) -> None:
        """Make every normal a unit vector again."""
        self.graph.constrain()
        make_unit(self.normal)

    def penalty(self) -> Tensor:
        """TransH's constraints, for the graph and for users, items and preferences alike."""
        lengths = excess_length(self.user) + excess_length(self.item)
        return self.graph.penalty() + lengths + slant(self.preference, self.normal)

    def items(self) -> Tensor:
        """Every item's own vector plus that of its entity, if it has one: (I, dim)."""
        known = (self.of_item >= 0)[:, None]
        return self.item + known * gather(self.graph.entity, self.of_item.clamp(min=0))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        u, i = gather(self.user, user), gather(self.items(), item)
        preference = self.preference + self.graph.relation  # (R, dim)
        share = ((u + i) @ preference.T).softmax(-1)  # (..., N, R)
        normal = F.normalize(share @ (self.normal + self.graph.normal), dim=-1)
        gap = on_hyperplane(u - i, normal) + share @ preference
        return gap.square().sum(-1)
