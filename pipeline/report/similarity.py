"""How alike the embeddings of some tasks are, before and after the training."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics.pairwise import cosine_similarity

from pipeline.arrays import Ints, Singles
from pipeline.embedding_matrix import embedding_matrix
from pipeline.params import Source
from pipeline.report.artefacts import Artefacts
from pipeline.report.choice import compared_tasks


@dataclass(frozen=True)
class Similarity:
    """Cosine similarities (N, N) of the embeddings of N tasks."""

    titles: list[str]
    start: Singles
    trained: Singles


def similarity(artefacts: Artefacts, source: Source) -> Similarity:
    """Compare some tasks: of MovieLens as they are chosen, else like beside like.

    Raises:
        PipelineError: embeddings of other tasks.
    """
    start, end = (
        embedding_matrix(table, artefacts.tasks)
        for table in (artefacts.task_init, artefacts.task_embeddings)
    )
    rows = compared_tasks(artefacts.tasks, source)
    trained = artefacts.net.seen(torch.from_numpy(end)).numpy()
    if source != "movielens-1m":
        rows = rows[_line_up(cosine_similarity(trained[rows]))]
    return Similarity(
        titles=artefacts.task_items.column("title").take(rows).to_pylist(),
        start=cosine_similarity(start[rows]),
        trained=cosine_similarity(trained[rows]),
    )


def _line_up(cosines: Singles) -> Ints:
    """An order that puts alike rows beside each other, by spectral seriation.

    Along the Fiedler vector of the graph whose edges weigh (1 + cosine) / 2 (Atkins et al., 1998).
    """
    if len(cosines) < 2:
        return np.arange(len(cosines))
    weights = (1 + cosines) / 2
    axis = np.linalg.eigh(np.diag(weights.sum(axis=1)) - weights)[1][:, 1]
    return np.argsort(axis if axis[0] < 0 else -axis, kind="stable")  # its sign is free
