"""DeepFM: how likely a user is to be exposed to an item, from embeddings of their fields.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction" (2017), the
feature extractor that Bai et al. name in appendix D.2.1. A logit is the sum of a factorization
machine (first-order weights, inner products of every two field embeddings) and of an MLP on the
concatenated embeddings, both on the same embeddings. HIGH = likely exposed.

Every field belongs to the user or to the item, so most of the work is done once a user and once an
item instead of once a pair. With V_u and V_i the field embeddings of the two sides,

    FM(u, i)  = own_u + own_i + sum(V_u) . sum(V_i)
    MLP(u, i) = rest(W_u concat(V_u) + W_i concat(V_i) + b)

where `own` holds a side's first-order weights and the inner products among its own fields.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.models.weights import draw_linear
from pipeline.ranks import ALONE, Ranks
from pipeline.steps.dealt import Named
from pipeline.steps.dropout import ReluDropout
from pipeline.steps.gather import gather
from pipeline.steps.inner import inner_products
from pipeline.steps.pair_loss import TableRows, pair_loss


class Side(NamedTuple):
    """What n users, or n items, bring to each of their pairs."""

    own: Tensor  # (n, 1) first-order weights, and inner products among the side's own fields
    total: Tensor  # (n, k) sum of the field embeddings
    hidden: Tensor  # (n, hidden[0]) their share of the first MLP layer


class DeepFM(nn.Module):
    """The network, for given sizes of user fields and given items.

    An item's fields are its id and its genres (multi-hot: the mean of their embeddings). Fields are
    embedded as (..., 1 + k): the first-order weight, then the embedding.

    Args:
        sizes: number of codes of each user field.
        genres: (I, G) each item's share of each genre; rows sum to 1, or to 0 without genres.
        width: of every embedding, k.
        hidden: widths of the MLP's layers.
        dropout: rate after each of them.

    Shape: codes (U, F) of all users, user (N,) and item (..., N) rows -> logits (..., N).

    Example:
        >>> genres = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> net = DeepFM(sizes=[3], genres=genres, width=4, hidden=[8], dropout=0.0)
        >>> net(torch.tensor([[0], [1], [2]]), torch.tensor([0, 2]), torch.tensor([1, 1])).shape
        torch.Size([2])
    """

    genres: Tensor

    def __init__(
        self,
        *,
        sizes: Sequence[int],
        genres: Tensor,
        width: int,
        hidden: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.config = {"width": width, "hidden": list(hidden), "dropout": dropout}
        self.register_buffer("genres", genres)
        self.user_fields = nn.ParameterList(torch.zeros(n, 1 + width) for n in sizes)
        self.item_id = nn.Parameter(torch.zeros(genres.shape[0], 1 + width))
        self.genre = nn.Parameter(torch.zeros(genres.shape[1], 1 + width))
        self.user_layer = nn.Linear(len(sizes) * width, hidden[0])
        self.item_layer = nn.Linear(2 * width, hidden[0], bias=False)
        layers: list[nn.Module] = [ReluDropout(dropout)]
        for width_in, width_out in pairwise(hidden):
            layers += [nn.Linear(width_in, width_out), ReluDropout(dropout)]
        self.rest = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

    def draw_weights(self, init_std: float, gen: torch.Generator) -> None:
        """Draw embeddings from N(0, init_std^2), layers as `nn.Linear` does. The network is on
        the CPU, where draws are the same on every machine."""  # noqa: D205, D209
        for table in (*self.user_fields, self.item_id, self.genre):
            nn.init.normal_(table, std=init_std, generator=gen)
        first = (self.user_layer, self.item_layer)  # one layer, whose inputs come from two sides
        inputs = sum(layer.in_features for layer in first)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                draw_linear(layer, gen, inputs if layer in first else None)

    def embed_users(self, codes: Tensor) -> Tensor:
        """Embed the fields of users: codes (n, F) -> (n, F, 1 + k)."""
        fields = zip(self.user_fields, codes.unbind(1), strict=True)
        return torch.stack([gather(table, code) for table, code in fields], 1)

    def embed_newcomers(self, codes: Tensor, mean: Tensor) -> Tensor:
        """As `embed_users`; an unseen code, one past the last, is embedded as `mean` (F, 1 + k)."""
        embedded = mean.expand(len(codes), -1, -1).clone()
        for place, (table, code) in enumerate(zip(self.user_fields, codes.unbind(1), strict=True)):
            seen = code < len(table)
            embedded[seen, place] = table[code[seen]]
        return embedded

    def user_side(self, embedded: Tensor) -> Side:
        """Gather what users bring to their pairs, from embedded fields (n, F, 1 + k)."""
        return _side(embedded, self.user_layer)

    def item_side(self) -> Side:
        """Gather what all items bring to their pairs."""
        return self._item_side(self.item_id, self.genres)

    def items_of(self, ranks: Ranks) -> Callable[[Tensor], tuple[Side, Tensor]]:
        """Gives what the items of pairs bring to them, and the row in it of each pair's, (..., N).

        Where the processes deal items out, `item_id` is of their own, and what is given of those
        that the pairs name; otherwise of all.
        """
        if not ranks.deal_out:
            side = self.item_side()
            return lambda item: (side, item)

        def fetched(item: Tensor) -> tuple[Side, Tensor]:
            named = Named.by(item, ranks)
            side = self._item_side(named.fetch(self.item_id), self.genres[named.rows])
            return side, named.place

        return fetched

    def _item_side(self, item_id: Tensor, genres: Tensor) -> Side:
        """Of rows of the table of items and of their genres, (n, 1 + k) and (n, G).

        Genres are few: their share of the first layer is taken once a genre, not once an item.
        """
        of_ids, of_genres = self.item_layer.weight.chunk(2, 1)
        own, vectors = item_id.tensor_split([1], 1)
        first, shared = self.genre.tensor_split([1], 1)
        mean = genres @ shared
        inner = (vectors * mean).sum(1, keepdim=True)
        hidden = torch.addmm(genres @ (shared @ of_genres.T), vectors, of_ids.T)
        return Side(own + genres @ first + inner, vectors + mean, hidden)

    def of_pairs(self, users: Side, items: Side, user: Tensor, item: Tensor) -> Tensor:
        """Logits of pairs of rows: user (N,), item (..., N) -> (..., N)."""
        u, i = (gather(table, user) for table in users), (gather(table, item) for table in items)
        of_user, of_item = Side(*u), Side(*i)
        inner = (of_user.total * of_item.total).sum(-1, keepdim=True)
        mlp: Tensor = self.rest(of_user.hidden + of_item.hidden)
        return (of_user.own + of_item.own + inner + mlp).squeeze(-1)

    def forward(self, codes: Tensor, user: Tensor, item: Tensor) -> Tensor:
        return self.of_pairs(self.user_side(self.embed_users(codes)), self.item_side(), user, item)

    def loss(self, codes: Tensor, user: Tensor, item: Tensor, ranks: Ranks = ALONE) -> Tensor:
        """Logistic loss of exposures, item[0], and negatives, item[1]: a scalar, 2 ln 2 at f = 0.

        As from the logits, in one pass there and back; codes (U, F), user (N,), item (2, N).
        `ranks` are those of `items_of`.
        """
        users = self.user_side(self.embed_users(codes))
        if item.numel() < len(self.item_id) and not ranks.deal_out:
            rows, item = item.unique(return_inverse=True)  # so that a step does not grow with them
            items = self._item_side(gather(self.item_id, rows), self.genres[rows])
        else:
            items, item = self.items_of(ranks)(item)
        own = gather(users.own, user)[:, 0] + gather(items.own, item)[..., 0]
        inner = inner_products(users.total, items.total, user, item)
        hidden = [TableRows(users.hidden, user), TableRows(items.hidden, item)]
        return pair_loss(hidden, self.rest, user, own + inner)


def _side(embedded: Tensor, layer: nn.Linear) -> Side:
    first, vectors = embedded.split([1, embedded.shape[2] - 1], 2)
    if vectors.shape[1] == 1:  # a field alone has no inner products
        return Side(first[:, 0], vectors[:, 0], layer(vectors[:, 0]))
    total = vectors.sum(1)
    # Inner products of every two fields: (|sum|^2 - sum of |.|^2) / 2, the identity of FM.
    inner = (total.square() - vectors.square().sum(1)).sum(1, keepdim=True) / 2
    return Side(first.sum(1) + inner, total, layer(vectors.flatten(1)))
