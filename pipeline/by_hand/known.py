"""Whom the trained ratio knows: where its files lie, and the tables read from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from pipeline import schemas
from pipeline.embedding_matrix import embedding_table
from pipeline.errors import PipelineError
from pipeline.files import sha256
from pipeline.newcomers.running import Running
from pipeline.newcomers.stand_ins import StandIns
from pipeline.storage import read_table


@dataclass(frozen=True)
class Known:
    """Whom the trained ratio knows: tables; see `schemas`.

    Where tasks came later there are `stand_ins` for them.
    """

    task_embeddings: pa.Table
    features: pa.Table
    tasks: pa.Table
    exposures: pa.Table
    users: pa.Table
    items: pa.Table
    splits: pa.Table
    stand_ins: StandIns | None = None


@dataclass(frozen=True)
class Files:
    """Where the trained ratio lies, and whom it knows."""

    model: Path
    task_embeddings: Path
    features: Path
    tasks: Path
    splits: Path
    exposures: Path
    user_table: Path
    item_table: Path

    @classmethod
    def below(cls, data: Path) -> Self:
        """Where `dvc repro` puts them in the folder `data`."""
        return cls(
            model=data / "ratio/model.safetensors",
            task_embeddings=data / "ratio/task_embeddings.parquet",
            features=data / "features/users.parquet",
            tasks=data / "tasks.parquet",
            splits=data / "prepared/splits.parquet",
            exposures=data / "prepared/exposures.parquet",
            user_table=data / "prepared/users.parquet",
            item_table=data / "prepared/items.parquet",
        )

    def read(self, state: Path | None = None) -> Known:
        """What `dvc repro` has left, or, with `state`, what `update` has left in that folder.

        Raises:
            PipelineError: a file is missing or damaged; nothing is in `state`, or it belongs to
                another training.
        """
        if state is not None:
            return self._read_as_of_now(state)
        return Known(
            read_table(self.task_embeddings, schemas.TASK_EMBEDDINGS),
            read_table(self.features, schemas.FEATURES),
            read_table(self.tasks, schemas.TASKS),
            read_table(self.exposures, schemas.EXPOSURES),
            read_table(self.user_table, schemas.USERS),
            read_table(self.item_table, schemas.ITEMS),
            read_table(self.splits, schemas.SPLITS),
        )

    def _read_as_of_now(self, state: Path) -> Known:
        if not Running.is_in(state):
            raise PipelineError(
                f"{state}: nothing came later yet; `python -m stages.update NEW` takes new "
                "exposures in. Without --state the tables of `dvc repro` are read."
            )
        now, model = Running.read(state)
        if not self.model.exists() or model != sha256(self.model):
            raise PipelineError(
                f"{state}: belongs to another training than {self.model}; delete it, and take in "
                "again by `python -m stages.update` whatever `dvc repro` has not seen."
            )
        e = embedding_table(now.e, now.tasks)
        splits = read_table(self.splits, schemas.SPLITS)
        tables = (e, now.features, now.tasks, now.exposures, now.users, now.items, splits)
        return Known(*tables, StandIns.of(now) if now.later.any() else None)
