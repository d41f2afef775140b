"""User vectors in closed form: of items' vectors, and of what a user has met.

Anybody with exposures has one, and no one is folded in. `directions.py` and `factors.py` are the
two kinds.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, cast

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_array
from torch import Tensor

from pipeline.arrays import Bools, Ints, Singles
from pipeline.errors import PipelineError
from pipeline.features.scale import Scale, with_activity
from pipeline.model_files import MISFITS, read_model, write_model
from pipeline.pairs import exposure_matrix, ids_of, rows_of
from pipeline.params import Features


@dataclass(frozen=True)
class ClosedForm(ABC):
    """What gives a user a vector.

    Attributes:
        items: (I,) item_id of each row of `v`, sorted.
        v: vectors of items, (I, f_dim).
        scale: of x over the users it was fitted to.
        activity: whether x ends with the user's log activity.
        settings: numbers that `coordinates` depends on besides `v`.
    """

    items: Ints
    v: Singles
    scale: Scale
    activity: bool
    settings: Mapping[str, float]

    model: ClassVar[str]  # its name in features.model

    @abstractmethod
    def coordinates(self, seen: csr_array) -> Singles:
        """Vectors (n, f_dim) of users who have met `seen`, (n, I) of 0 and 1."""

    @classmethod
    @abstractmethod
    def learn(cls, seen: csr_array, params: Features, seed: int) -> Singles:
        """Vectors of items (I, f_dim), from who has met what, (U, I) of 0 and 1."""

    @classmethod
    def settings_of(cls, params: Features) -> dict[str, float]:
        """The `settings` of the params."""
        return {}

    @classmethod
    def fit(
        cls, users: pa.Table, exposures: pa.Table, visible: Bools, params: Features, *, seed: int
    ) -> Self:
        """Learn items' vectors from the exposures of the users who are `visible`.

        Args:
            users: user_id, sorted.
            exposures: what may be seen: no held-out ones.
            visible: (U,) whose exposures may be learned from.
            params: how.
            seed: of where they start.
        """
        user = rows_of(ids_of(exposures, "user_id"), ids_of(users, "user_id"), "user")
        learned = exposures.filter(pa.array(visible[user]))
        items = np.unique(ids_of(learned, "item_id"))
        known = users.filter(pa.array(visible))
        seen = exposure_matrix(learned, ids_of(known, "user_id"), items)
        v, scale = cls.learn(seen, params, seed), Scale.identity(params.f_dim + params.activity)
        plain = cls(items, v, scale, params.activity, cls.settings_of(params))
        return replace(plain, scale=Scale.of(plain.raw(known, learned)))

    def raw(self, users: pa.Table, exposures: pa.Table) -> Tensor:
        """Give x (n, d) of any users, before it is standardised; unknown items say nothing.

        Raises:
            PipelineError: an exposure of somebody who is not among `users`.
        """
        known = exposures.filter(pa.array(np.isin(ids_of(exposures, "item_id"), self.items)))
        seen = exposure_matrix(known, ids_of(users, "user_id"), self.items)
        x = torch.from_numpy(self.coordinates(seen))
        return with_activity(x, users, exposures) if self.activity else x

    def vectors(self, users: pa.Table, exposures: pa.Table) -> Singles:
        """Standardised x (n, d) of any users, from their exposures; see `raw`."""
        standardised: Singles = self.scale.apply(self.raw(users, exposures)).numpy()
        return standardised

    def write(self, path: Path) -> None:
        """Write it as safetensors: items, their vectors, mean and scale."""
        tensors = {"items": self.items, "v": np.ascontiguousarray(self.v)}
        write_model(
            {name: torch.from_numpy(array) for name, array in tensors.items()}
            | {"mean": self.scale.mean, "scale": self.scale.scale},
            {
                "user_fields": [],
                "activity": self.activity,
                "model": self.model,
                "settings": dict(self.settings),
            },
            path,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            PipelineError: no such file, or one without such vectors.
        """
        tensors, config = read_model(path)
        try:
            if config["model"] != cls.model:
                raise KeyError(cls.model)
            return cls(
                tensors["items"].numpy(),
                tensors["v"].numpy(),
                Scale(tensors["mean"], tensors["scale"]),
                bool(config["activity"]),
                cast(dict[str, float], config["settings"]),
            )
        except MISFITS as error:
            raise PipelineError(
                f"{path}: holds no vectors of features.model {cls.model}; set it to {cls.model} "
                "and run `dvc repro`."
            ) from error
