"""The columns of every Parquet artefact, checked on each read and each write.

`docs/data.md` is the dictionary for people; a test holds it equal to what stands here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError

VECTOR: Literal["vector"] = "vector"  # fixed_size_list<float>[d], d the same in every row
Type: TypeAlias = pa.DataType | Literal["vector"]
REBUILD = "Rebuild it with `dvc repro`."
LARGEST = 1e18  # of a number in a vector: its square is finite in single precision


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, whether a value may be missing, and what values there are."""

    type: Type
    nullable: bool = False
    values: tuple[str, ...] = ()  # empty: any


@dataclass(frozen=True)
class Schema:
    """What a table must look like.

    Attributes:
        name: what messages call the table.
        columns: the columns that must be there, in order.
        key: columns by which rows are sorted, strictly rising: sorted, so that equal inputs give
            equal bytes, and without duplicates.
        open: other columns may follow (a user's labels, a task's figures for each label).
        families: what those must be like whose names begin so.
    """

    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    open: bool = False
    families: Mapping[str, Column] = field(default_factory=dict)

    def check(self, table: pa.Table, where: object, before: int = 0) -> None:
        """Raise PipelineError unless `table` has rows, and these columns, types, values, order.

        `table` may be a part of that at `where`, which has so many rows before it.
        """
        names = table.column_names
        missing = [name for name in self.columns if name not in names]
        if missing:
            raise PipelineError(
                f"{where}: the {self.name} table lacks the column {', '.join(missing)}; "
                f"found {', '.join(names)}.",
                REBUILD,
            )
        extra = [name for name in names if name not in self.columns]
        if extra and not self.open:
            raise PipelineError(
                f"{where}: the {self.name} table has the unknown column {', '.join(extra)}; "
                f"expected only {', '.join(self.columns)}.",
                REBUILD,
            )
        if twice := [n for n, name in enumerate(names) if name in names[:n]]:
            raise PipelineError(
                f"{where}: the {self.name} table has the column {names[twice[0]]} twice.", REBUILD
            )
        if not table.num_rows:
            raise self.no_rows(where)
        for name, column in self._expected(table):
            self._check_column(table.column(name), name, column, where, before)
        self._check_key(table, where, before)

    def no_rows(self, where: object) -> PipelineError:
        """The error for a table without rows."""
        return PipelineError(f"{where}: the {self.name} table has no rows.", REBUILD)

    def _expected(self, table: pa.Table) -> Iterator[tuple[str, Column]]:
        yield from self.columns.items()
        for prefix, column in self.families.items():
            yield from ((name, column) for name in table.column_names if name.startswith(prefix))

    def _check_column(
        self, values: pa.ChunkedArray, name: str, column: Column, where: object, before: int
    ) -> None:
        place = f"{where}: column {name} of the {self.name} table"
        if column.type == VECTOR:
            kind = values.type
            if not (pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()):
                raise PipelineError(f"{place}: expected a fixed_size_list of float, found {kind}.")
        elif values.type != column.type:
            raise PipelineError(f"{place}: expected {column.type}, found {values.type}.")
        if not column.nullable and values.null_count:
            row = pc.index(pc.is_null(values), True).as_py()
            raise PipelineError(f"{place}: row {before + row} has no value; every row needs one.")
        if column.values:
            row = pc.index(pc.is_in(values, pa.array(column.values)), False).as_py()
            if row >= 0:
                raise PipelineError(
                    f"{place}: row {before + row}: expected one of {', '.join(column.values)}, "
                    f"found {values[row].as_py()}."
                )
        if column.type == VECTOR:
            flat = pc.list_flatten(values)
            good = pc.less(pc.abs(flat), LARGEST)  # neither missing, NaN nor infinite
        elif pa.types.is_floating(values.type):
            flat = values.drop_null()
            good = pc.is_finite(flat)
        else:
            return
        bad = pc.index(pc.fill_null(good, False), False).as_py()
        if bad >= 0:
            limit = f" and below {LARGEST:g} in size" if column.type == VECTOR else ""
            raise PipelineError(
                f"{place}: found {flat[bad].as_py()}; every number must be finite{limit}."
            )

    def _check_key(self, table: pa.Table, where: object, before: int) -> None:
        if table.num_rows < 2 or not self.key:
            return
        rising = np.zeros(table.num_rows - 1, bool)
        tied = np.ones(table.num_rows - 1, bool)
        for name in self.key:
            values = table.column(name).to_numpy()
            rising |= tied & (values[1:] > values[:-1])
            tied &= values[1:] == values[:-1]
        if not rising.all():
            row = int(np.argmin(rising)) + 1
            found = "a duplicate" if tied[row - 1] else "out of order"
            raise PipelineError(
                f"{where}: row {before + row} of the {self.name} table is {found}; "
                f"rows must be distinct and sorted by {', '.join(self.key)}."
            )


USERS = Schema("users", {"user_id": Column(pa.int64())}, key=("user_id",), open=True)
ITEMS = Schema(
    "items",
    {
        "item_id": Column(pa.int64()),
        "title": Column(pa.string()),
        "genres": Column(pa.list_(pa.string())),
    },
    key=("item_id",),
    open=True,  # item_key, where a source's ids are text
)
EXPOSURES = Schema(
    "exposures",
    {
        "user_id": Column(pa.int64()),
        "item_id": Column(pa.int64()),
        "rating": Column(pa.int8(), nullable=True),
        "timestamp": Column(pa.int64(), nullable=True),
        "held_out": Column(pa.bool_()),
    },
    key=("user_id", "item_id"),
)
SPLITS = Schema(
    "splits",
    {
        "user_id": Column(pa.int64()),
        "split": Column(pa.string(), values=("train", "valid", "test")),
    },
    key=("user_id",),
)
FEATURES = Schema(
    "features", {"user_id": Column(pa.int64()), "x": Column(VECTOR)}, key=("user_id",)
)
ITEM_VECTORS = Schema(
    "item vectors", {"item_id": Column(pa.int64()), "x": Column(VECTOR)}, key=("item_id",)
)
TASKS = Schema(
    "tasks",
    {
        "task_id": Column(pa.int32()),
        "item_id": Column(pa.int64()),
        "exposures": Column(pa.int64()),
        "train_exposures": Column(pa.int64()),
    },
    key=("task_id",),
    open=True,
    families={  # followed by the name of a label
        "entropy_": Column(pa.float64()),
        "kept_by_": Column(pa.bool_()),
        "nominal_": Column(pa.int32()),
        "anomalous_": Column(pa.int32()),
    },
)
SEED_TASKS = Schema("seed tasks", {"task_id": Column(pa.int32())}, key=("task_id",))
TASK_EMBEDDINGS = Schema(
    "task embeddings",
    {"task_id": Column(pa.int32()), "item_id": Column(pa.int64()), "e": Column(VECTOR)},
    key=("task_id",),
)
SCORES = Schema(
    "scores",
    {
        "task_id": Column(pa.int32()),
        "user_id": Column(pa.int64()),
        "score": Column(pa.float32()),
    },
    key=("task_id", "user_id"),
)
