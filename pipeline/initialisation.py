"""Where each task embedding starts, by `init`: the only place that knows the initialisations."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import pyarrow as pa

from pipeline.arrays import Singles
from pipeline.embeddings import Projection, histogram_values, random_embeddings, task_means
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.labels import label_classes
from pipeline.model_files import write_model
from pipeline.models.ratio import PreEmbeddingNet
from pipeline.params import Init, Params
from pipeline.pretraining import seed_ratios

Averaged = Literal["learned", "mean", "histogram"]  # over the users of a task


@dataclass(frozen=True)
class Initialisation:
    """Embeddings to start from, and how they were made.

    Attributes:
        init: which initialisation.
        e: (M, e_dim).
        projection: from a task's statistic to its embedding; None for `random`, which has none.
    """

    init: Init
    e: Singles
    projection: Projection | None

    def write_projection(self, path: Path) -> None:
        """Write the projection as safetensors; for `random` a file without tensors."""
        tensors = self.projection.tensors() if self.projection else {}
        write_model(tensors, {"init": self.init}, path)


def initialise(
    examples: Examples,
    params: Params,
    *,
    users: pa.Table,
    pre_embedding: Callable[[], PreEmbeddingNet],
    graph_vectors: Callable[[], Singles],
) -> Initialisation:
    """Embed every task by `params.init`; reads init, projection, labels and seed.

    Args:
        examples: training exposures, and users' vectors.
        params: what is wanted.
        users: a row for each of the examples' users, for `histogram`: its label is extra knowledge.
        pre_embedding: gives the pre-embedding model; asked by `learned` alone.
        graph_vectors: gives (M, d) vectors of the tasks' items, extra knowledge too; asked by
            `graph` alone.

    Raises:
        PipelineError: `graph`, and all items have the same vector.
    """
    init, wanted = params.init, params.projection
    if init == "random":
        gen = np.random.default_rng(params.seed)
        return Initialisation(
            "random", random_embeddings(examples.tasks, wanted.random_dim, gen), None
        )
    if init == "graph":
        statistic = _telling(graph_vectors())
    else:
        values = _user_values(init, examples, params, users, pre_embedding)
        statistic = task_means(values, examples.learned, examples.tasks)
    projection = Projection.fit(statistic, standardise=wanted.standardise, reduce=wanted.reduce)
    return Initialisation(init, projection.apply(statistic), projection)


def _telling(vectors: Singles) -> Singles:
    """The vectors, provided that they tell one task from another."""
    if (vectors == vectors[0]).all():
        raise PipelineError(
            f"init: graph: the items of all {len(vectors):,} tasks have the same vector, for the "
            "graph tells nothing of them; name files under graph.triples and graph.items that do, "
            "or choose another init."
        )
    return vectors


def _user_values(
    init: Averaged,
    examples: Examples,
    params: Params,
    users: pa.Table,
    pre_embedding: Callable[[], PreEmbeddingNet],
) -> Singles:
    """What is averaged over the users of a task, (U, d)."""
    if init == "learned":
        return seed_ratios(pre_embedding(), examples.x)
    if init == "mean":
        return examples.x
    if init == "histogram":
        name = params.projection.histogram_label
        classes = label_classes(users, name, params.labels[name])
        return histogram_values(classes.codes, len(classes))
    assert_never(init)
