"""Labels as class codes."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import PipelineError
from pipeline.labels import label_classes
from pipeline.params import Label, load_params


def users(**columns: list) -> pa.Table:
    n = len(next(iter(columns.values())))
    return pa.table({"user_id": pa.array(range(10, 10 + n), pa.int64()), **columns})


def test_without_bins_the_classes_are_the_sorted_distinct_values() -> None:
    classes = label_classes(users(job=[7, 2, 7, 20]), "job", Label(column="job"))
    assert classes.codes.tolist() == [1, 0, 1, 2]
    assert classes.codes.dtype == np.int64
    assert classes.names == ["2", "7", "20"]


def test_text_makes_classes_too() -> None:
    classes = label_classes(users(sex=["M", "F", "M"]), "sex", Label(column="sex"))
    assert classes.codes.tolist() == [1, 0, 1]
    assert classes.names == ["F", "M"]


def test_bins_are_lower_edges() -> None:
    label = Label(column="age", bins=[25, 35, 36, 56])
    classes = label_classes(users(age=[24, 25, 34, 35, 36, 55, 56, 99]), "age", label)
    assert classes.codes.tolist() == [0, 1, 1, 2, 3, 3, 4, 4]
    assert classes.names == ["<25", "25-34", "35", "36-55", "56+"]


def test_a_bin_without_a_user_is_no_class() -> None:
    label = Label(column="age", bins=[25, 35, 56])
    classes = label_classes(users(age=[60, 18]), "age", label)
    assert classes.codes.tolist() == [1, 0]
    assert classes.names == ["<25", "56+"]
    assert len(classes) == 2


def test_a_missing_column_is_named_with_what_there_is() -> None:
    with pytest.raises(
        PipelineError, match=r"labels\.age7 needs the column age .* has user_id, zip"
    ):
        label_classes(users(zip=["1", "2"]), "age7", Label(column="age"))


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("row", [0, 1])
def test_a_user_without_a_value_is_named(row: int, missing: float | None) -> None:
    ages = [1.0, 1.0, 1.0]
    ages[row] = missing
    with pytest.raises(PipelineError, match=rf"user 1{row} has no value for age"):
        label_classes(users(age=ages), "age", Label(column="age"))


def test_users_without_a_value_are_counted_and_named_as_their_owner_names_them() -> None:
    table = users(age=[None, 1, None]).append_column("user_key", pa.array(["ann", "bob", "cy"]))
    with pytest.raises(PipelineError, match=r"user ann has no value .* \(2 such users\)"):
        label_classes(table, "age", Label(column="age"))


@pytest.mark.parametrize("bins", [None, [100]])
def test_a_label_of_one_class_is_refused(bins: list[int] | None) -> None:
    """It would keep tasks by the order of their ids, and no task could be measured by it."""
    with pytest.raises(PipelineError, match=r"labels\.age gives all 2 users one class, (7|<100)"):
        label_classes(users(age=[7, 7]), "age", Label(column="age", bins=bins))


def test_bins_cut_decimals() -> None:
    spent = users(spent=[Decimal("1.50"), Decimal("2.00"), Decimal("9.99")])
    classes = label_classes(spent, "spent", Label(column="spent", bins=[2]))
    assert classes.codes.tolist() == [0, 1, 1]


def test_bins_of_fractions_are_named_by_their_edges() -> None:
    spent = users(spent=[79.99, 80.0, 12.5])
    classes = label_classes(spent, "spent", Label(column="spent", bins=[30, 80]))
    assert classes.names == ["<30", "30 to <80", "80+"]
    assert classes.codes.tolist() == [1, 2, 0]


def test_bins_over_text_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"labels\.sex\.bins .* holds string"):
        label_classes(users(sex=["M"]), "sex", Label(column="sex", bins=[1]))


def test_a_label_cannot_take_the_name_of_another_figure(tmp_path: Path) -> None:
    params = (Path(__file__).parents[1] / "params.yaml").read_text()
    file = tmp_path / "params.yaml"
    file.write_text(params.replace("  gender: {", "  exposure: {column: gender}\n  gender: {"))
    with pytest.raises(PipelineError, match=r"labels\.exposure.*cannot be called exposure"):
        load_params(file, "labels")
