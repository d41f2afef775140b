"""A table of exposures in pieces: the rows of the whole, in order, each once."""

from collections.abc import Callable
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

READERS = [read_own, pieces_of]  # what the engines begin with
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


def write_ids(path: Path, ids: list[float], kind: pa.DataType | None = None) -> None:
    """A Parquet file of these ids of users and items."""
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.array(ids, kind or pa.int64())
    pq.write_table(pa.table({"user_id": column, "item_id": column}), path)


def test_what_begins_with_a_dot_or_an_underscore_is_no_part_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "exposures.parquet"
    for user, name in enumerate(
        ["a.parquet", "b.parquet", ".c.parquet", "_d.parquet", "_temporary/e.parquet"]
    ):
        write_ids(folder / name, [user])
    (folder / "_SUCCESS").touch()
    whole = read_own(folder).table
    assert whole["user_id"].to_pylist() == [0, 1]
    assert pa.concat_tables([one.read().table for one in pieces_of(folder)]).equals(whole)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("year=2024/a.parquet", "a folder"),
        ("more/a.parquet", "a folder"),
        ("a.parq", "another ending"),
    ],
)
def test_a_folder_of_anything_but_parquet_files_is_refused(
    tmp_path: Path, read: Callable[[Path], object], name: str, found: str
) -> None:
    folder = tmp_path / "exposures.parquet"
    write_ids(folder / "b.parquet", [1])
    write_ids(folder / name, [2])
    place = folder / name.split("/")[0]
    with pytest.raises(PipelineError, match=rf"^{place}: expected only files .*, found {found}\."):
        read(folder)


@pytest.mark.parametrize("read", READERS)
def test_files_of_one_folder_have_the_same_columns(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    folder = tmp_path / "exposures.parquet"
    write_ids(folder / "a.parquet", [1])
    write_ids(folder / "b.parquet", [2], pa.float64())
    told = (
        rf"^{folder}/b\.parquet: expected the columns user_id int64, item_id int64, as in "
        r"a\.parquet, found user_id double, item_id double\."
    )
    with pytest.raises(PipelineError, match=told):
        read(folder)


def test_the_order_of_columns_and_how_text_is_stored_may_differ(tmp_path: Path) -> None:
    folder = tmp_path / "exposures.parquet"
    folder.mkdir()
    ids = pa.table({"user_id": ["a", "b"], "item_id": ["x", "x"]})
    stored = {"item_id": ids["item_id"].dictionary_encode(), "user_id": ids["user_id"]}
    pq.write_table(ids, folder / "a.parquet")
    pq.write_table(pa.table(stored), folder / "b.parquet")
    whole = own_pairs(read_own(folder), text_ids=True)
    assert whole["user_key"].to_pylist() == ["a", "b", "a", "b"]
    found = [own_pairs(one.read(), text_ids=True) for one in pieces_of(folder)]
    assert pa.concat_tables(found).equals(whole)


@pytest.mark.parametrize("read", READERS)
def test_a_file_of_a_folder_that_is_none_and_an_empty_folder_are_named(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    folder = tmp_path / "exposures.parquet"
    folder.mkdir()
    with pytest.raises(PipelineError, match=rf"^{folder}: expected at least one row, found none"):
        read(folder)
    write_ids(folder / "a.parquet", [1])
    (folder / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(PipelineError, match=rf"^{folder}/b\.parquet: is not readable as Parquet"):
        read(folder)


@pytest.mark.parametrize("read", READERS)
def test_a_folder_in_the_place_of_a_csv_is_named(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    folder = tmp_path / "exposures.csv"
    folder.mkdir()
    with pytest.raises(PipelineError, match=rf"^{folder}: is not readable as CSV .*a directory"):
        read(folder)


def test_a_link_is_read_by_its_own_ending(tmp_path: Path) -> None:
    """As DVC's cache links its files, which have none."""
    write_ids(tmp_path / "blob", [1, 2])
    link = tmp_path / "exposures.parquet"
    link.symlink_to(tmp_path / "blob")
    (piece,) = pieces_of(link)
    assert piece.read().table.equals(read_own(link).table)
