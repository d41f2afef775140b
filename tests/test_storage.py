"""Artefacts on disk: replaced as a whole or not at all, equal bytes, every fault in one line."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import files, storage
from pipeline.errors import PipelineError
from pipeline.files import replacing, scratch_folder, sha256, write_bytes, write_text
from pipeline.schemas import EXPOSURES, FEATURES, SCORES, SPLITS, TASKS, USERS, Schema
from pipeline.storage import RowGroups, matrix, read_table, vectors, write_table, write_tables
from pipeline.text_files import (
    Field,
    read_csv,
    read_history,
    read_json,
    read_links,
    write_csv,
    write_json,
)


def scores() -> pa.Table:
    return pa.table(
        {
            "task_id": pa.array([0, 0, 1], pa.int32()),
            "user_id": pa.array([7, 9, 7], pa.int64()),
            "score": pa.array([0.5, -1.5, 0.25], pa.float32()),
        }
    )


def features() -> pa.Table:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    return pa.table({"user_id": pa.array([1, 2, 3], pa.int64()), "x": vectors(x)})


def exposures() -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array([1, 1, 2], pa.int64()),
            "item_id": pa.array([3, 4, 3], pa.int64()),
            "rating": pa.array([5, None, 1], pa.int8()),
            "timestamp": pa.nulls(3, pa.int64()),
            "held_out": [False, True, False],
        }
    )


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("make", "schema"), [(scores, SCORES), (features, FEATURES), (exposures, EXPOSURES)]
)
def test_a_table_comes_back_as_it_was_written(
    tmp_path: Path, make: Callable[[], pa.Table], schema: Schema
) -> None:
    path = tmp_path / "new" / "folder" / "table.parquet"
    write_table(make(), path, schema)
    assert read_table(path, schema).equals(make())


def test_vectors_and_matrix_are_inverses() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    chunked = pa.chunked_array([vectors(x[:2]), vectors(x[2:])])
    back = matrix(chunked)
    assert np.array_equal(back, x)
    back[:] = 0  # a copy that may be written to


def test_double_numbers_become_single_ones() -> None:
    column = vectors(np.array([[0.5, 1.5]], np.float64))
    assert column.type == pa.list_(pa.float32(), 2)


def test_vectors_are_split_into_their_bytes_and_the_rest_has_dictionaries(tmp_path: Path) -> None:
    """Together with zstd this makes small files; and without it equal tables may differ."""
    write_table(features(), tmp_path / "features.parquet", FEATURES)
    group = pq.ParquetFile(tmp_path / "features.parquet").metadata.row_group(0)
    ids, x = group.column(0), group.column(1)
    assert (ids.compression, x.compression) == ("ZSTD", "ZSTD")
    assert "RLE_DICTIONARY" in ids.encodings
    assert "BYTE_STREAM_SPLIT" in x.encodings
    assert not any("DICTIONARY" in encoding for encoding in x.encodings)


def test_an_altered_number_is_found(tmp_path: Path) -> None:
    """Each byte of the numbers in turn; a few of them zstd itself would notice, most it would not.

    Random numbers, for those are hardly compressed.
    """
    path = tmp_path / "features.parquet"
    x = np.random.default_rng(0).standard_normal((60, 2), np.float32)
    table = pa.table({"user_id": pa.array(range(60), pa.int64()), "x": vectors(x)})
    write_table(table, path, FEATURES)
    page = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content, end = path.read_bytes(), page.data_page_offset + page.total_compressed_size
    unnoticed = 0
    for at in range(end - 150, end):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with suppress(OSError):
            unnoticed += not pq.read_table(path).equals(table)
        with pytest.raises(PipelineError, match="is not a readable Parquet file"):
            read_table(path, FEATURES)
    assert unnoticed > 20


def test_text_that_is_no_utf_8_is_found(tmp_path: Path) -> None:
    binary = pa.array([b"train", b"\xff"], pa.binary())
    text = pa.StringArray.from_buffers(2, *binary.buffers()[1:])
    path = tmp_path / "splits.parquet"
    pq.write_table(pa.table({"user_id": pa.array([1, 2], pa.int64()), "split": text}), path)
    with pytest.raises(
        PipelineError, match=r"not a readable .*UTF.*\. Delete it and run `dvc repro"
    ):
        read_table(path, SPLITS)


@pytest.mark.parametrize("store_schema", [True, False])  # Arrow's own, beside that of Parquet
def test_a_column_whose_name_is_no_utf_8_is_found(tmp_path: Path, store_schema: bool) -> None:
    path = tmp_path / "splits.parquet"
    table = pa.table({"user_id": pa.array([1], pa.int64()), "splut": ["train"]})
    pq.write_table(table, path, store_schema=store_schema)
    path.write_bytes(path.read_bytes().replace(b"splut", b"spl\xfft"))
    with pytest.raises(PipelineError, match=r"\(a column's name is not UTF-8: .*0xff"):
        read_table(path, SPLITS)


def test_equal_tables_give_equal_bytes_whatever_their_chunks_and_metadata(tmp_path: Path) -> None:
    whole = scores()
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    named = whole.replace_schema_metadata({"pandas": "{}"})
    written = []
    for n, table in enumerate((whole, pieces, named)):
        write_table(table, tmp_path / f"{n}.parquet", SCORES)
        written.append((tmp_path / f"{n}.parquet").read_bytes())
    assert written[0] == written[1] == written[2]
    assert sha256(tmp_path / "0.parquet") == sha256(tmp_path / "2.parquet")


FAULTS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "missing column": (
        lambda t: t.drop_columns(["score"]),
        "the scores table lacks the column score; found task_id, user_id",
    ),
    "unknown column": (
        lambda t: t.append_column("extra", pa.array([1, 2, 3])),
        "the scores table has the unknown column extra; expected only task_id, user_id, score",
    ),
    "wrong type": (
        lambda t: with_column(t, "score", pa.array([0.5, 1.5, 2.5], pa.float64())),
        "column score of the scores table: expected float, found double",
    ),
    "null": (
        lambda t: with_column(t, "user_id", pa.array([7, None, 7], pa.int64())),
        "column user_id of the scores table: row 1 has no value",
    ),
    "NaN": (
        lambda t: with_column(t, "score", pa.array([0.5, float("nan"), 1], pa.float32())),
        "column score of the scores table: found nan; every number must be finite",
    ),
    "infinity": (
        lambda t: with_column(t, "score", pa.array([0.5, 1, float("-inf")], pa.float32())),
        "column score of the scores table: found -inf",
    ),
    "duplicate key": (
        lambda t: t.take([0, 0, 2]),
        "row 1 of the scores table is a duplicate; rows must be distinct and sorted by task_id",
    ),
    "unsorted": (
        lambda t: t.take([0, 2, 1]),
        "row 2 of the scores table is out of order; rows must be distinct and sorted by task_id",
    ),
    "unsorted within a task": (
        lambda t: t.take([1, 0, 2]),
        "row 1 of the scores table is out of order",
    ),
    "no rows": (lambda t: t.slice(0, 0), "the scores table has no rows"),
}


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_tables_one_after_the_other_are_written_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """A row group at a time: the tables come when their turn comes, not before."""
    monkeypatch.setattr(storage, "ROW_GROUP", rows)
    whole, given = scores(), []

    def parts() -> Iterator[pa.Table]:
        for n in range(whole.num_rows):
            given.append(n)
            yield whole.slice(n, 1)

    path = tmp_path / "scores.parquet"
    write_tables(parts(), path, SCORES)
    assert given == [0, 1, 2]
    assert read_table(path, SCORES).equals(whole)
    groups = pq.ParquetFile(path).metadata.num_row_groups
    assert groups == -(-3 // rows)


def test_tables_out_of_order_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ROW_GROUP", 1)
    whole = scores()
    with pytest.raises(PipelineError, match="row 1 of the scores table is out of order"):
        write_tables([whole.slice(2, 1), whole.slice(0, 2)], tmp_path / "s.parquet", SCORES)
    with pytest.raises(PipelineError, match="row 3 of the scores table is a duplicate"):
        write_tables([whole, whole.slice(2, 1)], tmp_path / "s.parquet", SCORES)
    with pytest.raises(PipelineError, match=r"s\.parquet: the scores table has no rows"):
        write_tables([], tmp_path / "s.parquet", SCORES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_table_is_refused_on_write_and_on_read(tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    path = tmp_path / "scores.parquet"
    write_table(scores(), path, SCORES)
    before = path.read_bytes()
    with pytest.raises(PipelineError) as on_write:
        write_table(spoil(scores()), path, SCORES)
    assert path.read_bytes() == before
    pq.write_table(spoil(scores()), path)
    with pytest.raises(PipelineError) as on_read:
        read_table(path, SCORES)
    assert str(on_write.value) == str(on_read.value)
    assert str(on_read.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([[1.0], [2.0], [3.0]], pa.list_(pa.float32())), "expected a fixed_size_list"),
        (pa.array([[1.0], [2.0], [3.0]], pa.list_(pa.float64(), 1)), "expected a fixed_size_list"),
        (pa.array([[1.0], None, [3.0]], pa.list_(pa.float32(), 1)), "row 1 has no value"),
        (vectors(np.array([[0, 1], [2, np.nan], [0, 1]])), "found nan"),
        (vectors(np.array([[0, 1], [2, -np.inf], [0, 1]])), "found -inf"),
        (vectors(np.array([[0, 1], [2, 2e18], [0, 1]])), r"finite and below 1e\+18 in size"),
        (pa.array([[1.0], [None], [3.0]], pa.list_(pa.float32(), 1)), "found None"),
    ],
)
def test_a_faulty_vector_is_refused(values: pa.Array, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        FEATURES.check(with_column(features(), "x", values), "here")


def test_a_column_that_is_there_twice_is_refused_by_row_groups_too(tmp_path: Path) -> None:
    twice = exposures().append_column("user_id", exposures()["user_id"])
    pq.write_table(twice, tmp_path / "e.parquet")
    with pytest.raises(PipelineError, match="the exposures table has the column user_id twice"):
        [*RowGroups(tmp_path / "e.parquet", EXPOSURES)]


def test_a_nullable_column_may_be_empty_and_an_open_table_may_have_more(tmp_path: Path) -> None:
    EXPOSURES.check(exposures(), "here")
    labelled = pa.table({"user_id": pa.array([1, 2], pa.int64()), "gender": ["F", None]})
    write_table(labelled, tmp_path / "users.parquet", USERS)
    assert read_table(tmp_path / "users.parquet", USERS).equals(labelled)


def test_a_split_of_another_name_is_refused() -> None:
    splits = pa.table({"user_id": pa.array([1, 2], pa.int64()), "split": ["train", "Test"]})
    with pytest.raises(PipelineError, match="row 1: expected one of train, valid, test, found Tes"):
        SPLITS.check(splits, "here")


@pytest.mark.parametrize("figure", ["entropy", "kept_by", "nominal", "anomalous"])
def test_the_figures_of_a_label_have_their_types_and_no_gaps(figure: str) -> None:
    columns = {"task_id": pa.int32(), "item_id": pa.int64()}
    columns |= {"exposures": pa.int64(), "train_exposures": pa.int64()}
    table = pa.table({name: pa.array([1], kind) for name, kind in columns.items()})
    TASKS.check(table.append_column("else", pa.array(["anything"])), "here")
    good = TASKS.families[f"{figure}_"].type
    TASKS.check(table.append_column(f"{figure}_age", pa.array([1]).cast(good)), "here")
    for kind, message in ((pa.string(), "expected .*, found string"), (good, "row 0 has no value")):
        place = f"here: column {figure}_age of the tasks table: "
        with pytest.raises(PipelineError, match=place + message):
            TASKS.check(table.append_column(f"{figure}_age", pa.nulls(1, kind)), "here")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"user_id,split\n1,train\n"])
def test_an_unreadable_file_is_one_line_of_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "splits.parquet"
    path.write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        read_table(path, SPLITS)
    assert str(caught.value).startswith(f"{path}: is not a readable Parquet file (Could not open")
    assert str(caught.value).endswith("). Delete it and run `dvc repro`.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [lambda path: read_table(path, SPLITS), read_csv, read_json])
def test_a_missing_file_is_one_line_of_error(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    with pytest.raises(PipelineError, match=r"nowhere: there is no such file\. Build it with"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("read", [read_csv, read_json])
def test_a_folder_in_the_place_of_a_file_is_one_line_of_error(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    told = rf"^{tmp_path}: cannot be read \(Is a directory\)\. Delete the file and run"
    with pytest.raises(PipelineError, match=told):
        read(tmp_path)


def fail_halfway(path: Path) -> None:
    with replacing(path) as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt


def fail_to_flush(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", fail_on_a_full_disk)
        write_bytes(b"new", path)


def fail_on_a_full_disk(_: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("write", "error"), [(fail_halfway, KeyboardInterrupt), (fail_to_flush, PipelineError)]
)
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failing_writer_leaves_the_old_file_and_no_other(
    tmp_path: Path,
    write: Callable[[Path], None],
    error: type[BaseException],
    old: bytes | None,
) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(error):
        write(path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if old is None else [old])


def test_what_a_killed_writer_left_is_removed_and_what_another_is_at_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file [1].csv"
    (tmp_path / ".file [1].csv.x1y2.part").write_bytes(b"left by a writer who was killed")
    (tmp_path / ".file 1.csv.x1y2.part").write_bytes(b"of another file")
    with replacing(path) as part:
        part.write_bytes(b"first")
        write_bytes(b"second", path)
        assert part.read_bytes() == b"first"
    assert path.read_bytes() == b"first"
    assert sorted(one.name for one in tmp_path.iterdir()) == [".file 1.csv.x1y2.part", path.name]


def test_a_scratch_folder_that_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".scratch.x1y2.part"
    left.mkdir()
    (left / "half").write_bytes(b"half")
    with scratch_folder(tmp_path) as one, scratch_folder(tmp_path) as other:
        assert sorted(tmp_path.iterdir()) == sorted([one, other])
    assert not [*tmp_path.iterdir()]


def test_a_file_is_written_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".file.x1y2.part").write_bytes(b"perhaps at work")

    def flock(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    write_bytes(b"new", tmp_path / "file")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".file.x1y2.part", "file"]


def test_a_full_disk_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"file: cannot be written \(No space left on device\)"):
        fail_to_flush(tmp_path / "file")


def test_a_folder_in_the_way_is_named_in_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(PipelineError, match=r"file: cannot be written \(Is a directory\)"):
        write_bytes(b"new", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """As root a rename onto /dev/null would succeed."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PipelineError, match="pipe: is a device or a pipe; name a file"):
        write_text(["a"], tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert part.parent == path.parent  # a rename across file systems is no rename
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_file_is_flushed_to_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    flushed = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        flushed.append((os.fstat(handle).st_size, path.exists()))
        fsync(handle)

    monkeypatch.setattr(files.os, "fsync", spy)
    write_bytes(b"new", path)
    assert flushed == [(3, False)]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_is_as_the_user_has_it(tmp_path: Path, umask: int, mode: int) -> None:
    """Where mkstemp's 0600 would shut others out."""
    before = os.umask(umask)
    try:
        write_bytes(b"new", tmp_path / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_an_id_made_of_text_is_a_whole_number(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("item_id\n2650560824210726935\n-7\n")
    assert len(read_csv(tmp_path / "a.csv", {"item_id": "whole number"})) == 2
    (tmp_path / "a.csv").write_text("item_id\n7.0\n")
    with pytest.raises(PipelineError, match=r"a\.csv:2: .* a whole number as item_id, found 7\.0"):
        read_csv(tmp_path / "a.csv", {"item_id": "whole number"})


def test_json_keeps_the_order_of_its_keys_and_refuses_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "auc.json"
    write_json({"b": 1, "a": {"c": None}}, path)
    assert path.read_text() == '{\n  "b": 1,\n  "a": {\n    "c": null\n  }\n}\n'
    assert json.loads(path.read_text()) == {"b": 1, "a": {"c": None}}
    with pytest.raises(ValueError, match="nan"):
        write_json({"a": float("nan")}, path)
    assert json.loads(path.read_text())["b"] == 1


def test_csv_writes_a_missing_value_as_an_empty_field(tmp_path: Path) -> None:
    path = tmp_path / "task_auc.csv"
    write_csv([{"task_id": 0, "auc": None}, {"task_id": 1, "auc": 0.25}], path)
    assert path.read_bytes() == b"task_id,auc\n0,\n1,0.25\n"
    assert read_csv(path) == [{"task_id": "0", "auc": ""}, {"task_id": "1", "auc": "0.25"}]


def test_csv_of_one_row_with_a_line_end_in_a_field_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_csv([{"title": 'a\r\nb,"c"'}], path)
    assert read_csv(path) == [{"title": 'a\r\nb,"c"'}]


def test_csv_is_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_csv([{"title": "Amélie"}], path)
    code = (
        "import sys; from pathlib import Path; from pipeline.text_files import read_csv; "
        "print(ascii(read_csv(Path(sys.argv[1]))))"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, **ascii_only, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[{'title': 'Am\\xe9lie'}]\n"


def test_a_text_is_written_part_by_part_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.txt"
    write_text(iter(["é\r\n", "b\n"]), path)
    assert path.read_bytes() == "é\r\nb\n".encode()

    def breaks() -> Iterator[str]:
        yield "new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_text(breaks(), path)
    assert path.read_bytes() == "é\r\nb\n".encode()
    assert [file.name for file in path.parent.iterdir()] == ["page.txt"]


KINDS: dict[str, Field] = {"n": "number", "loss": "number or nan", "auc": "number or nothing"}


def test_the_columns_of_a_csv_hold_what_they_should(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("n,loss,auc,label\n1,nan,,\n-2.5,inf,1e-3,age\n")
    assert read_csv(path, {**KINDS, "label": "text"})[1]["auc"] == "1e-3"


CSV_FAULTS = {
    "empty": ("", r"table\.csv: holds no rows"),
    "only names": ("n,loss,auc\n", r"table\.csv: holds no rows"),
    "missing column": ("n,auc\n1,1\n", r"table\.csv: lacks the column loss\. Delete the file"),
    "missing columns": ("n\n1\n", r"table\.csv: lacks the column loss, auc\. "),
    "fewer fields": ("n,loss,auc\n1,1,1\n1,1\n", r"table\.csv:3: has another number of fields"),
    "more fields": ("n,loss,auc\n1,1,1,1\n", r"table\.csv:2: has another number of fields"),
    "no number": ("n,loss,auc\n1,1,1\nx,1,1\n", r"csv:3: expected a number as n, found x\. "),
    "infinite": ("n,loss,auc\ninf,1,1\n", "expected a number as n, found inf"),
    "nothing": ("n,loss,auc\n,1,1\n", r"expected a number as n, found \."),
    "no loss": ("n,loss,auc\n1,,1\n", "expected a number or nan as loss"),
    "no AUC": ("n,loss,auc\n1,1,nan\n", "expected a number or nothing as auc, found nan"),
    "bytes": (b"n,loss,auc\n\xff,1,1\n", "is not readable as CSV .*utf-8"),
    "quotes": ('n,loss,auc\n"1"2,1,1\n', "is not readable as CSV"),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_a_faulty_csv_is_one_line_that_names_its_line(tmp_path: Path, fault: str) -> None:
    content, message = CSV_FAULTS[fault]
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PipelineError, match=message) as caught:
        read_csv(path, KINDS)
    assert str(caught.value).startswith(str(path))


def refusal(read: Callable[[Path], object], path: Path, content: str) -> str:
    path.write_text(content)
    with pytest.raises(PipelineError) as caught:
        read(path)
    return str(caught.value)


def test_a_history_has_epochs_and_their_losses_or_nothing_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for content in ("epoch\n0\n", "epoch,valid_loss,valid_auc\n1,0.5,nan\n"):
        path.write_text(content)
        assert read_history(path)[0]["epoch"] in "01"
    assert "lacks the column epoch" in refusal(read_history, path, "valid_loss\n1\n")
    assert "lacks the column valid_loss" in refusal(read_history, path, "epoch,loss\n1,1\n")
    assert "number as valid_loss" in refusal(read_history, path, "epoch,valid_loss\n1,nan\n")
    assert "or nan as auc" in refusal(read_history, path, "epoch,valid_loss,auc\n1,1,x\n")


def test_links_tell_how_many_triples_and_how_well_predicted(tmp_path: Path) -> None:
    path = tmp_path / "links.csv"
    for content in ("triples\n0\n", "relation,triples,mrr,hits10\nin,3,0.5,1\n"):
        path.write_text(content)
        assert read_links(path)[0]["triples"] in "03"
    assert "lacks the column triples" in refusal(read_links, path, "mrr\n1\n")
    assert "lacks the column mrr" in refusal(read_links, path, "relation,triples\nin,3\n")
    header = "relation,triples,mrr,hits10\n"
    assert "number as mrr" in refusal(read_links, path, f"{header}in,3,nan,1\n")
    assert "or nan as hits10" in refusal(read_links, path, f"{header}in,3,1,x\n")


@pytest.mark.parametrize(("content", "message"), [("[1]", "holds no names"), ("{", "is not JSON")])
def test_json_of_another_kind_is_one_line_of_error(
    tmp_path: Path, content: str, message: str
) -> None:
    assert f"{tmp_path / 'auc.json'}: {message}" in refusal(
        read_json, tmp_path / "auc.json", content
    )
