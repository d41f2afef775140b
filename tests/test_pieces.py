"""A table of exposures in pieces: the rows of the whole, in order, each once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets import pieces
from pipeline.datasets.pieces import pieces_of
from pipeline.datasets.table_files import read_own
from pipeline.datasets.tables import own_pairs
from pipeline.errors import PipelineError

LINES = st.lists(st.one_of(st.just(""), st.integers(0, 10**9)), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


@given(LINES, st.integers(1, 60), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_the_pieces_of_a_csv_are_its_rows(
    folder: Path, lines: list[object], size: int, end: str, ended: bool
) -> None:
    """Whatever the size of a piece, with lines that are empty and with an end or without."""
    rows = [f'{one},"é, {one}"' if one != "" else "" for one in [*lines, 7]]
    path = folder / "exposures.csv"
    path.write_bytes((end.join(["", "user_id,item_id", *rows]) + end * ended).encode())
    whole = own_pairs(read_own(path), text_ids=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", size)
        found = pieces_of(path)
    tables = [own_pairs(one.read(), text_ids=True) for one in found]
    assert pa.concat_tables(tables).equals(whole)
    before = 0
    for one, table in zip(found, tables, strict=True):
        if table.num_rows:
            assert one.before(found) == before
        before += table.num_rows


def test_the_pieces_of_parquet_are_the_row_groups_of_its_files_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "exposures.parquet"
    folder.mkdir()
    for name, start in (("b", 50), ("a", 0), ("c", 80)):
        ids = pa.array(range(start, {0: 50, 50: 80, 80: 80}[start]), pa.int64())
        pq.write_table(
            pa.table({"user_id": ids, "item_id": ids}),
            folder / f"{name}.parquet",
            row_group_size=20,
        )
    found = pieces_of(folder)
    tables = [one.read().table for one in found]
    assert [table.num_rows for table in tables] == [20, 20, 10, 20, 10]
    assert pa.concat_tables(tables).equals(read_own(folder).table)
    assert [one.before(found) for one in found] == [0, 20, 40, 50, 70]


def test_a_table_without_rows_or_that_is_none_is_refused_as_when_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "exposures.parquet"
    pq.write_table(pa.table({"user_id": pa.array([], pa.int64())}), path)
    with pytest.raises(PipelineError, match="expected at least one row, found none"):
        pieces_of(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(PipelineError, match="is not readable as Parquet"):
        pieces_of(path)
