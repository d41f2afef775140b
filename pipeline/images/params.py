"""The params of the image experiments as typed, checked values: experiments/images/*.yaml."""

import math
import re
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, StringConstraints, model_validator

from pipeline.sections import Count, Once, ParamsFile, Positive, Schedule, Section, Seed, Trunk

Dataset = Literal["cifar10", "mnist"]
K = Annotated[int, Field(ge=1, le=5)]
INIT = r"label|pseudo|random|learned-[1-9]\d*(-frozen)?"
InitName = Annotated[str, StringConstraints(pattern=f"^({INIT})$")]
FeatureMethod = Literal["gaussian", "maf", "ratio-features"]
Method = Literal[FeatureMethod, "ratio", "svdd", "csi"]
ON_FEATURES: tuple[FeatureMethod, ...] = get_args(FeatureMethod)


class Cell(Section):
    """One column of tables 2, 3 or 6: all tasks of k active categories.

    `epochs` is the most that either training of theirs may last.
    """

    dataset: Dataset
    k: K
    epochs: Count


Decay = Literal["none", "cosine"]


class Decaying(Schedule):
    """A schedule whose learning rate can fall to 0 over its epochs, along half a cosine."""

    decay: Decay

    def rate(self, epoch: int) -> float:
        """That of an epoch, counted from 1."""
        if self.decay == "none":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * (epoch - 1) / self.max_epochs)) / 2


class CellSchedule(Section):
    """A schedule for as many epochs as a cell says."""

    lr: Positive
    decay: Decay
    batch_size: Count
    patience: Count

    def lasting(self, epochs: int) -> Decaying:
        """The schedule of `epochs` at most."""
        return Decaying(**self.model_dump(), max_epochs=epochs)


class ImageData(Section):
    """Which images take part."""

    raw_dir: str | None
    train_images: Count | None
    valid_images: Count
    test_images: Count | None
    split_seed: Seed
    task_seed: Seed


class Network(Section):
    """The trunk of Table 4 and what follows it."""

    width: Count
    head: Count


class ImageProjection(Section):
    """From statistics of a task to the embedding it starts from."""

    random_dim: Count
    standardise: bool


class Simclr(Decaying):
    """Features without labels."""

    width: Count
    temperature: Positive


class Perceptron(Schedule):
    """A network with layers of these widths."""

    hidden: Annotated[list[Count], Field(min_length=1)]


class Decayed(Schedule):
    """A schedule with weight decay."""

    weight_decay: Annotated[float, Field(ge=0)]


class Svdd(Decayed):
    """Deep SVDD."""

    width: Count
    autoencoder_epochs: Count


class Csi(Schedule):
    """CSI."""

    width: Count
    temperature: Positive


class Flow(Decayed):
    """A masked autoregressive flow."""

    hidden: Count


class Separate(Section):
    """One model a task (Table 2, left); of no k, Table 2 is left out."""

    ks: list[K]
    methods: list[Method]
    tasks: Count | None
    draws: Count | None
    ratio: Schedule
    features: Perceptron
    maf: Flow
    svdd: Svdd
    csi: Csi


class OnFeatures(Section):
    """Conditional learning on features (Table 2, right)."""

    ratio: Trunk
    gaussian: Decayed
    maf: Flow


class Unseen(Section):
    """Tasks that were not trained on: of which data set (Table 3, right; Figure 3), and for the
    figure, by the pre-embedding of which k, learned for how long, and by how many coordinates."""  # noqa: D205, D209

    dataset: Dataset
    train_k: K
    test_k: K
    epochs: Count
    coordinates: Annotated[list[Count], Field(min_length=1)]


class ImageParams(ParamsFile):
    """The whole of the file."""

    name: str
    once: Once
    datasets: Annotated[list[Dataset], Field(min_length=1)]
    cells: Annotated[list[Cell], Field(min_length=1)]
    inits: Annotated[list[InitName], Field(min_length=1)]
    seed_tasks: Annotated[list[Count], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    data: ImageData
    network: Network
    pretrain: CellSchedule
    projection: ImageProjection
    ratio: CellSchedule
    simclr: Simclr
    unseen: Unseen
    separate: Separate
    on_features: OnFeatures

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        named = {cell.dataset for cell in self.cells}
        if not named == {*self.datasets} == {*get_args(Dataset)}:
            raise ValueError(
                f"datasets are {self.datasets}, and cells are of {sorted(named)}; list both "
                f"{' and '.join(get_args(Dataset))} under `datasets`, and give each at least one "
                "cell"
            )
        for init in self.inits:
            if seed_tasks_of(init) not in (None, *self.seed_tasks):
                raise ValueError(f"inits name {init}; seed_tasks are {self.seed_tasks}")
        if all(seed_tasks_of(init) is None for init in self.inits):
            raise ValueError(
                f"inits name {self.inits}; one learned-M0 is needed for table 3, right"
            )
        of = self.unseen.dataset
        ks = {cell.k for cell in self.cells if cell.dataset == of and cell.k > 1}
        if len(ks) < 2 or not {self.unseen.train_k, self.unseen.test_k} <= ks:
            raise ValueError(
                f"unseen needs two k > 1 of {of} at least, unseen.train_k and "
                f"unseen.test_k among them; cells name {sorted(ks)}"
            )
        if not {*self.separate.ks} <= (known := {c.k for c in self.cells if c.dataset == of}):
            raise ValueError(
                f"separate.ks are {self.separate.ks}; cells of {of} name {sorted(known)}"
            )
        return self


def seed_tasks_of(init: str) -> int | None:
    """M0 of a learned initialisation, such as 64 of "learned-64-frozen"; None of the others."""
    found = re.fullmatch(r"learned-(\d+)(-frozen)?", init)
    return int(found[1]) if found else None


def start_of(init: str) -> str:
    """The initialisation that `init` starts like: itself, less "-frozen"."""
    return init.removesuffix("-frozen")
