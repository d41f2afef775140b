"""The task embeddings table as a matrix, and back."""

import pyarrow as pa

from pipeline.arrays import Singles
from pipeline.errors import PipelineError
from pipeline.storage import matrix, vectors


def embedding_matrix(embeddings: pa.Table, tasks: pa.Table) -> Singles:
    """Embeddings (M, d) of the M `tasks`, in their order.

    Raises:
        PipelineError: the table is of other tasks.
    """
    if not embeddings.column("item_id").equals(tasks.column("item_id")):
        raise PipelineError(
            f"the task embeddings are of {embeddings.num_rows:,} tasks, but not of the "
            f"{tasks.num_rows:,} in the tasks table.",
            "The files do not belong together: run `dvc repro`.",
        )
    return matrix(embeddings.column("e"))


def embedding_table(e: Singles, tasks: pa.Table) -> pa.Table:
    """The inverse of `embedding_matrix`."""
    return tasks.select(["task_id", "item_id"]).append_column("e", vectors(e))
