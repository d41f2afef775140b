"""The slow ways: what one writes first, with the networks and the laws of the fast ones."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipeline.steps.pair_loss import ratio_loss
from pipeline.steps.sampler import PairSampler

HIDDEN, DROPOUT = (32, 32, 16), (0.5, 0.5, 0.3)  # Table 5


def perceptron(width: int, hidden: Sequence[int], dropout: Sequence[float]) -> nn.Sequential:
    """Fully connected layers with ReLU and `nn.Dropout`, and one output."""
    layers: list[nn.Module] = []
    for (width_in, width_out), rate in zip(pairwise((width, *hidden)), dropout, strict=True):
        layers += [nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(rate)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


class Textbook(nn.Module):
    """Table 5 on concat(x, e), one pair a row.

    Shape: x (..., x_dim), task (...) -> (...).
    """

    def __init__(self, x_dim: int, e: Tensor) -> None:
        super().__init__()
        self.e = nn.Embedding.from_pretrained(e.clone(), freeze=False)
        self.net = perceptron(x_dim + e.shape[1], HIDDEN, DROPOUT)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        logits: Tensor = self.net(torch.cat([x, self.e(task)], -1)).squeeze(-1)
        return logits


class PairDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """An exposure and a negative of its task: (x, x~, task)."""

    def __init__(self, x: Tensor, pairs: PairSampler) -> None:
        self.x = x
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs.user)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        negative = self.pairs.base[torch.randint(len(self.pairs.base), ())]
        return self.x[self.pairs.user[row]], self.x[negative], self.pairs.task[row]


def by_dataloader(
    model: Textbook, x: Tensor, pairs: PairSampler, batch: int, lr: float, workers: int = 0
) -> None:
    """(a): an epoch of Algorithm 1 with `Dataset` and `DataLoader`, which may have `workers`."""
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    loader = DataLoader(PairDataset(x, pairs), batch, shuffle=True, num_workers=workers)
    for positive, negative, task in loader:
        high, low = model(positive, task), model(negative, task)
        loss = F.binary_cross_entropy_with_logits(high, torch.ones_like(high))
        loss = loss + F.binary_cross_entropy_with_logits(low, torch.zeros_like(low))
        adam.zero_grad()
        loss.backward()
        adam.step()


def by_tensors(
    model: Textbook, x: Tensor, pairs: PairSampler, batch: int, lr: float, gen: torch.Generator
) -> None:
    """(b): an epoch on whole-batch tensors, concatenated, with `nn.Dropout`."""
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    for user, task in pairs.epoch(batch, gen):
        loss = ratio_loss(model(x[user], task.expand_as(user)))
        adam.zero_grad()
        loss.backward()
        adam.step()


class PlainDeepFM(nn.Module):
    """DeepFM on the fields of each pair: user id, item id, and the item's genres, multi-hot."""

    def __init__(self, users: int, genres: Tensor, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.genres = genres
        self.user, self.item = nn.Embedding(users, width), nn.Embedding(len(genres), width)
        self.genre = nn.Linear(genres.shape[1], width, bias=False)
        self.first = nn.ModuleList([nn.Embedding(users, 1), nn.Embedding(len(genres), 1)])
        self.first_genre = nn.Linear(genres.shape[1], 1)
        self.mlp = perceptron(3 * width, hidden, [0.2] * len(hidden))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        genres = self.genres[item]
        fields = torch.stack([self.user(user), self.item(item), self.genre(genres)], -2)
        inner = (fields.sum(-2).square() - fields.square().sum(-2)).sum(-1, keepdim=True) / 2
        first = self.first[0](user) + self.first[1](item) + self.first_genre(genres)
        logits: Tensor = (first + inner + self.mlp(fields.flatten(-2))).squeeze(-1)
        return logits


def plain_deepfm_epoch(
    model: PlainDeepFM, user: Tensor, item: Tensor, few: int, *, batch: int, lr: float
) -> None:
    """A `few` exposures against unseen items: those drawn that were seen are drawn again."""
    items = len(model.genres)
    seen = user * items + item
    adam = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=1e-6)
    for rows in torch.randperm(len(user))[:few].split(batch):
        u, low = user[rows], torch.randint(items, rows.shape)
        while len(again := torch.isin(u * items + low, seen).nonzero().squeeze(1)):
            low[again] = torch.randint(items, again.shape)
        logits = torch.cat([model(u, item[rows]), model(u, low)])
        target = torch.cat([torch.ones(len(u)), torch.zeros(len(u))])
        loss = F.binary_cross_entropy_with_logits(logits, target)
        adam.zero_grad()
        loss.backward()
        adam.step()
