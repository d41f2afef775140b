"""Vectors of users that are there already: the table `features` among a user's own.

They stand in for DeepFM's, and are standardised as those are.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.arrays import Bools, Ints, Singles
from pipeline.datasets.own_ids import own_ids
from pipeline.datasets.own_table import OwnTable
from pipeline.datasets.table_files import find_tables, read_own
from pipeline.errors import PipelineError
from pipeline.features.scale import Scale
from pipeline.pairs import find, ids_of


def own_vectors(
    folder: Path, users: pa.Table, visible: Bools, *, text_ids: bool
) -> tuple[Singles, Scale]:
    """The vectors of features.csv or features.parquet, standardised over the visible users.

    The columns are user_id and either x, a list of numbers, or numeric columns of any name. Rows of
    others than `users` are left out.

    Args:
        folder: `data.tables_dir`.
        users: the users table.
        visible: (U,) over whom to standardise.
        text_ids: whether ids are text; else they are whole numbers.

    Returns:
        x (U, d), and the scale that was applied.

    Raises:
        PipelineError: no such table, a user without a row, or a value that is no finite number.
    """
    files = find_tables(folder)
    if "features" not in files:
        raise PipelineError(
            f"{folder}: expected features.csv or features.parquet, since features.model is table. "
            "Put it there, or set features.model to deepfm."
        )
    own = read_own(files["features"])
    rows = _rows_of_users(own, users, text_ids)
    raw = torch.from_numpy(_vectors(own)[rows])
    scale = Scale.of(raw[torch.from_numpy(visible)])
    return scale.apply(raw).numpy(), scale


def _rows_of_users(own: OwnTable, users: pa.Table, text_ids: bool) -> Ints:
    """The row (U,) of each user."""
    ids = own_ids(own, "user", text_ids=text_ids).column("user_id").to_numpy()
    own.require_distinct(ids, "user_id")
    wanted = ids_of(users, "user_id")
    order = np.argsort(ids)
    place = find(wanted, ids[order])
    missing = np.flatnonzero(place == len(ids))
    if len(missing):
        name = "user_key" if "user_key" in users.column_names else "user_id"
        raise PipelineError(
            f"{own.path}: expected a row for each of {len(wanted):,} users, found none for "
            f"{len(missing):,} of them, such as {users.column(name)[missing[0]]}. Add their rows."
        )
    rows: Ints = order[place]
    return rows


def _vectors(own: OwnTable) -> Singles:
    """The vectors (n, d) in the order of the rows."""
    names = [name for name in own.table.column_names if name != "user_id"]
    if names == ["x"] and _is_list(own.table.column("x").type):
        return _lists(own, own.table.column("x"))
    if not names:
        raise PipelineError(
            f"{own.path}: expected x or numeric columns beside user_id, found none. Add them."
        )
    columns = [_finite(own, name, own.table.column(name)) for name in names]
    return np.stack(columns, axis=1)


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _lists(own: OwnTable, column: pa.ChunkedArray) -> Singles:
    """A column of lists, all of the length of the first, as rows."""
    length = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    width = max(int(length[0]), 1)
    own.require(length == width, f"{width} numbers in x, as in the first row", column)
    return _finite(own, "x", pc.list_flatten(column), width).reshape(-1, width)


def _finite(own: OwnTable, name: str, values: pa.ChunkedArray, width: int = 1) -> Singles:
    """Numbers, `width` of them a row, none of them missing or infinite in single precision."""
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise own.wrong_type(name, "numbers", values.type)
    numbers: Singles = values.cast(pa.float32(), safe=False).to_numpy()
    bad = ~np.isfinite(numbers)
    if bad.any():
        first = int(bad.argmax())
        raise own.fault(first // width, f"a finite number in {name}", values[first].as_py())
    return numbers
