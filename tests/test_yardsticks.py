"""Which users stand on which side, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.auc import task_aucs
from pipeline.errors import PipelineError
from pipeline.pairs import Pairs
from pipeline.params import Label
from pipeline.score_matrix import score_matrix
from pipeline.yardsticks import TaskLabel, exposure_sides, task_label

USERS = pa.table({"user_id": pa.array([10, 20, 30, 40], pa.int64()), "sex": ["M", "F", "M", "F"]})
TASKS = pa.table(
    {
        "task_id": pa.array([0, 1], pa.int32()),
        "nominal_sex": pa.array([1, 0], pa.int32()),
        "anomalous_sex": pa.array([0, 1], pa.int32()),
        "kept_by_sex": [True, False],
    }
)


def pairs(*rows: tuple[int, int, bool]) -> Pairs:
    user, task, held_out = zip(*rows, strict=True)
    return Pairs(np.array(user), np.array(task), np.array(held_out))


def test_label_sides_are_the_two_classes_exposed_or_not() -> None:
    label = TaskLabel(
        codes=np.array([0, 1, 2, 1, 0]),
        nominal=np.array([1, 0, 2]),
        anomalous=np.array([0, 2, 2]),
        kept=np.array([True, True, True]),
        classes=np.zeros((3, 3), int),
    )
    sides = label.sides(np.array([1, 2, 4]))  # of classes 1, 2, 0
    assert sides.positive.tolist() == [[True, False, False], [False, False, True], [False] * 3]
    assert sides.negative.tolist() == [[False, False, True], [False, True, False], [False] * 3]
    assert sides.defined.tolist() == [True, True, False]  # task 2: nominal is anomalous


def test_a_task_without_a_test_user_of_a_class_is_undefined() -> None:
    label = TaskLabel(
        codes=np.array([0, 1, 2]),
        nominal=np.array([0, 0]),
        anomalous=np.array([1, 2]),
        kept=np.array([True, True]),
        classes=np.zeros((2, 3), int),
    )
    sides = label.sides(np.array([0, 1]))
    assert sides.defined.tolist() == [True, False]
    np.testing.assert_array_equal(task_aucs(np.array([[2, 1], [2, 1]]), sides).auc, [1, np.nan])


def test_the_classes_of_a_label_are_counted_over_training_pairs() -> None:
    known = pairs((0, 0, False), (1, 0, False), (2, 0, False), (2, 1, False), (3, 1, True))
    label = task_label("sex", Label(column="sex"), USERS, TASKS, known, np.array([0, 1, 2]))
    assert label.codes.tolist() == [1, 0, 1, 0]
    assert label.classes.tolist() == [[1, 2], [0, 1]]
    assert label.nominal.tolist() == [1, 0]
    assert label.kept.tolist() == [True, False]


def test_tasks_made_with_other_labels_are_refused() -> None:
    users = USERS.append_column("age", pa.array([1, 2, 3, 4]))
    message = r"lacks nominal_age, .*: it was made .*\. Make it again: `dvc repro filter_tasks`\.$"
    with pytest.raises(PipelineError, match=message):
        task_label("age", Label(column="age"), users, TASKS, pairs((0, 0, False)), np.array([0]))


@pytest.mark.parametrize("column", ["nominal_sex", "anomalous_sex"])
@pytest.mark.parametrize("wrong", [-1, 2])
def test_tasks_of_a_class_that_no_user_has_are_refused(column: str, wrong: int) -> None:
    at = TASKS.column_names.index(column)
    tasks = TASKS.set_column(at, column, pa.array([0, wrong]))
    with pytest.raises(PipelineError, match=f"a class in {column} that is none of the 2 of the us"):
        task_label("sex", Label(column="sex"), USERS, tasks, pairs((0, 0, False)), np.array([0]))


def test_exposure_sides_compare_held_out_pairs_with_users_who_never_met_the_item() -> None:
    """Users 1, 3, 4 and 6 are measured; the visible pair (3, 0) takes no part in task 0."""
    known = pairs(
        *[(0, 0, False), (1, 0, True), (2, 0, True), (3, 0, False), (3, 1, True), (5, 1, False)]
    )
    sides = exposure_sides(known, np.array([1, 3, 4, 6]), tasks=3)
    assert sides.positive.astype(int).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert sides.negative.astype(int).tolist() == [[0, 0, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]]
    scores = np.array([[0.5, 9, 0.5, 0], [1, 0, 1, -1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(task_aucs(scores, sides).auc, [0.75, 1 / 3, np.nan])


def scores(task_ids: list[int], user_ids: list[int]) -> pa.Table:
    rows = [(task, user) for task in task_ids for user in user_ids]
    return pa.table(
        {
            "task_id": pa.array([task for task, _ in rows], pa.int32()),
            "user_id": pa.array([user for _, user in rows], pa.int64()),
            "score": pa.array(range(len(rows)), pa.float32()),
        }
    )


def test_the_score_matrix_has_a_row_a_task() -> None:
    matrix = score_matrix(scores([0, 1], [20, 30, 40]), TASKS, np.array([20, 30, 40]))
    assert matrix.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert matrix.dtype == np.float32


@pytest.mark.parametrize(
    "table",
    [
        scores([0, 1], [20, 30]).slice(1),  # one pair short
        scores([0, 1], [20, 40]),  # another user
        scores([0, 2], [20, 30]),  # another task
        scores([0, 1, 2], [20, 30]),  # a task too many
    ],
)
def test_a_score_table_that_is_not_complete_is_refused(table: pa.Table) -> None:
    with pytest.raises(PipelineError, match="one for each of 2 tasks and 2 validation and test"):
        score_matrix(table, TASKS, np.array([20, 30]))
