"""A small simulated world, laid out as the tables that the training stages read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.datasets.simulation import draw_world, simulate
from pipeline.datasets.world import World
from pipeline.examples import Examples
from pipeline.features.latents import true_latents
from pipeline.params import Label, Params, Simulation, Tasks, load_params
from pipeline.splits import hold_out, split_users
from pipeline.storage import vectors
from pipeline.tasks import Crowd, ItemCounts, count_groups, select_tasks

ROOT = Path(__file__).parents[1]


def default_params(seed: int = 0, **sections: Mapping[str, object]) -> Params:
    """The project's own params, with some values of some sections changed."""
    params = load_params(ROOT / "params.yaml", *Params.model_fields)
    changed = {
        name: getattr(params, name).model_copy(update=dict(values))
        for name, values in sections.items()
    }
    return params.model_copy(update={"seed": seed, **changed})


def count_items(
    users: pa.Table, exposures: pa.Table, splits: pa.Table, labels: Mapping[str, Label]
) -> ItemCounts:
    """What `filter_tasks` counts, of exposures at hand."""
    return count_groups(Crowd.of(users, splits, labels), [exposures])


@dataclass(frozen=True)
class SmallWorld:
    """Tables of a simulated world; the true latents are the user vectors."""

    size: Simulation
    users: pa.Table
    exposures: pa.Table
    splits: pa.Table
    features: pa.Table
    tasks: pa.Table

    @property
    def world(self) -> World:
        """All that is true of it."""
        return draw_world(self.size)

    @property
    def examples(self) -> Examples:
        """What Algorithm 1 learns from."""
        return Examples.of(self.features, self.tasks, self.exposures, self.splits)

    def rows(self, split: str) -> np.ndarray:
        """Rows of the users of a split."""
        return np.flatnonzero(self.splits.column("split").to_numpy(zero_copy_only=False) == split)


def small_world(
    users: int = 200, items: int = 30, exposures: int = 2500, least: int = 40, seed: int = 0
) -> SmallWorld:
    """Simulate users, split them, hold exposures out, choose tasks of `least` exposures or more."""
    size = Simulation(users=users, items=items, exposures=exposures, seed=seed)
    source = simulate(size)
    ids = source.users.column("user_id").to_numpy()
    splits = split_users(ids, test_share=0.2, valid_share=0.2, seed=0)
    held = hold_out(source.exposures, splits, share=0.3, seed=0)
    chosen = Tasks(labels=["age", "gender"], min_exposures=least, keep_share=0.7)
    counts = count_items(source.users, held, splits, default_params().labels)
    x, _ = true_latents(source.users, np.ones(users, bool), "simulated", size)
    features = pa.table({"user_id": ids, "x": vectors(x)})
    return SmallWorld(size, source.users, held, splits, features, select_tasks(counts, chosen))
