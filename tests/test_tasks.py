"""The task filter, by hand on six users and five items."""

from math import log
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline import schemas
from pipeline.datasets.simulation import simulate
from pipeline.errors import PipelineError
from pipeline.params import Label, Simulation, Tasks
from pipeline.schemas import TASKS
from pipeline.splits import hold_out, split_users
from pipeline.storage import read_table, write_table
from pipeline.tasks import ItemCounts, class_entropy, select_tasks
from stages.filter_tasks import app
from tests.worlds import count_items

USERS = pa.table(
    {
        "user_id": pa.array([1, 2, 3, 4, 5, 6], pa.int64()),
        "sex": ["F", "F", "F", "M", "M", "M"],
        "job": [9, 4, 4, 4, 7, 9],
    }
)
SPLITS = pa.table(
    {"user_id": USERS["user_id"], "split": ["train", "test", "train", "train", "train", "valid"]}
)
LABELS = {"sex": Label(column="sex"), "job": Label(column="job")}
AUDIENCES = {  # item -> users exposed to it
    50: [1],
    40: [1, 2, 4, 5],  # sex 2:2; job 9 1, 4 2, 7 1
    30: [2, 3, 4],  # sex 2:1; job only 4
    20: [1, 2, 3],  # sex only F; job 4 2, 9 1
    10: [4, 5, 6],  # sex only M; job 4, 7, 9
}


def exposures(audiences: dict[int, list[int]], *, held_out: bool = False) -> pa.Table:
    pairs = sorted((user, item) for item, users in audiences.items() for user in users)
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in pairs], pa.int64()),
            "item_id": pa.array([item for _, item in pairs], pa.int64()),
            "held_out": [held_out] * len(pairs),
        }
    )


def counted(labels: dict[str, Label] = LABELS) -> ItemCounts:
    return count_items(USERS, exposures(AUDIENCES), SPLITS, labels)


def params(**changes: object) -> Tasks:
    values = {"labels": ["sex"], "min_exposures": 3, "keep_share": 0.5}
    return Tasks(**(values | changes))


def test_items_are_counted_by_class_over_all_users_and_over_training_users() -> None:
    counts = counted()
    assert counts.item_id.tolist() == [10, 20, 30, 40, 50]
    assert counts.exposures.tolist() == [3, 3, 3, 4, 1]
    assert counts.train_exposures.tolist() == [2, 2, 2, 3, 1]
    assert counts.classes["job"].tolist() == [[1, 1, 1], [2, 0, 1], [3, 0, 0], [2, 1, 1], [0, 0, 1]]
    assert counts.train_classes["sex"].tolist() == [[0, 2], [2, 0], [1, 1], [1, 2], [1, 0]]


def test_held_out_pairs_count_too() -> None:
    held = count_items(USERS, exposures(AUDIENCES, held_out=True), SPLITS, LABELS)
    assert held.exposures.tolist() == counted().exposures.tolist()


def test_the_lowest_half_by_entropy_becomes_tasks() -> None:
    """Four items have 3 exposures; for sex items 10 and 20 have entropy 0."""
    tasks = select_tasks(counted(), params())
    TASKS.check(tasks, "here")
    assert tasks["task_id"].to_pylist() == [0, 1]
    assert tasks["item_id"].to_pylist() == [10, 20]
    assert tasks["exposures"].to_pylist() == [3, 3]
    assert tasks["train_exposures"].to_pylist() == [2, 2]
    assert tasks["entropy_sex"].to_pylist() == [0, 0]
    assert tasks["entropy_job"].to_pylist() == pytest.approx([log(3), log(3) - 2 / 3 * log(2)])
    assert tasks["kept_by_sex"].to_pylist() == [True, True]
    assert tasks["kept_by_job"].to_pylist() == [False, True]


def test_a_task_is_kept_if_one_label_keeps_it() -> None:
    """For job the lowest two are 30 (0) and 20."""
    tasks = select_tasks(counted(), params(labels=["sex", "job"]))
    assert tasks["item_id"].to_pylist() == [10, 20, 30]
    assert tasks["kept_by_sex"].to_pylist() == [True, True, False]
    assert tasks["kept_by_job"].to_pylist() == [False, True, True]


def test_nominal_and_anomalous_come_from_training_users_and_ties_go_to_the_smallest_code() -> None:
    """Job codes are 4 -> 0, 7 -> 1, 9 -> 2; training users are 1, 3, 4 and 5."""
    tasks = select_tasks(counted(), params(keep_share=1.0))
    assert tasks["item_id"].to_pylist() == [10, 20, 30, 40]
    assert tasks["nominal_sex"].to_pylist() == [1, 0, 0, 1]  # 30 has one F and one M
    assert tasks["anomalous_sex"].to_pylist() == [0, 1, 0, 0]
    assert tasks["nominal_job"].to_pylist() == [0, 0, 0, 0]  # 40 has 4, 7 and 9 once each
    assert tasks["anomalous_job"].to_pylist() == [2, 1, 1, 0]  # in 20 nobody has job 7
    assert tasks["nominal_job"].type == pa.int32()


def test_ties_in_entropy_go_to_the_smaller_item_id() -> None:
    """Shares .25 and .75 in any order and scale are the same mixture."""
    table = np.array([[3, 1], [1, 3], [30, 10], [7, 21]])
    counts = ItemCounts(np.arange(4), table.sum(1), table.sum(1), {"sex": table}, {"sex": table})
    assert select_tasks(counts, params())["item_id"].to_pylist() == [0, 1]


@pytest.mark.parametrize(("share", "n"), [(0.29, 29), (0.5, 50), (0.009, 0), (1.0, 100)])
def test_the_kept_share_is_rounded_down(share: float, n: int) -> None:
    table = np.stack([np.arange(100, 200), np.full(100, 100)], axis=1)
    counts = ItemCounts(np.arange(100), table.sum(1), table.sum(1), {"sex": table}, {"sex": table})
    if n == 0:
        with pytest.raises(PipelineError, match=r"no item is left .*; raise tasks.keep_share or"):
            select_tasks(counts, params(keep_share=share))
    else:
        assert select_tasks(counts, params(keep_share=share)).num_rows == n


def test_no_task_is_an_error_that_says_what_there_is() -> None:
    with pytest.raises(
        PipelineError, match=r"0 of 5 items have at least 9 exposures \(the most is 4\)"
    ):
        select_tasks(counted(), params(min_exposures=9))


@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any), min_size=1))
def test_entropy_equals_its_definition_and_ignores_the_order_of_classes(rows: list) -> None:
    counts = np.array(rows)
    slow = [-sum(c / sum(row) * log(c / sum(row)) for c in row if c) for row in rows]
    assert class_entropy(counts) == pytest.approx(slow, abs=1e-11)
    assert class_entropy(counts).tolist() == class_entropy(counts[:, ::-1]).tolist()


def test_an_entropy_of_zero_has_no_sign() -> None:
    """Otherwise the bytes of -0.0 would differ from those of another machine's 0.0."""
    assert np.signbit(class_entropy(np.array([[3, 0], [0, 1]]))).tolist() == [False, False]


def test_of_many_equal_entropies_the_first_ones_are_the_lowest() -> None:
    """Of a few rows any sort keeps the order."""
    table = np.tile([[60, 60], [90, 30]], (500, 1))
    counts = ItemCounts(np.arange(1000), table.sum(1), table.sum(1), {"sex": table}, {"sex": table})
    found = select_tasks(counts, params(keep_share=0.25))["item_id"].to_pylist()
    assert found == list(range(1, 500, 2))


def test_an_item_that_only_test_users_met_counts_as_zero_training_exposures() -> None:
    found = count_items(USERS, exposures({10: [1, 2], 20: [2]}), SPLITS, LABELS)
    assert found.exposures.tolist() == [2, 1]
    assert found.train_exposures.tolist() == [1, 0]
    assert found.train_classes["sex"].tolist() == [[1, 0], [0, 0]]


def test_an_exposure_of_an_unknown_user_and_a_label_without_its_column_are_named() -> None:
    with pytest.raises(PipelineError, match=r"^user 7 is not among the 6 known ones"):
        count_items(USERS, exposures({10: [1, 7]}), SPLITS, LABELS)
    with pytest.raises(PipelineError, match=r"labels\.age needs the column age"):
        count_items(USERS, exposures(AUDIENCES), SPLITS, {"age": Label(column="age")})


@pytest.mark.parametrize(("least", "code"), [(20, 0), (10**6, 1)])
def test_the_stage_writes_the_tasks_or_one_line_and_nothing(
    tmp_path: Path, least: int, code: int
) -> None:
    size = Simulation(users=60, items=20, exposures=500, seed=0)
    source = simulate(size)
    splits = split_users(
        source.users["user_id"].to_numpy(), test_share=0.3, valid_share=0.3, seed=0
    )
    held = hold_out(source.exposures, splits, share=0.3, seed=0)
    write_table(source.users, tmp_path / "users.parquet", schemas.USERS)
    write_table(held, tmp_path / "exposures.parquet", schemas.EXPOSURES)
    write_table(splits, tmp_path / "splits.parquet", schemas.SPLITS)
    text = (Path(__file__).parents[1] / "params.yaml").read_text()
    asked = text.replace("min_exposures: 100", f"min_exposures: {least}")
    (tmp_path / "params.yaml").write_text(asked)
    out = tmp_path / "tasks.parquet"
    files = [f"--{n}={tmp_path}/{n}.parquet" for n in ("users", "exposures", "splits")]
    options = [f"--out={out}", f"--params={tmp_path}/params.yaml", f"--run-info={tmp_path}"]
    result = CliRunner().invoke(app, [*files, *options])
    assert result.exit_code == code, result.output
    assert out.exists() == (code == 0)
    if code:
        assert result.stderr.startswith("filter_tasks: no item is left as a task: 0 of 20 items")
        assert result.stderr.count("\n") == 1
    else:
        n = read_table(out, schemas.TASKS).num_rows
        assert result.stdout.startswith(f"kept {n} tasks of ")


def raw_table(file: Path, names: list[str]) -> pa.Table:
    text = file.read_bytes().replace(b"::", b"\t")
    return csv.read_csv(
        pa.BufferReader(text),
        csv.ReadOptions(column_names=names),
        csv.ParseOptions(delimiter="\t"),
    )


@pytest.mark.parametrize(("age", "n"), [("age", 1620), ("age7", 1625)])
def test_movielens_keeps_the_known_numbers_of_movies(movielens_dir: Path, age: str, n: int) -> None:
    users = raw_table(
        movielens_dir / "users.dat", ["user_id", "gender", "age", "occupation", "zip_code"]
    )
    ratings = raw_table(
        movielens_dir / "ratings.dat", ["user_id", "item_id", "rating", "timestamp"]
    )
    splits = pa.table({"user_id": users["user_id"], "split": ["train"] * users.num_rows})
    labels = {
        "age": Label(column="age", bins=[25, 35, 45, 56]),
        "age7": Label(column="age"),
        "occupation": Label(column="occupation"),
        "gender": Label(column="gender"),
    }
    counts = count_items(users, ratings, splits, labels)
    assert counts.exposures.sum() == 1_000_209
    assert np.count_nonzero(counts.exposures >= 100) == 2_019
    asked = params(labels=[age, "occupation", "gender"], min_exposures=100)
    tasks = select_tasks(counts, asked)
    assert tasks.num_rows == n
    for name in asked.labels:
        assert np.count_nonzero(tasks[f"kept_by_{name}"]) == 1_009
