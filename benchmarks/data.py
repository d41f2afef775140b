"""Data of MovieLens 1M's size, drawn from the simulation: no download, the same everywhere."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import Ints
from pipeline.datasets.simulation import simulate
from pipeline.params import Simulation
from pipeline.steps.sampler import PairSampler

USERS, TASKS, EXPOSURES = 6_040, 1_620, 800_000
X_DIM, E_DIM = 100, 100


@dataclass(frozen=True)
class Sample:
    """Users' vectors, tasks' embeddings, and the exposures as rows of both."""

    x: Tensor  # (U, x_dim)
    e: Tensor  # (M, e_dim)
    user: Ints  # (E,) rising
    task: Ints  # (E,) rising within a user
    genres: Tensor  # (M, G) share of each genre

    def some(self, n: int, gen: torch.Generator) -> PairSampler:
        """`n` of the exposures, with the base distribution of all."""
        user, task = torch.from_numpy(self.user), torch.from_numpy(self.task)
        rows = torch.randperm(len(user), generator=gen)[:n]
        return PairSampler(user[rows], task[rows], user)


def sample(users: int = USERS, tasks: int = TASKS, exposures: int = EXPOSURES) -> Sample:
    """Exposures of a simulated world; vectors and embeddings are normal noise."""
    source = simulate(Simulation(users=users, items=tasks, exposures=exposures, seed=0))
    gen = torch.Generator().manual_seed(0)
    rows = [source.exposures.column(name).to_numpy() - 1 for name in ("user_id", "item_id")]
    lists = source.items.column("genres").to_pylist()
    names = sorted({name for genres in lists for name in genres})
    member = np.array([[name in genres for name in names] for genres in lists], np.float32)
    return Sample(
        x=torch.randn(users, X_DIM, generator=gen),
        e=torch.randn(tasks, E_DIM, generator=gen),
        user=rows[0],
        task=rows[1],
        genres=torch.from_numpy(member / member.sum(1, keepdims=True)),
    )
