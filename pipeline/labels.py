"""Labels of users: a column of the users table as class codes.

Labels choose the tasks and measure the scores; nothing learns from them unless params.yaml says so
(`features.user_fields`, `init: histogram`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import Bools, Ints
from pipeline.errors import PipelineError
from pipeline.pairs import called

if TYPE_CHECKING:
    from pipeline.params import Label


@dataclass(frozen=True)
class Classes:
    """The classes of one label, in sorted order; every one of them has at least one user."""

    codes: Ints  # (U,) class of each row of the users table, 0..K-1
    names: list[str]  # (K,) for people

    def __len__(self) -> int:
        return len(self.names)


def label_classes(users: pa.Table, name: str, label: "Label") -> Classes:
    """The class of every user under the label `name`.

    Without bins the classes are the column's distinct values; with bins, the intervals between
    their lower edges that hold a user.

    Raises:
        PipelineError: no such column, a user without a value, bins over something not a number, or
            a single class.
    """
    classes = _classes(users, name, label)
    if len(classes) < 2:
        raise PipelineError(
            f"params.yaml: labels.{name} gives all {len(users):,} users one class, "
            f"{classes.names[0]}, and so tells nobody apart; drop the label, or change its bins."
        )
    return classes


def require_classes(users: pa.Table, labels: Mapping[str, "Label"]) -> None:
    """Raise what `label_classes` raises for the first label that the users table cannot give."""
    for name, label in labels.items():
        label_classes(users, name, label)


def _classes(users: pa.Table, name: str, label: "Label") -> Classes:
    column = _complete_column(users, name, label)
    if label.bins is None:
        values, codes = np.unique(column.to_numpy(), return_inverse=True)
        return Classes(codes.astype(np.int64), [str(value) for value in values])
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise PipelineError(
            f"params.yaml: labels.{name}.bins cuts the column {label.column} of the users table, "
            f"which holds {column.type}; bins need numbers: leave them out."
        )
    whole = pa.types.is_integer(column.type)
    name_of = _whole_interval if whole else _interval
    interval = np.searchsorted(label.bins, column.to_numpy(), side="right")  # (U,)
    present, codes = np.unique(interval, return_inverse=True)
    return Classes(codes.astype(np.int64), [name_of(label.bins, i) for i in present])


def task_classes(tasks: pa.Table, name: str, classes: int) -> tuple[Ints, Ints, Bools]:
    """What the tasks table says of each task under the label `name`.

    Returns:
        Its nominal class, its anomalous class, and whether the label keeps it, (M,) each.

    Raises:
        PipelineError: the tasks table knows no such label, or a class that is none of the
            `classes` that users have.
    """
    columns = [f"{figure}_{name}" for figure in ("nominal", "anomalous", "kept_by")]
    if missing := [column for column in columns if column not in tasks.column_names]:
        raise PipelineError(
            f"the tasks table lacks {', '.join(missing)}: it was made with other labels. "
            "Make it again: `dvc repro filter_tasks`."
        )
    nominal, anomalous, kept = (tasks.column(column).to_numpy() for column in columns)
    for column, values in zip(columns, (nominal, anomalous), strict=False):
        if not ((values >= 0) & (values < classes)).all():
            raise PipelineError(
                f"the tasks table names a class in {column} that is none of the {classes:,} of the "
                "users table; the files do not belong together: `dvc repro filter_tasks`."
            )
    return nominal, anomalous, kept


def _complete_column(users: pa.Table, name: str, label: "Label") -> pa.ChunkedArray:
    if label.column not in users.column_names:
        raise PipelineError(
            f"params.yaml: labels.{name} needs the column {label.column} of the users table, "
            f"which has {', '.join(users.column_names)}; name one of these, or drop the label."
        )
    column = users.column(label.column)
    missing = np.flatnonzero(pc.is_null(column, nan_is_null=True).to_numpy())
    if len(missing):
        raise PipelineError(
            f"the users table: user {called(users, 'user', missing[0])} has no value for "
            f"{label.column}, the column of the label {name} ({len(missing):,} such users); every "
            "user needs one."
        )
    return column


def _interval(edges: Sequence[int], i: int) -> str:
    """Name of the interval from edge i-1 (included) to edge i (not included)."""
    if i == 0:
        return f"<{edges[0]}"
    if i == len(edges):
        return f"{edges[-1]}+"
    return f"{edges[i - 1]} to <{edges[i]}"


def _whole_interval(edges: Sequence[int], i: int) -> str:
    """The same of whole numbers."""
    if i in (0, len(edges)):
        return _interval(edges, i)
    low, high = edges[i - 1], edges[i] - 1
    return str(low) if low == high else f"{low}-{high}"
