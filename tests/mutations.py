"""Ways to spoil a file: bytes of any kind, and tables that are well-formed but wrong."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st

TOKENS = [
    *(b"", b"\n", b"\r\n", b"\r", b"\t", b"\0", b" ", b",", b"::", b":", b"|", b'"', b"'", b"\\"),
    *(b"0", b"-1", b"1.5", b"1e400", b"9" * 19, b"9" * 40, b"nan", b"NaN", b"inf", b"-inf"),
    *(b"null", b"None", b"NA", b"true", b"[]", b"{}", b"[", b"{", b"- ", b"? ", b"&a ", b"*a"),
    *(b"!!python/object:os.system", b"<<: *a", b"\xff", b"\xc3\xa9", b"\xef\xbb\xbf", b"\xfe\xff"),
]


@st.composite
def spoiled(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with one to three edits: a bit, a cut, a token, a span doubled, moved or zeroed."""
    for _ in range(draw(st.integers(1, 3))):
        size = len(content)
        a, b = sorted((draw(st.integers(0, size)), draw(st.integers(0, size))))
        span = content[a:b][:64]
        how = draw(st.sampled_from(["bit", "cut", "token", "drop", "double", "move", "zero"]))
        if how == "bit" and size:
            place = min(a, size - 1)
            flipped = bytes([content[place] ^ (1 << draw(st.integers(0, 7)))])
            content = content[:place] + flipped + content[place + 1 :]
        elif how == "cut":
            content = content[:b]
        elif how == "token":
            width = draw(st.integers(0, 8))
            content = content[:a] + draw(st.sampled_from(TOKENS)) + content[a + width :]
        elif how == "drop":
            content = content[:a] + content[a + len(span) :]
        elif how == "double":
            content = content[:a] + span + content[a:]
        elif how == "move":
            rest = content[:a] + content[a + len(span) :]
            content = rest + span
        elif how == "zero":
            content = content[:a] + bytes(len(span)) + content[a + len(span) :]
    return content


@st.composite
def wrong_table(draw: st.DrawFn, table: pa.Table, others: list[pa.Table]) -> pa.Table:
    """`table` with one or two faults; or another table in its place."""
    for _ in range(draw(st.integers(1, 2))):
        fault = draw(st.sampled_from(FAULTS))
        table = fault(draw, table, others)
    return table


Fault = Callable[[st.DrawFn, pa.Table, list[pa.Table]], pa.Table]
TYPES = [
    *(pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.bool_()),
    *(pa.string(), pa.large_string(), pa.timestamp("s"), pa.decimal128(10, 2), pa.null()),
    *(pa.list_(pa.string()), pa.list_(pa.float32()), pa.list_(pa.float32(), 3)),
    pa.dictionary(pa.int32(), pa.string()),
]
NUMBERS = [0, 1, -1, 2, 7, 127, 2**31 - 1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)]
SINGLES = [0.0, -0.0, 1e-45, 3.4e38, -3.4e38, float("nan"), float("inf"), float("-inf")]


def _column(draw: st.DrawFn, table: pa.Table) -> int | None:
    return draw(st.integers(0, table.num_columns - 1)) if table.num_columns else None


def _other_type(draw: st.DrawFn, table: pa.Table, others: list[pa.Table]) -> pa.Table:
    if (i := _column(draw, table)) is None:
        return table
    kind = draw(st.sampled_from(TYPES))
    try:
        values = table.column(i).cast(kind, safe=False)
    except pa.ArrowException:
        values = pa.nulls(table.num_rows, kind)
    return table.set_column(i, table.column_names[i], values)


def _other_value(draw: st.DrawFn, table: pa.Table, others: list[pa.Table]) -> pa.Table:
    """One value of a column becomes null, or an extreme one of its type."""
    if (i := _column(draw, table)) is None or not table.num_rows:
        return table
    column = table.column(i)
    row = draw(st.integers(0, table.num_rows - 1))
    values = column.to_pylist()
    if pa.types.is_integer(column.type):
        choices: list[object] = [None, *NUMBERS]
    elif pa.types.is_floating(column.type):
        choices = [None, *SINGLES]
    elif pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        choices = [None, *([single] * width for single in SINGLES), [None] * width]
    elif pa.types.is_list(column.type):
        choices = [None, [], [None], [""], ["a"] * 50]
    elif pa.types.is_string(column.type):
        choices = [None, "", "train", "test", "valid", "Test", "\0", "é" * 50]
    else:
        choices = [None, True, False]
    values[row] = draw(st.sampled_from(choices))
    try:
        changed = pa.chunked_array([pa.array(values, column.type)])
    except (pa.ArrowException, OverflowError):
        return table
    return table.set_column(i, table.column_names[i], changed)


def _rows(draw: st.DrawFn, table: pa.Table, others: list[pa.Table]) -> pa.Table:
    """Rows lost, doubled or in another order."""
    n = table.num_rows
    if not n:
        return table
    how = draw(st.sampled_from(["none", "one", "head", "tail", "doubled", "reversed", "shuffled"]))
    row = draw(st.integers(0, n - 1))
    order = np.arange(n)
    rows = {
        "none": order[:0],
        "one": order[row : row + 1],
        "head": order[:row],
        "tail": order[row:],
        "doubled": np.insert(order, row, row),
        "reversed": order[::-1],
        "shuffled": np.random.default_rng(row).permutation(n),
    }[how]
    return table.take(pa.array(rows, pa.int64()))


def _shifted(draw: st.DrawFn, table: pa.Table, others: list[pa.Table]) -> pa.Table:
    """Every number of a column moved: ids that nobody knows, in their order."""
    if (i := _column(draw, table)) is None or not pa.types.is_integer(table.column(i).type):
        return table
    by = draw(st.sampled_from([1, -1, 1000, -(10**6)]))
    column = table.column(i)
    try:
        moved = pc.add_checked(column, pa.scalar(by, column.type))
    except (pa.ArrowException, OverflowError):
        return table
    return table.set_column(i, table.column_names[i], moved)


def _columns(draw: st.DrawFn, table: pa.Table, others: list[pa.Table]) -> pa.Table:
    """A column lost, renamed, doubled or swapped with another."""
    if (i := _column(draw, table)) is None:
        return table
    names = table.column_names
    how = draw(st.sampled_from(["lost", "renamed", "doubled", "swapped", "added"]))
    if how == "lost":
        return table.remove_column(i)
    if how == "renamed":
        return table.rename_columns(
            [*names[:i], draw(st.sampled_from(["", "x", "user_id"])), *names[i + 1 :]]
        )
    if how == "doubled":
        return table.append_column(names[i], table.column(i))
    if how == "added":
        return table.append_column("extra", pa.nulls(table.num_rows, pa.int64()))
    order = [*range(table.num_columns)][::-1]
    return table.select(order).rename_columns(names)


def _another(draw: st.DrawFn, table: pa.Table, others: list[pa.Table]) -> pa.Table:
    return draw(st.sampled_from(others))


FAULTS: list[Fault] = [_other_type, _other_value, _other_value, _rows, _shifted, _columns, _another]
