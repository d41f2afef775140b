"""User vectors in closed form: coordinates along the main directions of the exposures.

A truncated singular value decomposition of the users x items matrix, S ~ U D V': a user's vector is
their row of S V. Anybody with exposures has one, and no one is folded in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from scipy.sparse.linalg import svds

from pipeline.errors import PipelineError
from pipeline.extractor import Scale, with_activity
from pipeline.model_files import MISFITS, read_model, write_model
from pipeline.pairs import Bools, Ints, exposure_matrix, ids_of, rows_of

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Directions:
    """What gives a user a vector.

    Attributes:
        items: (I,) item_id of each row of `v`, sorted.
        v: right singular vectors, (I, f_dim), by falling singular value.
        scale: of x over the users it was fitted to.
        activity: whether x ends with the user's log activity.
    """

    items: Ints
    v: Singles
    scale: Scale
    activity: bool

    @classmethod
    def fit(
        cls, users: pa.Table, exposures: pa.Table, visible: Bools, *, f_dim: int, activity: bool
    ) -> Self:
        """Fit to the exposures of the users who are `visible`.

        Args:
            users: user_id, sorted.
            exposures: what may be seen: no held-out ones.
            visible: (U,) whose exposures may be learned from.
            f_dim: how many directions.
            activity: append the log of a user's number of exposures.

        Raises:
            PipelineError: fewer visible users or items than directions ask for.
        """
        user = rows_of(ids_of(exposures, "user_id"), ids_of(users, "user_id"), "user")
        learned = exposures.filter(pa.array(visible[user]))
        items = np.unique(ids_of(learned, "item_id"))
        known = users.filter(pa.array(visible))
        most = min(len(known), len(items)) - 1
        if f_dim > most:
            raise PipelineError(
                f"features.f_dim is {f_dim}, but the visible exposures of {len(known):,} users to "
                f"{len(items):,} items have at most {max(most, 0):,} directions to be computed; "
                "set a smaller one."
            )
        seen = exposure_matrix(learned, ids_of(known, "user_id"), items)
        _, d, v = svds(seen.astype(np.float64), k=f_dim, v0=np.ones(min(seen.shape)))
        v = v[np.argsort(-d)]
        # The signs are left open; equal exposures must give equal vectors on any machine.
        v *= np.sign(v[np.arange(f_dim), np.abs(v).argmax(1)])[:, None]
        plain = cls(items, v.T.astype(np.float32), Scale.identity(f_dim + activity), activity)
        x = torch.from_numpy(plain.vectors(known, learned))
        return cls(items, plain.v, Scale.of(x), activity)

    def vectors(self, users: pa.Table, exposures: pa.Table) -> Singles:
        """Standardised x (n, d) of any users, from their exposures; unknown items say nothing.

        Raises:
            PipelineError: an exposure of somebody who is not among `users`.
        """
        known = exposures.filter(pa.array(np.isin(ids_of(exposures, "item_id"), self.items)))
        seen = exposure_matrix(known, ids_of(users, "user_id"), self.items)
        x = torch.from_numpy(seen @ self.v)
        raw = with_activity(x, users, exposures) if self.activity else x
        standardised: Singles = self.scale.apply(raw).numpy()
        return standardised

    def write(self, path: Path) -> None:
        """Write it as safetensors: items, directions, mean and scale."""
        tensors = {"items": self.items, "v": np.ascontiguousarray(self.v)}
        write_model(
            {name: torch.from_numpy(array) for name, array in tensors.items()}
            | {"mean": self.scale.mean, "scale": self.scale.scale},
            {"user_fields": [], "activity": self.activity},
            path,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            PipelineError: no such file, or one without directions.
        """
        tensors, config = read_model(path)
        try:
            return cls(
                tensors["items"].numpy(),
                tensors["v"].numpy(),
                Scale(tensors["mean"], tensors["scale"]),
                bool(config["activity"]),
            )
        except MISFITS as error:
            raise PipelineError(
                f"{path}: holds no directions; set features.model to svd and run `dvc repro`."
            ) from error
