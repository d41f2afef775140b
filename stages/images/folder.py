"""Where the files of the image experiments lie and what is in them; what stages are called."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.arrays import Ints, Singles
    from pipeline.examples import Examples
    from pipeline.images.params import Dataset
    from pipeline.images.tasks import TaskSet


def stage_name(stage: str, dataset: "Dataset", *of: str | int, k: int | None = None) -> str:
    """What a stage calls itself, and its run facts: the stage, its data set, k, all else."""
    cell = () if k is None else (f"k{k}",)
    return "-".join(map(str, (stage, dataset, *cell, *of)))


def run_info(root: Path) -> Path:
    """The folder of the run facts of all stages."""
    return root / "run_info"


class FeatureFiles(NamedTuple):
    """What the stage `features` writes."""

    users: Path  # user_id, x
    clusters: Path  # user_id, cluster: the pseudo-label
    history: Path
    probe: Path  # accuracy of a linear probe


class TaskFiles(NamedTuple):
    """What the stage `tasks` writes."""

    tasks: Path
    exposures: Path


class PretrainFiles(NamedTuple):
    """What the stage `pretrain` writes."""

    model: Path
    history: Path


class StartFiles(NamedTuple):
    """What the stage `project` writes of an initialisation."""

    e: Path  # task_id, e
    projection: Path  # what places a task of another k


class RatioFiles(NamedTuple):
    """What the stage `train` writes."""

    model: Path
    e: Path  # task_id, e
    history: Path


class SimilarityFiles(NamedTuple):
    """What the stage `similarity` writes."""

    statistic: Path  # task_id, e: equation 4
    spearman: Path  # rank correlations


@dataclass(frozen=True)
class Folder:
    """Where the files of one data set lie.

    Attributes:
        root: below which all data sets do.
        dataset: its name.
    """

    root: Path
    dataset: "Dataset"

    @property
    def images(self) -> Path:
        """Pixels of the images that take part."""
        return self.root / self.dataset / "images.safetensors"

    @property
    def users(self) -> Path:
        """user_id (the image), category."""
        return self.root / self.dataset / "users.parquet"

    @property
    def splits(self) -> Path:
        """Each image's split."""
        return self.root / self.dataset / "splits.parquet"

    @property
    def features(self) -> FeatureFiles:
        """What comes of SimCLR."""
        folder = self.root / self.dataset / "features"
        return FeatureFiles(
            *(folder / "users.parquet", folder / "clusters.parquet"),
            *(folder / "history.csv", folder / "probe.csv"),
        )

    def tasks(self, k: int) -> TaskFiles:
        """The tasks of k active categories."""
        folder = self.root / self.dataset / "tasks" / f"k{k}"
        return TaskFiles(folder / "tasks.parquet", folder / "exposures.parquet")

    def _runs(self, k: int, seed: int) -> Path:
        """The folder of what is learned on them."""
        return self.root / self.dataset / f"seed{seed}" / f"k{k}"

    def pretrain(self, k: int, seed: int, seed_tasks: int) -> PretrainFiles:
        """The pre-embedding model of M0 seed tasks."""
        folder = self._runs(k, seed) / "pretrain" / f"{seed_tasks}"
        return PretrainFiles(folder / "model.safetensors", folder / "history.csv")

    def starts(self, k: int, seed: int) -> Path:
        """The folder of the embeddings to start from."""
        return self._runs(k, seed) / "start"

    def start(self, k: int, seed: int, init: str) -> StartFiles:
        """Those of an initialisation."""
        folder = self.starts(k, seed)
        return StartFiles(folder / f"{init}.parquet", folder / f"{init}.safetensors")

    def ratio(self, k: int, seed: int, init: str) -> RatioFiles:
        """What is learned from there."""
        folder = self._runs(k, seed) / "ratio" / init
        return RatioFiles(
            *(folder / "model.safetensors", folder / "task_embeddings.parquet"),
            folder / "history.csv",
        )

    def auc(self, k: int, seed: int) -> Path:
        """The AUCs of every initialisation."""
        return self._runs(k, seed) / "auc.csv"

    def generalisation(self, seed: int) -> Path:
        """The AUCs of tasks that were projected only."""
        return self.root / self.dataset / "generalisation" / f"{seed}.csv"

    def similarity(self, seed: int) -> SimilarityFiles:
        """What Figure 3 is drawn from."""
        folder = self.root / self.dataset / "similarity" / f"{seed}"
        return SimilarityFiles(folder / "statistic.parquet", folder / "spearman.csv")

    def measured(self, kind: str, k: int, method: str, seed: int) -> Path:
        """The AUCs of a method of Table 2, of the stage `separate` or `on_features`."""
        return self.root / self.dataset / kind / f"k{k}" / f"{method}-{seed}.csv"

    def inputs(self, k: int) -> list[Path]:
        """The files that every training on pixels follows from."""
        return [self.images, self.users, self.splits, *self.tasks(k)]

    def people(self) -> "tuple[pa.Table, pa.Table]":
        """The images as users, and their splits."""
        from pipeline import schemas
        from pipeline.storage import read_table

        return read_table(self.users, schemas.USERS), read_table(self.splits, schemas.SPLITS)

    def pixels(self) -> "Singles":
        """Standardised pixels (U, channels, side, side)."""
        from pipeline.images.tasks import standardised
        from pipeline.model_files import read_model
        from pipeline.pairs import split_rows

        tensors, _ = read_model(self.images)
        users, splits = self.people()
        return standardised(tensors["pixels"].numpy(), split_rows(splits, users, "train"))

    def load_features(self) -> "Singles":
        """SimCLR's features (U, d)."""
        from pipeline import schemas
        from pipeline.storage import matrix, read_table

        return matrix(read_table(self.features.users, schemas.FEATURES).column("x"))

    def load_clusters(self) -> "Ints":
        """The pseudo-label of each image (U,)."""
        from pipeline import schemas
        from pipeline.storage import read_table

        table = read_table(self.features.clusters, schemas.USERS)
        cluster: Ints = table.column("cluster").to_numpy()
        return cluster

    def load_shares(self) -> "Singles":
        """Pixels as shares of the brightest, in [0, 1]: (U, channels, side, side)."""
        from pipeline.model_files import read_model

        tensors, _ = read_model(self.images)
        return (tensors["pixels"].float() / 255).numpy()

    def task_set(self, k: int) -> "TaskSet":
        """The tasks of k active categories and their exposures."""
        from pipeline import schemas
        from pipeline.images.tasks import TaskSet
        from pipeline.storage import read_table

        files = self.tasks(k)
        tasks = read_table(files.tasks, schemas.TASKS)
        return TaskSet(tasks, read_table(files.exposures, schemas.EXPOSURES))

    def examples(self, x: "Singles", k: int) -> "Examples":
        """What Algorithm 1 learns from; x are pixels or features."""
        from pipeline.images.tasks import image_examples

        users, splits = self.people()
        return image_examples(x, users, splits, self.task_set(k))

    def split(self, name: str) -> "tuple[Ints, Ints]":
        """Rows of the images of a split, and their categories."""
        from pipeline.pairs import split_rows

        users, splits = self.people()
        rows = split_rows(splits, users, name)
        return rows, users.column("category").to_numpy()[rows]
