"""What the stages of the image experiments share: their options, and where their files lie."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stages.shell import Run, running

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.arrays import Ints, Singles
    from pipeline.examples import Examples
    from pipeline.images.params import ImageParams
    from pipeline.images.tasks import TaskSet

ParamsOption = Annotated[Path, typer.Option("--params", help="The params file.")]
RootOption = Annotated[Path, typer.Option("--data", help="Reads and writes below this folder.")]
Dataset = Literal["cifar10", "mnist"]
DatasetOption = Annotated[Dataset, typer.Option(help="Which images.")]
KOption = Annotated[int, typer.Option(min=1, max=5, help="Number of active categories.")]
EpochsOption = Annotated[int, typer.Option(min=1, help="At most.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of weights, batches and negatives.")]
ON_FEATURES = ("gaussian", "maf", "ratio-features")  # methods of Table 2 that look at features
PARAMS = Path("experiments/images/params.yaml")
ROOT = Path("experiments/images/data")


@contextmanager
def image_stage(
    name: str,
    params_file: Path,
    *keys: str,
    outputs: Sequence[Path],
    root: Path,
    on_device: bool = True,
) -> "Iterator[Run[ImageParams]]":
    """Run a stage's body with the params `keys`; see `running`.

    The device is prepared before the body computes anything, for threads take over what is set
    by then; but not for a stage that has no use of it (`on_device` is False).
    """

    def load() -> "ImageParams":
        from pipeline.images.params import ImageParams
        from pipeline.params import load_sections

        return load_sections(ImageParams, params_file, *keys)

    with running(name, load, outputs=outputs, run_info=root / "run_info") as run:
        run.refuse_several()
        if on_device:
            run.device()
        yield run


@dataclass(frozen=True)
class Folder:
    """Where the files of one data set lie.

    Attributes:
        root: below which all data sets do.
        dataset: its name.
    """

    root: Path
    dataset: Dataset

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
    def features(self) -> Path:
        """The folder of SimCLR."""
        return self.root / self.dataset / "features"

    def tasks(self, k: int) -> Path:
        """The folder of the tasks of k active categories."""
        return self.root / self.dataset / "tasks" / f"k{k}"

    def runs(self, k: int, seed: int) -> Path:
        """The folder of what is learned on them."""
        return self.root / self.dataset / f"seed{seed}" / f"k{k}"

    def measured(self, kind: str, k: int, method: str, seed: int) -> Path:
        """The AUCs of a method of Table 2, of the stage `separate` or `on_features`."""
        return self.root / self.dataset / kind / f"k{k}" / f"{method}-{seed}.csv"

    def inputs(self, k: int) -> list[Path]:
        """The files that every training on pixels follows from."""
        tasks = self.tasks(k)
        return [
            *(self.images, self.users, self.splits),
            *(tasks / "tasks.parquet", tasks / "exposures.parquet"),
        ]

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

        return matrix(read_table(self.features / "users.parquet", schemas.FEATURES).column("x"))

    def load_clusters(self) -> "Ints":
        """The pseudo-label of each image (U,)."""
        from pipeline import schemas
        from pipeline.storage import read_table

        table = read_table(self.features / "clusters.parquet", schemas.USERS)
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

        tasks = read_table(self.tasks(k) / "tasks.parquet", schemas.TASKS)
        exposures = read_table(self.tasks(k) / "exposures.parquet", schemas.EXPOSURES)
        return TaskSet(tasks, exposures)

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
