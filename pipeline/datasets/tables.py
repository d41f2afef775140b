"""A user's own exposures, and what else they know of users and items; see docs/own-data.md."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.faults import with_article
from pipeline.datasets.own_ids import Who, own_ids
from pipeline.datasets.own_table import PADDED, OwnTable
from pipeline.datasets.source import Source
from pipeline.datasets.table_files import TEXT_COLUMNS, TEXTS, find_tables, read_own
from pipeline.errors import PipelineError
from pipeline.pairs import by_user_and_item

NO_GENRES = pa.scalar([], pa.list_(pa.string()))


def read_tables(folder: Path, *, text_ids: bool) -> Source:
    """Read exposures, and users and items where there are such tables, from a folder.

    Args:
        folder: holds exposures.csv or exposures.parquet, and may hold users, items and features.
        text_ids: whether ids are text; else they are whole numbers.

    Raises:
        PipelineError: a file is missing or faulty; names the file and the row.
    """
    files = find_exposures(folder)
    read = {name: read_own(path) for name, path in files.items() if name != "features"}
    exposures = read["exposures"]
    own = read_exposures(exposures, text_ids=text_ids)
    users = own_users(read["users"], text_ids) if "users" in read else own.users
    items = own_items(read["items"], text_ids) if "items" in read else own.items
    if "users" in read:
        require_known(exposures, "user", users, text_ids)
    if "items" in read:
        require_known(exposures, "item", items, text_ids)
    return Source(users, items, own.exposures, own.repeats)


def find_exposures(folder: Path) -> dict[str, Path]:
    """The tables of a folder (`find_tables`), exposures among them.

    Raises:
        PipelineError: there are no exposures.
    """
    files = find_tables(folder)
    if "exposures" not in files:
        raise PipelineError(
            f"{folder}: expected exposures.csv or exposures.parquet, found "
            f"{', '.join(path.name for path in files.values()) or 'no table'}. Put it there."
        )
    return files


def read_exposures(exposures: OwnTable, *, text_ids: bool) -> Source:
    """The distinct pairs of a table of exposures; users and items are those it names.

    Raises:
        PipelineError: a column is missing or faulty; names the row.
    """
    met = own_pairs(exposures, text_ids=text_ids)
    require_moments(exposures, met)
    pairs = first_of_each(met.select(["user_id", "item_id", "rating", "timestamp"]))
    users, items = (
        met.select([name for name in met.column_names if name in (f"{who}_id", f"{who}_key")])
        for who in ("user", "item")
    )
    repeats = met.num_rows - pairs.num_rows
    return Source(distinct_ids(users), titled(distinct_ids(items)), pairs, repeats)


def own_pairs(exposures: OwnTable, *, text_ids: bool) -> pa.Table:
    """A row for each of a table of exposures: ids, keys where ids are text, rating, timestamp.

    Raises:
        PipelineError: a column is missing or faulty; names the row.
    """
    user, item = (own_ids(exposures, who, text_ids=text_ids) for who in ("user", "item"))
    columns = {name: ids.column(name) for ids in (user, item) for name in ids.column_names}
    return pa.table({**columns, "rating": _ratings(exposures), "timestamp": _timestamps(exposures)})


def require_moments(exposures: OwnTable, pairs: pa.Table) -> None:
    """Raise PipelineError if all moments of the `own_pairs` of a table are dates as numbers."""
    if "timestamp" in exposures.table.column_names:
        exposures.require_moments("timestamp", pairs.column("timestamp"))


def own_users(own: OwnTable, text_ids: bool) -> pa.Table:
    """The users table: ids, and every other column, which may serve as a label.

    Empty text is a missing value, as an empty field of a CSV is in a column of numbers. A column of
    a CSV where a number begins with a zero holds codes, 01234 and 1234, and is text.
    """
    own = _with_codes(own)
    users = _sortable(own, "user", text_ids)
    for name in own.table.column_names:
        column = own.table.column(name)
        if name == "user_key":
            raise PipelineError(f"{own.path}: the column user_key is ours to fill; rename it.")
        if pa.types.is_nested(column.type):
            raise own.wrong_type(name, "one value a row", column.type)
        if name != "user_id":
            users = users.append_column(name, _without_empty_text(column))
    return users.sort_by("user_id")


def _with_codes(own: OwnTable) -> OwnTable:
    """The table of a CSV, read again as text where a number would lose zeros before it."""
    table = own.table
    numbers = (pa.types.is_integer, pa.types.is_floating)
    guessed = [field.name for field in table.schema if any(of(field.type) for of in numbers)]
    if own.path.suffix not in TEXTS or not guessed:
        return own
    texts = read_own(own.path, [*TEXT_COLUMNS, *guessed]).table
    for name in guessed:
        if pc.any(pc.match_substring_regex(texts.column(name), PADDED)).as_py():
            at = table.column_names.index(name)
            table = table.set_column(at, name, texts.column(name))
    return replace(own, table=table)


def _without_empty_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        return column
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def own_items(own: OwnTable, text_ids: bool) -> pa.Table:
    """The items table: ids, titles, genres; columns of other names are left out."""
    items = _sortable(own, "item", text_ids)
    title = own.text("title") if "title" in own.table.column_names else None
    genres = _genres(own) if "genres" in own.table.column_names else None
    return titled(items, title, genres).sort_by("item_id")


def titled(
    items: pa.Table, title: pa.ChunkedArray | None = None, genres: pa.ChunkedArray | None = None
) -> pa.Table:
    """Items with a title, which is their id if they have none, and genres, which may be none."""
    if title is None:
        title = items.column(items.num_columns - 1).cast(pa.string())  # item_key if there is one
    if genres is None:
        ends = np.zeros(items.num_rows + 1, np.int32)
        genres = pa.ListArray.from_arrays(ends, pa.array([], pa.string()))
    return items.add_column(1, "title", title).add_column(2, "genres", genres)


def _genres(own: OwnTable) -> pa.ChunkedArray:
    """The column genres as lists of text; in a CSV they are separated by |."""
    column = own.table.column("genres")
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), NO_GENRES, pc.split_pattern(column, "|"))
    lists = [[] if value is None else value for value in column.to_pylist()]
    for row, value in enumerate(lists):
        if not isinstance(value, list) or not all(isinstance(g, str) and g for g in value):
            raise own.fault(row, "genres as text, in a CSV separated by single |", repr(value))
    return pa.chunked_array([pa.array(lists, pa.list_(pa.string()))])


def _sortable(own: OwnTable, who: Who, text_ids: bool) -> pa.Table:
    """The ids of a table that has each of them once."""
    ids = own_ids(own, who, text_ids=text_ids)
    own.require_distinct(ids.column(0).to_numpy(), f"{who}_id")
    return ids


def distinct_ids(ids: pa.Table) -> pa.Table:
    """Each id once, rising, for want of a table of them."""
    numbers = ids.column(0).to_numpy()
    if ids.num_columns == 1:  # no texts go with them
        return pa.table({ids.column_names[0]: np.unique(numbers)})
    first = np.zeros(len(numbers), bool)
    first[np.unique(numbers, return_index=True)[1]] = True
    found = ids.filter(pa.array(first))  # chunk by chunk: all texts joined may pass 2 GiB
    return found.take(np.argsort(found.column(0).to_numpy()))


def require_known(exposures: OwnTable, who: Who, known: pa.Table, text_ids: bool) -> None:
    """Raise PipelineError if exposures are of users, or to items, not in the table `known`."""
    ids = own_ids(exposures, who, text_ids=text_ids).column(0)
    listed = pc.is_in(ids, known.column(f"{who}_id").combine_chunks()).to_numpy()
    if not listed.all():
        strange = np.unique(ids.to_numpy()[~listed])
        row, rows = int(np.argmin(listed)), int((~listed).sum())
        raise unlisted(exposures, who, row, rows=rows, ids=len(strange))


def unlisted(exposures: OwnTable, who: Who, row: int, *, rows: int, ids: int) -> PipelineError:
    """The error for exposures of users, or to items, that are not in the table of these.

    Args:
        exposures: the table of exposures, or a piece of it.
        who: which of the two.
        row: the first such row, from 0.
        rows: how many such rows the whole table has.
        ids: how many users or items these are of.
    """
    name = f"{who}_id"
    return exposures.fault(
        row,
        f"{with_article(name)} of the {who}s table",
        repr(exposures.table.column(name)[row].as_py()),
        f"Such rows: {rows:,}, such {who}s: {ids:,}. "
        f"Add such {who}s to the {who}s table, or remove the rows.",
    )


def first_of_each(pairs: pa.Table) -> pa.Table:
    """The distinct pairs, sorted, each with its earliest moment and the rating of that row."""
    user, item = (pairs.column(name).to_numpy() for name in ("user_id", "item_id"))
    moment = pc.fill_null(pairs.column("timestamp"), np.iinfo(np.int64).max).to_numpy()
    order = by_user_and_item(user, item)
    again = np.zeros(len(order), bool)
    again[1:] = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    repeated = again.copy()
    repeated[:-1] |= again[1:]
    rows = order[repeated]  # the few whose moments matter; in their own places they stay sorted
    order[repeated] = rows[np.lexsort((rows, moment[rows], item[rows], user[rows]))]
    return pairs.take(order[~again])


def _ratings(exposures: OwnTable) -> pa.ChunkedArray:
    if "rating" not in exposures.table.column_names:
        return pa.nulls(exposures.table.num_rows, pa.int8())
    column = exposures.numbers("rating", "Leave the column out: nothing learns from ratings yet.")
    fits = pc.fill_null(pc.and_(pc.greater_equal(column, -128), pc.less_equal(column, 127)), True)
    exposures.require(fits.to_numpy(), "a rating from -128 to 127", column)
    return column.cast(pa.int8())


def _timestamps(exposures: OwnTable) -> pa.ChunkedArray:
    if "timestamp" not in exposures.table.column_names:
        return pa.nulls(exposures.table.num_rows, pa.int64())
    return exposures.seconds("timestamp")
