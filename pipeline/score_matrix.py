"""The scores table as a matrix, and back."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from pipeline.arrays import Ints, Singles
from pipeline.errors import PipelineError
from pipeline.pairs import ids_of


def score_matrix(scores: pa.Table, tasks: pa.Table, user_ids: Ints) -> Singles:
    """Scores of all M tasks and of the users `user_ids` (U,), rising, as (M, U).

    Any scorer's table will do, as long as it is complete.

    Raises:
        PipelineError: a (task, user) is missing, or does not belong.
    """
    task_ids = tasks.column("task_id").to_numpy()
    shape = (len(task_ids), len(user_ids))
    complete = (
        scores.num_rows == shape[0] * shape[1]
        and (scores.column("task_id").to_numpy().reshape(shape) == task_ids[:, None]).all()
        and (ids_of(scores, "user_id").reshape(shape) == user_ids).all()
    )
    if not complete:
        raise PipelineError(
            f"the scores table has {scores.num_rows:,} rows; expected one for each of "
            f"{shape[0]:,} tasks and {shape[1]:,} validation and test users, and no others. "
            "Score them again: `dvc repro score`."
        )
    matrix: Singles = scores.column("score").to_numpy().reshape(shape)
    return matrix


def score_table(scores: Singles, tasks: pa.Table, user_ids: Ints) -> pa.Table:
    """The inverse of `score_matrix`: scores (M, U) as a table, sorted by task, then user."""
    task_ids = tasks.column("task_id").to_numpy()
    return pa.table(
        {
            "task_id": np.repeat(task_ids, len(user_ids)),
            "user_id": np.tile(user_ids, len(task_ids)),
            "score": scores.reshape(-1),
        }
    )


def score_tables(blocks: Iterable[Singles], tasks: pa.Table, user_ids: Ints) -> Iterator[pa.Table]:
    """`score_table` of all tasks, a block of them (tasks, U) at a time, in their order."""
    start = 0
    for block in blocks:
        yield score_table(block, tasks.slice(start, len(block)), user_ids)
        start += len(block)
