"""What params.yaml holds, as typed, checked values; `params_file.py` reads it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.params_file import load_sections
from pipeline.sections import (
    Base,
    Count,
    ParamsFile,
    Positive,
    Rate,
    Scaling,
    Schedule,
    Section,
    Seed,
    Stop,
    Trunk,
    Visible,
)

Init = Literal["random", "learned", "mean", "histogram", "graph"]
Mode = Literal["sampled", "grid"]
SeedMethod = Literal["random", "kmeans++", "farthest", "facility"]
Source = Literal["simulated", "movielens-1m", "tables"]
Share = Annotated[float, Field(gt=0, lt=1)]
FIGURES = (
    *("exposure", "exposure_valid", "sample", "calibration"),
    *("trivial", "leak", "deepfm", "graph", "loss", "truth"),
)


def _label_name(name: str) -> str:
    if name in FIGURES:  # metrics/auc.json holds these beside the labels
        raise ValueError(f"a label cannot be called {', '.join(FIGURES[:-1])} or {FIGURES[-1]}")
    return name


LabelName = Annotated[str, AfterValidator(_label_name)]


class Data(Section):
    """Where exposures come from, and how users are split."""

    source: Source
    raw_dir: str | None
    tables_dir: str
    text_ids: bool
    split_seed: Seed
    test_share: Share
    valid_share: Share
    held_out_share: Share


class Simulation(Section):
    """Size and seed of the simulated world."""

    users: Annotated[int, Field(ge=50)]
    items: Annotated[int, Field(ge=10)]
    exposures: Count
    seed: Seed

    @model_validator(mode="after")
    def _pairs_suffice(self) -> Self:
        if 2 * self.exposures > self.users * self.items:
            raise ValueError(
                f"exposures ({self.exposures:,}) must be at most half of users x items "
                f"({self.users * self.items:,})"
            )
        return self


class Label(Section):
    """A label of users: a column of the users table, cut at the lower edges `bins` if given."""

    column: str
    bins: Annotated[list[int], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _edges_rise(self) -> Self:
        if self.bins and any(a >= b for a, b in zip(self.bins, self.bins[1:], strict=False)):
            raise ValueError("bins must rise")
        return self


class Als(Section):
    """Matrix factorisation by alternating least squares, for `features.model: als`."""

    penalty: Positive
    confidence: Positive
    iterations: Count


class Features(Schedule):
    """What gives every user a vector: DeepFM, an SVD, ALS, a table, or the simulation's truth."""

    model: Literal["deepfm", "svd", "als", "latents", "table"]
    user_fields: Annotated[list[str], Field(min_length=1)]
    min_users: Count
    f_dim: Count
    als: Als
    activity: bool
    visible: Visible
    hidden: Annotated[list[Count], Field(min_length=1)]
    dropout: Rate
    init_std: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    stop_share: Share

    @model_validator(mode="after")
    def _width_divides(self) -> Self:
        if self.model == "deepfm" and self.f_dim % len(self.user_fields):
            raise ValueError(
                f"f_dim ({self.f_dim}) must be a multiple of the number of user_fields "
                f"({len(self.user_fields)})"
            )
        if len(set(self.user_fields)) < len(self.user_fields):
            raise ValueError("user_fields must be distinct")
        if self.activity and self.model in ("table", "latents"):
            raise ValueError(
                f"activity is appended to vectors that are learned; for model {self.model} set it "
                "to false"
            )
        return self


class Tasks(Section):
    """Which items become tasks: without labels, all with enough exposures."""

    labels: list[str]
    min_exposures: Count
    keep_share: Annotated[float, Field(gt=0, le=1)]


class Pretrain(Trunk):
    """The pre-embedding model."""

    seed_tasks: Count
    seed_method: SeedMethod


class GraphColumns(Section):
    """What the columns of the graph's files are called."""

    head: str
    relation: str
    tail: str
    item: str
    entity: str


class Graph(Schedule):
    """Translation-based vectors of items, from a knowledge graph."""

    model: Literal["transe", "transh", "ktup"]
    triples: str | None
    items: str | None
    columns: GraphColumns
    dim: Count
    norm: Literal[1, 2]
    margin: Positive
    negatives: Literal["bernoulli", "uniform"]
    constraint: Annotated[float, Field(ge=0)]
    recommendation: Share
    held_out_share: Share

    @model_validator(mode="after")
    def _both_files_or_neither(self) -> Self:
        if (self.triples is None) != (self.items is None):
            raise ValueError(
                "triples and items belong together: name both files, or leave both null"
            )
        return self


class Projection(Section):
    """From statistics of a task to the embedding it starts from."""

    random_dim: Count
    standardise: bool
    reduce: Count | None
    histogram_label: str


class Ratio(Trunk):
    """Algorithm 1 on all tasks."""

    base: Base
    visible: Visible = "train"
    stop: Stop = "loss"
    mode: Mode = "sampled"
    grid_tasks: Count = 16
    linear: Annotated[float, Field(ge=0)] | None = None
    scaling: Scaling = "platt"
    freeze_e: bool

    @model_validator(mode="after")
    def _heads_can_learn(self) -> Self:
        if self.linear is not None and self.freeze_e:
            raise ValueError(
                "linear: heads beside the network are part of e, which freeze_e true keeps where "
                "it starts; set linear to null, or freeze_e to false"
            )
        return self


class Evaluate(Section):
    """What is measured."""

    labels: list[str]
    bootstrap: Annotated[int, Field(ge=100)]
    users: Count | None = None


class Params(ParamsFile):
    """The whole of params.yaml."""

    init: Init
    seed: Seed
    data: Data
    simulation: Simulation
    labels: dict[LabelName, Label]
    features: Features
    graph: Graph
    tasks: Tasks
    pretrain: Pretrain
    projection: Projection
    ratio: Ratio
    evaluate: Evaluate

    @model_validator(mode="before")
    @classmethod
    def _no_labels_are_asked_for_where_there_are_none(cls, content: object) -> object:
        """`labels: {}` says in one place that there are none; the lists need not say it again."""
        if isinstance(content, dict) and content.get("labels") == {}:
            asking = {key: content.get(key) for key in ("tasks", "evaluate")}
            emptied = {k: {**v, "labels": []} for k, v in asking.items() if isinstance(v, dict)}
            return {**content, **emptied}
        return content

    @model_validator(mode="after")
    def _labels_exist(self) -> Self:
        asked = {"tasks.labels": self.tasks.labels, "evaluate.labels": self.evaluate.labels}
        if self.init == "histogram":
            asked["projection.histogram_label"] = [self.projection.histogram_label]
        for key, names in asked.items():
            for name in names:
                if name not in self.labels:
                    known = ", ".join(self.labels) or "none"
                    raise ValueError(f"{key} names {name!r}; the labels are: {known}")
        return self


def load_params(file: Path, *keys: str) -> Params:
    """`load_sections` of the main pipeline's params."""
    return load_sections(Params, file, *keys)
