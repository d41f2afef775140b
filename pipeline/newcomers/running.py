"""What goes on after training: users, items and tasks as they are now, with running sums.

Nothing is trained here. A task that was trained keeps its embedding, a user that DeepFM was trained
on their vector. Users who came later have theirs fitted to all their exposures (`fold_in`), each by
draws of their own, so that it is the same whoever comes with them; items that came later are placed
by the mean vector of their audience (`placement`).
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline import schemas
from pipeline.arrays import Bools, Ints, Singles
from pipeline.embedding_matrix import embedding_matrix, embedding_table
from pipeline.embeddings import task_means
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.files import telling_of
from pipeline.lock import held
from pipeline.model_files import MISFITS, read_model, under, write_model
from pipeline.newcomers.audience import Audience
from pipeline.newcomers.drift import Drift
from pipeline.newcomers.placement import Placement
from pipeline.pairs import ids_of, shown
from pipeline.storage import matrix, read_table, write_table

MODEL = "running.safetensors"
BUSY = "is taking in other exposures; wait until it is done, and run it again."
TABLES: Mapping[str, schemas.Schema] = {
    "users": schemas.USERS,
    "items": schemas.ITEMS,
    "exposures": schemas.EXPOSURES,
    "features": schemas.FEATURES,
    "tasks": schemas.TASKS,
    "task_embeddings": schemas.TASK_EMBEDDINGS,
}


@dataclass(frozen=True)
class Running:
    """All that scoring reads, as it is now.

    Attributes:
        users, items, exposures, features, tasks: tables; see `schemas`.
        e: (M, e_dim) embeddings of the tasks.
        later: (M,) which tasks came later.
        learned: user_id of the training users, rising.
        before: user_id of all users who had a visible exposure at the training, rising.
        foreseen: (n, 2) user_id and item_id of the pairs that came since of those of them who did
            not train: what the drift is of.
        audience: running sums.
        placement: of tasks that come later.
        drift: so far.
    """

    users: pa.Table
    items: pa.Table
    exposures: pa.Table
    features: pa.Table
    tasks: pa.Table
    e: Singles
    later: Bools
    learned: Ints
    before: Ints
    foreseen: Ints
    audience: Audience
    placement: Placement
    drift: Drift

    @classmethod
    def of(
        cls,
        users: pa.Table,
        items: pa.Table,
        exposures: pa.Table,
        splits: pa.Table,
        features: pa.Table,
        tasks: pa.Table,
        e: Singles,
    ) -> Self:
        """What the pipeline has left, before anything came later.

        Raises:
            PipelineError: tables that do not belong together.
        """
        examples = Examples.of(features, tasks, exposures, splits)
        ids = ids_of(features, "user_id")
        learned = ids[examples.train]
        means = task_means(examples.x, examples.learned, examples.tasks)
        visible = shown(exposures)
        user, item = (visible.column(name).to_numpy() for name in ("user_id", "item_id"))
        never_met = np.setdiff1d(items.column("item_id"), exposures.column("item_id"))
        audience = (
            Audience.nothing(examples.x.shape[1])
            .with_items(ids_of(tasks, "item_id"))
            .with_items(never_met)
            .add(item, np.searchsorted(ids, user), examples.x, counts=np.isin(user, learned))
        )
        return cls(
            users.select([name for name in users.column_names if name in ("user_id", "user_key")]),
            items,
            exposures,
            features,
            tasks.select(list(schemas.TASKS.columns)),
            e,
            np.zeros(len(e), bool),
            learned,
            np.unique(user),
            np.zeros((0, 2), np.int64),
            audience,
            Placement.fit(means, e),
            Drift(),
        )

    @property
    def x(self) -> Singles:
        """Vectors of the users, (U, x_dim)."""
        return matrix(self.features.column("x"))

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether `write` has filled a folder; what it had set aside when killed is put back.

        Raises:
            PipelineError: something else is there.
        """
        if _interrupted(folder):
            with alone_in(folder):
                pass
        if (folder / MODEL).exists():
            return True
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise PipelineError(
                f"{folder}: holds something else than what `update` writes; name another folder."
            )
        return False

    def write(self, folder: Path, model: str) -> None:
        """Write tables and sums to a folder, all or nothing; `model` names their network.

        A process that may not be the only one is `alone_in` the folder meanwhile.
        """
        part, old = (_beside(folder, what) for what in ("part", "old"))
        there = self.is_in(folder)
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
        try:
            self._write_to(part, model)
            with telling_of(folder):
                if there:
                    folder.resolve().rename(old)
                part.rename(folder.resolve())
        except BaseException:
            if _interrupted(folder):
                old.rename(folder.resolve())
            shutil.rmtree(part, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def _write_to(self, part: Path, model: str) -> None:
        embeddings = embedding_table(self.e, self.tasks)
        for name, schema in TABLES.items():
            table = embeddings if name == "task_embeddings" else getattr(self, name)
            write_table(table, part / f"{name}.parquet", schema)
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "later": self.later,
            "learned": self.learned,
            "before": self.before,
            "foreseen": self.foreseen,
        }
        arrays |= {f"audience.{name}": value for name, value in vars(self.audience).items()}
        arrays |= {f"placement.{name}": value for name, value in vars(self.placement).items()}
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        config = {"model": model, "drift": vars(self.drift)}
        write_model(tensors, config, part / MODEL)

    @classmethod
    def read(cls, folder: Path) -> tuple[Self, str]:
        """Read what `write` wrote: what runs, and the name of its network.

        Of one write alone: where another replaces the folder meanwhile, it is read anew.

        Raises:
            PipelineError: a file is missing or damaged.
        """
        version = _version(folder)
        try:
            found = cls._read_from(folder)
        except (PipelineError, *MISFITS) as error:
            if _version(folder) == version:
                raise PipelineError(
                    getattr(error, "fault", f"{folder}: holds no state of this pipeline."),
                    f"Delete the folder {folder} and take in again what `dvc repro` has not seen.",
                ) from error
        else:
            if _version(folder) == version:
                return found
        return cls.read(folder)

    @classmethod
    def _read_from(cls, folder: Path) -> tuple[Self, str]:
        tensors, config = read_model(folder / MODEL)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        tables = {name: read_table(folder / f"{name}.parquet", s) for name, s in TABLES.items()}
        e = embedding_matrix(tables.pop("task_embeddings"), tables["tasks"])
        running = cls(
            **tables,
            e=e,
            later=arrays["later"],
            learned=arrays["learned"],
            before=arrays["before"],
            foreseen=arrays["foreseen"],
            audience=Audience(**under("audience.", arrays)),
            placement=Placement(**under("placement.", arrays)),
            drift=Drift(**cast(dict[str, Any], config["drift"])),
        )
        return running, str(config["model"])


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let no other process write to a folder meanwhile; what a killed one set aside is put back.

    Raises:
        PipelineError: another process is at it.
    """
    with held(_beside(folder, "lock"), BUSY):
        if _interrupted(folder):
            _beside(folder, "old").rename(folder.resolve())
        yield


def _interrupted(folder: Path) -> bool:
    """Whether a write was killed after it had set the old folder aside, and before the new came.

    An old one beside nothing new was done with, and whoever removed the folder meant it.
    """
    return not folder.exists() and all(_beside(folder, of).exists() for of in ("old", "part"))


def _version(folder: Path) -> tuple[int, int] | None:
    """What tells one write of a folder from every other."""
    try:
        status = (folder / MODEL).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _beside(folder: Path, what: str) -> Path:
    """Where a write prepares a folder, where it sets the old one aside, and what it locks.

    A link stays: they lie beside the folder that it leads to.
    """
    folder = folder.resolve()  # which has a name, but for the root
    return folder.with_name(f".{folder.name}.{what}")
